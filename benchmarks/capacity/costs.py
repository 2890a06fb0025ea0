"""The measured costs: what ``measure`` writes and everything else reads. Per track unless a field says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from shared.contracts.messages import Stage
from shared.contracts.topics import Channel

MEASURED: Final = Path(__file__).with_name("measured.json")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TopicCosts(_Frozen):
    """A track's share of one topic. ``stored_bytes`` are those of one replica, compressed, with framing and markers."""

    records: float
    value_bytes: float
    stored_bytes: float


class RedisCosts(_Frozen):
    """A track's share of Redis.

    ``request_bytes``, ``result_bytes`` and ``source_bytes`` are the memory of the keys that stay after the answer, each
    for its own time to live. ``in_flight_bytes`` is what a request takes while it is under way. ``append_only_bytes``
    go to the disk.
    """

    commands: float
    cpu_s: float
    request_bytes: float
    result_bytes: float
    source_bytes: float
    in_flight_bytes: float
    append_only_bytes: float


class BlobCosts(_Frozen):
    """Decoded audio. ``read_bytes`` by the stage that reads it. ``peak_bytes`` is the most that a whole run held."""

    written_bytes: float
    read_bytes: dict[Stage, float]
    peak_bytes: int


class Run(_Frozen):
    """Tracks of one kind through the pipeline, with ``workers_each`` workers a service.

    ``makespan_s`` is the time from the first request to the last result, ``latency_s`` the mean time from request to
    result, both as a client sees them. ``cores`` is what the machine had left for the run: its cores without what other
    processes used meanwhile. CPU is all that the processes used during the run, user and system time, with that of
    child processes such as ffmpeg. ``kafka_internal_bytes`` are those of the topics of offsets and transactions.
    ``most_unfinished`` is the most requests that were under way at once.
    """

    tracks: int
    track_s: float
    encoded_bytes: float
    segments: float
    workers_each: int
    cores: float
    makespan_s: float
    latency_s: float
    most_unfinished: int
    cpu_s: dict[Stage, float]
    broker_cpu_s: float
    topics: dict[Channel, TopicCosts]
    kafka_internal_bytes: float
    transactions: dict[Stage, float]
    redis: RedisCosts
    blobs: BlobCosts


class Idle(_Frozen):
    """What a process costs without work. ``cpu`` in cores; ``memory_bytes`` are the anonymous pages of a warm one."""

    cpu: float
    memory_bytes: int


class Measured(_Frozen):
    """All that one measurement found, and where and how it was made.

    The clips of ``clip`` and the tracks of ``track`` were submitted at once, the clips of ``low_rate`` each after the
    answer of the one before.

    ``start_s``: seconds from starting a worker until it owns partitions. ``commit_s``: one small transaction.
    ``delivery_s``: from its end until a waiting member of another group holds its record. Medians.
    """

    commit: str
    date: str
    command: str
    machine: str
    cores: int
    load_before: float
    versions: dict[str, str]
    genre_model: str
    tag_model: str
    genre_engine: str
    partitions: int
    clip: Run
    track: Run
    low_rate: Run
    idle: dict[Stage, Idle]
    idle_broker: Idle
    idle_redis: Idle
    start_s: dict[Stage, float]
    commit_s: float
    delivery_s: float

    @classmethod
    def read(cls, path: Path = MEASURED) -> Measured:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path = MEASURED) -> None:
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
