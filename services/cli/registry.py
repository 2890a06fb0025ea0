"""The services by name. This folder is where they are put together; no service knows another."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from shared.contracts.messages import Stage
from shared.runtime.service import Service
from shared.settings import Settings

#: module:class of each service. Imported when asked for, so that no worker carries another's dependencies.
_SERVICES: Final[dict[Stage, str]] = {
    Stage.INGESTION: "services.ingestion.service:Ingestion",
    Stage.FEATURE_EXTRACTION: "services.feature_extraction.service:FeatureExtraction",
    Stage.GENRE_WORKER: "services.genre_worker.service:GenreWorker",
    Stage.MOOD_WORKER: "services.mood_worker.service:MoodWorker",
    Stage.AGGREGATOR: "services.aggregator.service:Aggregator",
}

SERVICE_NAMES: Final = tuple(stage.value for stage in _SERVICES)


def build_service(stage: Stage, settings: Settings) -> Service:
    """The service with its adapters, from the settings. Raises ModelError, MissingDependencyError, ImportError."""
    module, name = _SERVICES[stage].split(":")
    service: Service = getattr(import_module(module), name).build(settings)
    return service
