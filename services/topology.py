"""The topology: who reads and who writes which topic. Its one home.

Services take their topics from here, and so do the AsyncAPI document, docs/architecture.md and the tests. No service
knows another.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from shared.contracts.messages import Stage
from shared.contracts.topics import Channel
from shared.runtime.service import AnyService
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Node:
    """One service, or one lane of it: a consumer group of its own.

    ``service`` is ``module:class``, imported when a worker is built, so that no worker carries the dependencies of
    another. Every node may write dead letters; ``writes`` are its other topics.
    """

    stage: Stage
    name: str
    service: str
    reads: tuple[Channel, ...]
    writes: tuple[Channel, ...]


INGESTION: Final = Node(
    stage=Stage.INGESTION,
    name="ingestion",
    service="services.ingestion.service:Ingestion",
    reads=(Channel.REQUESTS,),
    writes=(Channel.REQUESTS_RETRY, Channel.TRACKS),
)
INGESTION_RETRY: Final = Node(
    stage=Stage.INGESTION,
    name="ingestion-retry",
    service="services.ingestion.service:IngestionRetry",
    reads=(Channel.REQUESTS_RETRY,),
    writes=(Channel.REQUESTS_RETRY, Channel.TRACKS),
)
FEATURE_EXTRACTION: Final = Node(
    stage=Stage.FEATURE_EXTRACTION,
    name="feature-extraction",
    service="services.feature_extraction.service:FeatureExtraction",
    reads=(Channel.TRACKS,),
    writes=(Channel.FEATURES, Channel.PREDICTIONS),
)
GENRE_WORKER: Final = Node(
    stage=Stage.GENRE_WORKER,
    name="genre-worker",
    service="services.genre_worker.service:GenreWorker",
    reads=(Channel.FEATURES,),
    writes=(Channel.PREDICTIONS,),
)
MOOD_WORKER: Final = Node(
    stage=Stage.MOOD_WORKER,
    name="mood-worker",
    service="services.mood_worker.service:MoodWorker",
    reads=(Channel.TRACKS,),
    writes=(Channel.MOODS,),
)
AGGREGATOR: Final = Node(
    stage=Stage.AGGREGATOR,
    name="aggregator",
    service="services.aggregator.service:Aggregator",
    reads=(Channel.TRACKS, Channel.PREDICTIONS, Channel.MOODS),
    writes=(Channel.PREDICTIONS, Channel.RESULTS),
)

#: Every node, in the order in which a track passes them. Nodes of one stage run in one worker process.
TOPOLOGY: Final = (INGESTION, INGESTION_RETRY, FEATURE_EXTRACTION, GENRE_WORKER, MOOD_WORKER, AGGREGATOR)

SERVICE_NAMES: Final = tuple(dict.fromkeys(node.stage.value for node in TOPOLOGY))

#: Topics that some service reads: a dead letter that came from one of them can be replayed.
READ_BY_SERVICES: Final = frozenset(channel for node in TOPOLOGY for channel in node.reads)

#: Topics that carry requests: replaying a record of theirs makes the request anew.
ENTRANCES: Final = frozenset(channel for node in TOPOLOGY if node.stage is Stage.INGESTION for channel in node.reads)


def build_services(stage: Stage, settings: Settings) -> list[AnyService]:
    """The services of a worker process, with their adapters. Each runs in its own consumer group.

    Raises ModelError, MissingDependencyError, ImportError.
    """
    return [service_class(node).build(settings) for node in TOPOLOGY if node.stage is stage]


def service_class(node: Node) -> Any:
    """The class of the node's service. Raises ImportError if this installation lacks its dependencies."""
    module, name = node.service.split(":")
    return getattr(import_module(module), name)
