"""Which models a process has, as a metric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from shared.contracts.messages import Stage
from shared.models.catalogue import Kind
from shared.models.engine import EngineName
from shared.models.manifest import ModelManifest
from shared.runtime import metrics


class OnEngine(Protocol):
    """A loaded model, and what runs it."""

    engine: EngineName
    manifest: ModelManifest


Model = TypeVar("Model", bound=OnEngine)


def announcing(load: Callable[[Path], Model], stage: Stage, kind: Kind) -> Callable[[Path], Model]:
    """``load``, which then says in ``tonestream_model_info`` what it loaded as a model of that ``kind``."""

    def loaded(folder: Path) -> Model:
        model = load(folder)
        name = model.manifest.name
        version = model.manifest.model_id.removeprefix(f"{name}-")
        metrics.MODEL.labels(stage.value, kind, name, version, model.engine).set(1)
        return model

    return loaded
