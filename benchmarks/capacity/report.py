"""The tables of docs/capacity.md, from the measured costs. Prose between them is written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.capacity import arithmetic as sums
from benchmarks.capacity import scenarios
from benchmarks.capacity.costs import Measured, Run
from benchmarks.capacity.simulation import Outcome
from shared.contracts.messages import Stage
from shared.contracts.topics import RETENTION_MS
from shared.settings import Settings

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "capacity.md"

_BLOCK: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CATALOGUE: Final = 100 * sums.MILLION
_CLUSTER: Final = 100
_LARGE_CLUSTER: Final = 1_000
_HOST_CORES: Final = 32
_REPLICAS: Final = 3
_BROKERS: Final = 3
_DAY_MS: Final = 24 * 60 * 60 * 1000
#: A machine is quiet if this part of it was left for the runs.
_QUIET: Final = 0.8
_WARNING: Final = (
    "**Provisional: other processes used most of the machine meanwhile.** Crowded caches and many switches between\n"
    "processes inflate CPU times, so the costs are upper bounds, and the rates on this page lower ones."
)


def document(measured: Measured, written: str) -> str:
    """The document as ``written``, with its tables anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]](measured)}\n\n{found[3]}", written)


def _kinds(measured: Measured) -> tuple[tuple[str, Run], tuple[str, Run]]:
    return ("a clip of 30 s", measured.clip), ("a track of 4 minutes", measured.track)


# What was measured


def origin(measured: Measured) -> str:
    """Where and how it was measured, with a warning if other processes took much of the machine."""
    runs = (measured.clip, measured.low_rate, measured.track)
    busy = min(run.cores for run in runs) < _QUIET * measured.cores
    return f"{_WARNING}\n\n{_origin(measured)}" if busy else _origin(measured)


def _origin(measured: Measured) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in measured.versions.items())
    return _table(
        ("what", "value"),
        [
            ("command", f"`{measured.command}`"),
            ("commit, date", f"`{measured.commit}`, {measured.date}"),
            ("machine", f"{measured.cores} cores, {measured.machine}; load before the run {measured.load_before:g}"),
            ("versions", versions),
            (
                "models",
                f"genre `{measured.genre_model}`, tags `{measured.tag_model}`; engine of the genre worker"
                f" `{measured.genre_engine}`",
            ),
            (
                "runs",
                f"{measured.clip.tracks} clips of {measured.clip.track_s:.1f} s at once, {measured.low_rate.tracks} one"
                f" by one, {measured.track.tracks} tracks of {measured.track.track_s:.0f} s at once; one worker of"
                " one thread a service",
            ),
            (
                "cores left by others",
                f"{measured.clip.cores:.2f} (clips), {measured.low_rate.cores:.2f} (one by one),"
                f" {measured.track.cores:.2f} (tracks)",
            ),
            ("one transaction; one delivery", f"{_ms(measured.commit_s)}; {_ms(measured.delivery_s)} (medians)"),
        ],
    )


def costs(measured: Measured) -> str:
    kinds = (*_kinds(measured), ("such a clip, one by one", measured.low_rate))
    runs = [run for _, run in kinds]
    rows = [
        (stage.value, *(_ms(run.cpu_s[stage]) for run in runs), f"{measured.idle[stage].cpu * 100:.1f}%",
         _size(measured.idle[stage].memory_bytes), f"{measured.start_s[stage]:.1f} s")
        for stage in Stage
    ]  # fmt: skip
    for name, idle, used_s in (
        ("Kafka, one broker", measured.idle_broker, [run.broker_cpu_s for run in runs]),
        ("Redis", measured.idle_redis, [run.redis.cpu_s for run in runs]),
    ):
        rows.append((name, *map(_ms, used_s), f"{idle.cpu * 100:.1f}%", _size(idle.memory_bytes), ""))
    rows.append(("**all**", *(f"**{_ms(sums.whole_cpu_s(run))}**" for run in runs), "", "", ""))
    return _table(("process", *(f"CPU for {name}" for name, _ in kinds), "idle, of a core", "memory", "start"), rows)


