"""From costs a track to cores, bandwidth and memory: pure functions, each with its units.

A day has 86,400 s. A core gives 86,400 core-seconds a day, ``utilisation`` of which go to tracks: queues need slack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.capacity.costs import Run
from services.topology import TOPOLOGY
from shared.contracts.messages import Stage
from shared.contracts.topics import RETENTION_MS, Channel

DAY_S: Final = 86_400.0
MILLION: Final = 1_000_000
#: How much of a core goes to tracks where load varies. The rest is slack for queues, rebalances and retries.
UTILISATION: Final = 0.8


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server of each kind can do. None of it is measured here: put in the figures of your own servers.

    ``disk_bytes_a_second``, ``network_bytes_a_second`` (both directions together) and ``broker_disk_bytes`` of one
    broker, ``transactions_a_second`` that it coordinates; ``redis_commands_a_second`` of one thread, in scripts and
    pipelines; ``blob_bytes_a_second`` of the blob store.
    """

    disk_bytes_a_second: float = 400e6
    network_bytes_a_second: float = 1.25e9
    transactions_a_second: float = 1_000.0
    redis_commands_a_second: float = 50_000.0
    broker_disk_bytes: float = 4e12
    blob_bytes_a_second: float = 1.25e9


# CPU


def worker_cpu_s(run: Run) -> float:
    """CPU seconds a track of all workers together."""
    return sum(run.cpu_s.values())


def whole_cpu_s(run: Run) -> float:
    """CPU seconds a track of workers, broker and Redis together."""
    return worker_cpu_s(run) + run.broker_cpu_s + run.redis.cpu_s


def tracks_a_day(cores: float, cpu_s: float, utilisation: float = UTILISATION) -> float:
    """Tracks a day on ``cores`` cores, at ``cpu_s`` CPU seconds a track.

    >>> tracks_a_day(cores=1, cpu_s=0.864, utilisation=1.0)
    100000.0
    """
    return cores * utilisation * DAY_S / cpu_s


def core_hours(tracks: float, cpu_s: float) -> float:
    """Core-hours of work in ``tracks`` tracks. What stands idle meanwhile is not counted.

    >>> core_hours(3600, cpu_s=2.0)
    2.0
    """
    return tracks * cpu_s / 3600


def hours(tracks: float, a_day: float) -> float:
    """Hours for ``tracks`` tracks at ``a_day`` tracks a day."""
    return tracks / a_day * 24


def shared_workers(run: Run, workers: int) -> dict[Stage, int]:
    """``workers`` workers of one core each, shared out so that no stage is slower than it must be. Every stage has one.

    Each further worker goes to the stage that has the most CPU seconds a track for each of its workers.
    """
    shares = dict.fromkeys(Stage, 1)
    if workers < len(shares):
        raise ValueError(f"{workers} workers are fewer than the {len(shares)} services")
    for _ in range(workers - len(shares)):
        shares[max(Stage, key=lambda stage: run.cpu_s[stage] / shares[stage])] += 1
    return shares


def cluster_tracks_a_second(run: Run, shares: Mapping[Stage, int], utilisation: float = UTILISATION) -> float:
    """Tracks a second of workers with one core each: those of the slowest stage."""
    return min(shares[stage] * utilisation / run.cpu_s[stage] for stage in Stage)


def partitions_for(workers: int, spread: int = 3) -> int:
    """Partitions of each topic for so many workers of its busiest reader: ``spread`` each, in dozens.

    With one partition a worker a track too many in one of them keeps one worker busy and the others idle. Several a
    worker even that out, and leave room to grow. Dozens divide by 2, 3, 4 and 6.

    >>> partitions_for(1), partitions_for(4), partitions_for(60)
    (12, 12, 180)
    """
    return max(1, math.ceil(workers * spread / 12)) * 12


# Kafka


def readers(channel: Channel) -> int:
    """How many consumer groups read a topic, each all of it. Results count one client."""
    return sum(channel in node.reads for node in TOPOLOGY) + (channel is Channel.RESULTS)


