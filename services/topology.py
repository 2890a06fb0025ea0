"""The services by name. This folder is where they are put together; no service knows another."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from shared.contracts.messages import Stage
from shared.runtime.service import AnyService
from shared.settings import Settings

#: module:class of each service, in the order of its lanes. Imported when asked for, so that no worker carries another's
#: dependencies.
_SERVICES: Final[dict[Stage, tuple[str, ...]]] = {
    Stage.INGESTION: ("services.ingestion.service:Ingestion", "services.ingestion.service:IngestionRetry"),
    Stage.FEATURE_EXTRACTION: ("services.feature_extraction.service:FeatureExtraction",),
    Stage.GENRE_WORKER: ("services.genre_worker.service:GenreWorker",),
    Stage.MOOD_WORKER: ("services.mood_worker.service:MoodWorker",),
    Stage.AGGREGATOR: ("services.aggregator.service:Aggregator",),
}

SERVICE_NAMES: Final = tuple(stage.value for stage in _SERVICES)


def build_services(stage: Stage, settings: Settings) -> list[AnyService]:
    """What runs side by side in a worker of that name, each in its own group, with its adapters, from the settings.

    Raises ModelError, MissingDependencyError, ImportError.
    """
    return [_class(path).build(settings) for path in _SERVICES[stage]]


def _class(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)