# A day


def day(measured: Measured) -> str:
    rows = []
    for name, run in _kinds(measured):
        whole, workers = sums.whole_cpu_s(run), sums.worker_cpu_s(run)
        shares = sums.shared_workers(run, _CLUSTER)
        cluster = sums.cluster_tracks_a_second(run, shares) * sums.DAY_S
        rows.append(
            (
                name,
                _count(sums.tracks_a_day(1, whole)),
                _count(sums.tracks_a_day(_HOST_CORES, whole)),
                _count(cluster),
                f"{sums.core_hours(sums.MILLION, whole):,.0f} ({sums.core_hours(sums.MILLION, workers):,.0f})",
            )
        )
    return _table(
        ("", "one core", f"a host of {_HOST_CORES} cores", f"{_CLUSTER} workers of one core", "core-hours a million"),
        rows,
    )


def shares(measured: Measured) -> str:
    """How 100 workers are shared out."""
    rows = []
    for name, run in _kinds(measured):
        found = sums.shared_workers(run, _CLUSTER)
        rate = sums.cluster_tracks_a_second(run, found)
        rows.append((name, *(str(found[stage]) for stage in Stage), f"{rate:.1f}"))
    return _table(("", *(stage.value for stage in Stage), "tracks/s"), rows)


def catalogue(measured: Measured) -> str:
    rows = []
    for name, run in _kinds(measured):
        whole = sums.whole_cpu_s(run)
        rows.append(
            (
                name,
                f"{sums.core_hours(_CATALOGUE, whole):,.0f}",
                _duration(sums.hours(_CATALOGUE, sums.tracks_a_day(_HOST_CORES, whole))),
                *(
                    _duration(
                        sums.hours(
                            _CATALOGUE, sums.cluster_tracks_a_second(run, sums.shared_workers(run, n)) * sums.DAY_S
                        )
                    )
                    for n in (_CLUSTER, _LARGE_CLUSTER)
                ),
            )
        )
    return _table(
        (
            "100 million",
            "core-hours of work",
            f"one host of {_HOST_CORES} cores",
            f"{_CLUSTER} workers",
            f"{_LARGE_CLUSTER:,} workers",
        ),
        rows,
    )


# Kafka, Redis, blobs


def kafka(measured: Measured) -> str:
    run, rate = measured.track, _rate(measured)
    retained = sums.retained_bytes(run, rate, _REPLICAS)
    rows = []
    for channel, of in run.topics.items():
        if not of.records:
            continue
        packed = f"{of.stored_bytes / of.value_bytes * 100:.0f}%" if of.value_bytes else ""
        rows.append(
            (
                f"`{channel.value}`",
                f"{of.records:.1f}",
                _size(of.stored_bytes),
                packed,
                str(sums.readers(channel)),
                _size(of.stored_bytes * sums.MILLION),
                f"{RETENTION_MS[channel] // _DAY_MS} days",
                _size(retained[channel]),
            )
        )
    rows.append(
        (
            "offsets and transactions",
            "",
            _size(run.kafka_internal_bytes),
            "",
            "",
            _size(run.kafka_internal_bytes * sums.MILLION),
            "compacted",
            "",
        )
    )
    written = sums.written_bytes(run)
    rows.append(
        (
            "**all**",
            "",
            f"**{_size(written)}**",
            "",
            "",
            f"**{_size(written * sums.MILLION)}**",
            "",
            f"**{_size(sum(retained.values()))}**",
        )
    )
    return _table(
        (
            "topic",
            "records a track",
            "stored a track",
            "of the values",
            "groups that read it",
            "a million tracks, one replica",
            "retention",
            f"on disk at {rate:.0f} tracks/s, {_REPLICAS} replicas",
        ),
        rows,
    )