def written_bytes(run: Run) -> float:
    """Bytes a track that clients write to the brokers: one replica."""
    return sum(costs.stored_bytes for costs in run.topics.values()) + run.kafka_internal_bytes


def read_bytes(run: Run) -> float:
    """Bytes a track that consumers fetch."""
    return sum(costs.stored_bytes * readers(channel) for channel, costs in run.topics.items())


def replica_bytes(run: Run, replicas: int = 3) -> float:
    """Bytes a track on the disks of all brokers together, and as many through their network to the followers."""
    return written_bytes(run) * replicas


def retained_bytes(run: Run, tracks_a_second: float, replicas: int = 3) -> dict[Channel, float]:
    """Bytes on the disks of all brokers once retention has set in, at a steady rate. Compacted topics stay small."""
    return {
        channel: costs.stored_bytes * replicas * tracks_a_second * RETENTION_MS[channel] / 1000
        for channel, costs in run.topics.items()
    }


def network_bytes(run: Run, replicas: int = 3) -> float:
    """Bytes a track through the network of all brokers: in from clients, out to consumers, and over to followers, out
    of one broker and into another."""
    return written_bytes(run) * (1 + 2 * (replicas - 1)) + read_bytes(run)


# Redis


def redis_bytes(run: Run, tracks_a_second: float, state_ttl_s: float, result_ttl_s: float) -> float:
    """Memory of Redis at a steady rate, bytes: what each track leaves behind, for as long as it lives there."""
    kept = run.redis
    return tracks_a_second * (kept.request_bytes * state_ttl_s + (kept.result_bytes + kept.source_bytes) * result_ttl_s)


def redis_bytes_after(run: Run, tracks: float, results_kept: bool = True) -> float:
    """Memory of Redis after ``tracks`` tracks that all still live there, bytes."""
    kept = run.redis
    return tracks * (kept.request_bytes + (kept.result_bytes + kept.source_bytes if results_kept else 0))


# Blobs


def blob_bytes(run: Run) -> float:
    """Bytes a track through the blob store: written once, read by each stage that hears audio."""
    return run.blobs.written_bytes + sum(run.blobs.read_bytes.values())


def blob_space_bytes(run: Run, unfinished: int) -> float:
    """Bytes in the blob store while so many requests are under way."""
    return run.blobs.written_bytes * unfinished


# Bottlenecks


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Where something ends: the rate, tracks a second, at which ``what`` is used up, and what to change there."""

    what: str
    tracks_a_second: float
    change: str


def ceilings(run: Run, limits: Limits, brokers: int, replicas: int, batch_transactions: float) -> list[Ceiling]:
    """Where each shared part ends, the lowest first. ``batch_transactions``: transactions a track under load."""
    disk = replica_bytes(run, replicas) / brokers
    network = network_bytes(run, replicas) / brokers
    retained = sum(retained_bytes(run, 1.0, replicas).values()) / brokers
    second = "a second installation with a prefix and a Redis of its own: the keys of requests share one slot"
    found = [
        Ceiling(
            f"disk writes of {brokers} brokers",
            limits.disk_bytes_a_second / disk,
            "brokers; a genre model with smaller features",
        ),
        Ceiling(
            f"network of {brokers} brokers",
            limits.network_bytes_a_second / network,
            "brokers; a genre model with smaller features",
        ),
        Ceiling(
            f"disks of {brokers} brokers, full within the retention",
            limits.broker_disk_bytes / retained,
            "`retention.ms` of `features`: hours instead of days",
        ),
        Ceiling(
            f"transactions of {brokers} brokers",
            limits.transactions_a_second * brokers / batch_transactions,
            "larger batches (`TONESTREAM_BATCH_RECORDS`), fewer and larger workers",
        ),
        Ceiling(
            "commands of Redis, one thread",
            limits.redis_commands_a_second / run.redis.commands,
            second,
        ),
        Ceiling("CPU of Redis, one thread", 1.0 / run.redis.cpu_s, second),
        Ceiling(
            "blob store",
            limits.blob_bytes_a_second / blob_bytes(run),
            "an object store, or a faster network to it",
        ),
    ]
    return sorted(found, key=lambda ceiling: ceiling.tracks_a_second)
