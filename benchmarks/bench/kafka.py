"""Kafka end to end: what a track costs beside the embedded pipeline, a backlog, an idle pipeline, a second worker."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.bench.cluster import BROKER, Backlog, Cluster, uris
from benchmarks.bench.findings import Row, Section
from benchmarks.bench.material import Material, balanced_links
from benchmarks.bench.measurement import NotMeasuredError, Usage
from benchmarks.bench.rounds import alternate
from benchmarks.bench.scale import Scale
from benchmarks.bench.tracks import own_contender
from benchmarks.bench.warm import WarmContender
from services.topology import SERVICE_NAMES

_TOGETHER: Final = "services and broker"
#: Pauses before a request to an idle pipeline, in seconds, drawn between these.
_PAUSE_S: Final = (0.2, 0.6)
#: One worker fills one core: two of them could not be faster on two cores if one took both.
_ONE_THREAD: Final = {"TONESTREAM_WORKER_THREADS": "1"}
#: A worker that stands still for longer than its session has to join its group again.
_LONGEST_PAUSE_S: Final = "300"
_FLAT: Final = 1.1
_THOUSAND: Final = 1000


def measure_kafka(cluster: Cluster, material: Material, scale: Scale, rounds: int, logs: Path) -> Section:
    """The section ``kafka``. Starts one worker of each service. A part that fails leaves the others alone."""
    section = Section("kafka", f"Kafka end to end, backlogs of {scale.backlog} clips of {scale.minutes_s} s, a clip")
    cluster.start()
    cpu_s: dict[str, float] = {}
    with WarmContender(own_contender("embedded"), logs) as embedded:
        with _or_missing(section, "backlog"):
            cpu_s |= _beside_embedded(section, cluster, embedded, material, scale, rounds)
        with _or_missing(section, "idle"):
            _idle(section, cluster, embedded, material, scale)
    with _or_missing(section, "growing backlog"):
        _growing(section, cluster, material, scale)
    with _or_missing(section, "two workers"):
        _two_workers(section, cluster, material, scale, heaviest(cpu_s))
    return section


@contextmanager
def _or_missing(section: Section, name: str) -> Iterator[None]:
    try:
        yield
    except NotMeasuredError as error:
        section.missing[name] = str(error)


def heaviest(cpu_s: Mapping[str, float]) -> str:
    """The service with the most CPU."""
    return max(SERVICE_NAMES, key=lambda name: cpu_s.get(name, 0.0))


def _beside_embedded(
    section: Section, cluster: Cluster, embedded: WarmContender, material: Material, scale: Scale, rounds: int
) -> Mapping[str, float]:
    """The same files through both. Returns the CPU of each service."""
    files = tuple(itertools.islice(itertools.cycle(material.minutes), scale.backlog))
    taken: list[Backlog] = []

    def through_kafka() -> Usage:
        backlog = cluster.backlog(files)
        taken.append(backlog)
        counted = [name for name in (*SERVICE_NAMES, BROKER) if name in backlog.cpu_s]
        cpu_s = sum(backlog.cpu_s[name] for name in counted)
        return Usage(cpu_s, backlog.wall_s, sum(backlog.peak_mb[name] for name in counted))

    found = alternate({"embedded": partial(embedded.classify, files), _TOGETHER: through_kafka}, rounds)
    section.add_rounds(found, scale.backlog, "embedded")
    measured = taken[1:]  # the first warmed up
    if not measured:
        raise NotMeasuredError(found.missing.get(_TOGETHER, "no backlog was measured"))
    target = "Kafka: services and broker by embedded, CPU"
    if BROKER in measured[0].cpu_s:
        section.add_target(target, found.cpu_ratio(_TOGETHER, "embedded"), "<=", 1.3)
    else:
        section.missing[target] = "the broker is no process that was started here; the row is of the services alone"
    for name in measured[0].cpu_s:
        cpu_s = statistics.median(backlog.cpu_s[name] / backlog.tracks for backlog in measured)
        peak_mb = max(backlog.peak_mb[name] for backlog in measured)
        section.rows.append(Row(f"  {name}", cpu_s, peak_mb=peak_mb))
    section.notes["backlog, tracks a second"] = statistics.median(one.tracks / one.wall_s for one in measured)
    return measured[-1].cpu_s


def _idle(section: Section, cluster: Cluster, embedded: WarmContender, material: Material, scale: Scale) -> None:
    """From the request to the result, one at a time."""
    pauses = random.Random(0)
    through_kafka: list[float] = []
    in_process: list[float] = []
    for file in itertools.islice(itertools.cycle(material.minutes), scale.single):
        in_process.append(embedded.classify([file]).wall_s)
        time.sleep(pauses.uniform(*_PAUSE_S))
        started = time.perf_counter()
        cluster.wait(cluster.submit(uris([file])))
        through_kafka.append(time.perf_counter() - started)
    half, most, own = quantile(through_kafka, 0.5), quantile(through_kafka, 0.95), quantile(in_process, 0.5)
    section.notes["idle, seconds to the result, p50"] = half
    section.notes["idle, seconds to the result, p95"] = most
    section.notes["embedded, seconds to the result, p50"] = own
    section.add_target("Kafka idle: p50 above that of embedded", half - own, "<=", 0.35, "s")
    section.add_target("Kafka idle: p95 by p50", most / half, "<=", 2.0)


def _growing(section: Section, cluster: Cluster, material: Material, scale: Scale) -> None:
    """Whether a track costs the same, however many are queued."""
    found: dict[int, list[Backlog]] = {}
    cluster.backlog(_cycled(material.brief, max(scale.backlogs[0], len(material.brief))))  # warms up
    for count in scale.backlogs:
        found.setdefault(count, []).append(cluster.backlog(_cycled(material.brief, count)))
    known = list(found[scale.backlogs[0]][0].cpu_s)
    cpu_s = {count: statistics.median(one.cpu_a_track for one in of) for count, of in found.items()}
    # Not the broker's: its heap grows to its limit, whatever it does.
    kept = [name for name in known if name != BROKER]
    peak_mb = {count: max(sum(one.peak_mb[name] for name in kept) for one in of) for count, of in found.items()}
    for count in found:
        wall_s = statistics.median(one.wall_s / one.tracks for one in found[count])
        section.rows.append(Row(f"{count} queued, {scale.brief_s} s each", cpu_s[count], wall_s, peak_mb[count]))
    section.notes["CPU ms a track, per 1,000 more queued"] = slope(cpu_s) * 1000 * _THOUSAND
    section.notes["memory MB, per 1,000 more queued"] = slope(peak_mb) * _THOUSAND
    least, most = min(found), max(found)
    several = f"{most} by {least} queued"
    section.add_target(f"Kafka: CPU a track, {several}", cpu_s[most] / cpu_s[least], "<=", _FLAT)
    section.add_target(f"Kafka: memory, {several}", peak_mb[most] / peak_mb[least], "<=", _FLAT)


def _two_workers(section: Section, cluster: Cluster, material: Material, scale: Scale, service: str) -> None:
    """The heaviest service alone, while all others stand still: its whole input waits, for one worker and for two.

    The time ends with the last record that it writes. It commits the marks that end transactions only when it has been
    without work for a second, which is no work that a second worker could share.
    """
    files = balanced_links(material.brief, material.folder / f"links-{scale.brief_s}s", scale.shared)
    others = [name for name in SERVICE_NAMES if name != service]
    wall_s: dict[int, float] = {}
    # All tracks may be under way at once, and workers that stand still stay members of their groups.
    patient = {"TONESTREAM_MAX_UNFINISHED": str(scale.shared), "TONESTREAM_KAFKA_SESSION_TIMEOUT_S": _LONGEST_PAUSE_S}
    for name in SERVICE_NAMES:
        cluster.end(name)
    cluster.start(others, **patient)
    for count in (1, 2):
        cluster.start([service], **patient, **_ONE_THREAD)
        cluster.settle(service, count)
        cluster.wait(cluster.submit(uris(files[: scale.shared // 4])))  # warms up
        for name in SERVICE_NAMES:
            cluster.until_drained(name)
        with ExitStack() as alone:
            with cluster.paused([service]):
                ids = cluster.submit(uris(files))
                for name in others:
                    cluster.until_drained(name)
                alone.enter_context(cluster.paused(others))
                before = cluster.outputs_end(service)
            started = time.time()
            cluster.until_drained(service)
            wall_s[count] = cluster.last_written(before) - started
        cluster.wait(ids)
        section.notes[f"{service}, workers: {count}, tracks a second"] = scale.shared / wall_s[count]
    section.add_target(f"{service}: two workers by one, throughput", wall_s[1] / wall_s[2], ">=", 1.8)


def _cycled(files: Sequence[Path], count: int) -> tuple[Path, ...]:
    return tuple(itertools.islice(itertools.cycle(files), count))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed.

    >>> quantile([3.0, 1.0, 2.0, 4.0], 0.5)
    2.0
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def slope(values: Mapping[int, float]) -> float:
    """By how much a value grows when its key grows by one: least squares.

    >>> round(slope({10: 1.0, 20: 1.5, 30: 2.0}), 3)
    0.05
    """
    return statistics.linear_regression(list(values), list(values.values())).slope