def bandwidth(measured: Measured) -> str:
    rows = []
    for name, run in _kinds(measured):
        per_second = sums.cluster_tracks_a_second(run, sums.shared_workers(run, _CLUSTER))
        rows.append(
            (
                name,
                _size(sums.written_bytes(run) * sums.MILLION),
                _size(sums.read_bytes(run) * sums.MILLION),
                _size(sums.replica_bytes(run, _REPLICAS) * sums.MILLION),
                f"{per_second:.0f}",
                f"{_size(sums.written_bytes(run) * per_second)}/s, {_size(sums.read_bytes(run) * per_second)}/s",
                f"{sum(run.transactions.values()):.2f}",
                f"{sum(run.transactions.values()) * per_second:.0f}/s",
            )
        )
    rows.append(("a clip, one by one", "", "", "", "", "", f"{sum(measured.low_rate.transactions.values()):.2f}", ""))
    return _table(
        (
            "",
            "a million: produced",
            "a million: consumed",
            f"a million: on disks, {_REPLICAS} replicas",
            f"tracks/s of {_CLUSTER} workers",
            "in, out",
            "transactions a track",
            f"with {_CLUSTER} workers",
        ),
        rows,
    )


def redis(measured: Measured) -> str:
    settings = Settings.model_construct()
    rows = []
    for name, run in _kinds(measured):
        kept = run.redis
        rows.append(
            (
                name,
                _size(kept.request_bytes),
                _size(kept.result_bytes),
                _size(kept.source_bytes),
                _size(sums.redis_bytes_after(run, sums.MILLION)),
                _size(sums.redis_bytes_after(run, sums.MILLION, results_kept=False)),
                _size(kept.in_flight_bytes),
                f"{kept.commands:.0f}",
                _size(kept.append_only_bytes),
            )
        )
    days = f"{settings.state_ttl_s // 86400} days", f"{settings.result_ttl_s // 86400} days"
    return _table(
        (
            "a track",
            f"request, {days[0]}",
            f"result, {days[1]}",
            f"source, {days[1]}",
            "a million tracks",
            "without results",
            "under way",
            "commands",
            "append-only file",
        ),
        rows,
    )


def redis_steady(measured: Measured) -> str:
    """Memory at a steady rate for some times to live."""
    run = measured.track
    day_s = int(sums.DAY_S)
    rows = []
    for rate in (1.0, 10.0, _rate(measured)):
        rows.append(
            (
                f"{rate:.0f} tracks/s ({_count(rate * sums.DAY_S)} a day)",
                *(
                    _size(sums.redis_bytes(run, rate, state, result))
                    for state, result in ((7 * day_s, 30 * day_s), (7 * day_s, day_s), (day_s, 3600))
                ),
                f"{run.redis.commands * rate:,.0f}/s",
                f"{run.redis.cpu_s * rate * 100:.0f}%",
            )
        )
    return _table(
        (
            "rate",
            "defaults (7 days, 30 days)",
            "results 1 day",
            "requests 1 day, results 1 h",
            "commands",
            "of its one thread",
        ),
        rows,
    )


def blobs(measured: Measured) -> str:
    rows = []
    for name, run in _kinds(measured):
        rows.append(
            (
                name,
                _size(run.encoded_bytes * sums.MILLION),
                _size(run.blobs.written_bytes * sums.MILLION),
                *(_size(read * sums.MILLION) for read in run.blobs.read_bytes.values()),
                _size(sums.blob_space_bytes(run, 200)),
                _size(sums.blob_space_bytes(run, 5000)),
            )
        )
    return _table(
        (
            "a million",
            "downloads",
            "written",
            *(f"read by {stage.value}" for stage in measured.track.blobs.read_bytes),
            "space for 200 under way",
            "for 5,000",
        ),
        rows,
    )


def bottlenecks(measured: Measured) -> str:
    run = measured.track
    transactions = sum(run.transactions.values())
    rows = [
        (ceiling.what, f"{ceiling.tracks_a_second:,.0f}", _workers(run, ceiling.tracks_a_second), ceiling.change)
        for ceiling in sums.ceilings(run, sums.Limits(), _BROKERS, _REPLICAS, transactions)
    ]
    return _table(("used up", "tracks/s", "workers that do as much", "what to change"), rows)


# Simulated


def check(measured: Measured) -> str:
    rows = [
        (one.what, f"{one.measured:.2f}", f"{one.simulated:.2f}", f"{one.error * 100:+.0f}%")
        for one in scenarios.check(measured)
    ]
    return _table(("", "measured", "simulated", "error"), rows)


def partitions(measured: Measured) -> str:
    found = sums.shared_workers(measured.track, _CLUSTER)
    best = sums.cluster_tracks_a_second(measured.track, found, utilisation=1.0)
    rows = []
    for count in (12, 24, 48, 96, 192, 288):
        rate = scenarios.fixed(measured, found, count, max_unfinished=1000).throughput
        rows.append((str(count), f"{rate:.1f}", f"{rate / best * 100:.0f}%"))
    return _table(("partitions", "tracks/s", f"of {best:.1f}/s, all workers busy"), rows)


def situations(measured: Measured) -> str:
    rows = []
    for situation, outcome in outcomes(measured):
        most = [max(sample.workers[n] for sample in outcome.samples) for n in range(len(Stage))]
        backlog = max(sum(sample.backlog) for sample in outcome.samples)
        rows.append(
            (
                situation.name,
                f"{outcome.completed:,}",
                f"{backlog:,}",
                f"{outcome.latency_percentile_s(0.5):,.0f} s, {outcome.latency_percentile_s(0.99):,.0f} s",
                " ".join(map(str, most)),
                f"{sum(outcome.paid_s) / 3600:,.0f}",
                f"{sum(outcome.busy_s) / sum(outcome.paid_s) * 100:.0f}%",
            )
        )
    return _table(
        (
            "situation",
            "tracks",
            "largest backlog",
            "latency: median, 99%",
            "most workers, stage by stage",
            "worker-hours",
            "of them work",
        ),
        rows,
    )


def outcomes(measured: Measured) -> Sequence[tuple[scenarios.Situation, Outcome]]:
    """The situations and what the simulation makes of them."""
    return _outcomes(measured.model_dump_json())


@cache
def _outcomes(measured: str) -> Sequence[tuple[scenarios.Situation, Outcome]]:
    return [(one, one.run()) for one in scenarios.situations(Measured.model_validate_json(measured))]


TABLES: Final[dict[str, Callable[[Measured], str]]] = {
    "origin": origin,
    "costs": costs,
    "day": day,
    "shares": shares,
    "catalogue": catalogue,
    "kafka": kafka,
    "bandwidth": bandwidth,
    "redis": redis,
    "redis-steady": redis_steady,
    "blobs": blobs,
    "bottlenecks": bottlenecks,
    "check": check,
    "partitions": partitions,
    "situations": situations,
}


# Words


def _rate(measured: Measured) -> float:
    """Four-minute tracks a second of the cluster, at 80%."""
    return sums.cluster_tracks_a_second(measured.track, sums.shared_workers(measured.track, _CLUSTER))


def _workers(run: Run, tracks_a_second: float) -> str:
    """How many one-core workers do so many tracks a second, at 80%."""
    return _count(tracks_a_second * sums.worker_cpu_s(run) / sums.UTILISATION)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def _size(count: float) -> str:
    """Bytes in decimal units, two or three digits.

    >>> _size(999), _size(72_200), _size(1.4e12)
    ('999 B', '72 kB', '1.4 TB')
    """
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if size < 10 and unit != "B" else f"{size:.0f} {unit}"


def _count(number: float) -> str:
    """A number of tracks or workers, two or three digits.

    >>> _count(947.3), _count(52_345), _count(5_200_000)
    ('947', '52,300', '5.2 million')
    """
    if number >= sums.MILLION:
        return f"{number / sums.MILLION:.1f} million"
    digits = max(0, len(str(int(number))) - 3)
    return f"{round(number, -digits):,.0f}"


def _duration(hours: float) -> str:
    return f"{hours:,.0f} h ({hours / 24:,.0f} days)"
