"""The pipeline as a model of queues, from measured costs; and the situations that docs/capacity.md looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.capacity.arithmetic import DAY_S
from benchmarks.capacity.costs import Measured, Run
from benchmarks.capacity.simulation import Autoscaler, Model, Outcome, StageModel, poisson, simulate
from services.topology import AGGREGATOR, FEATURE_EXTRACTION, GENRE_WORKER, INGESTION, MOOD_WORKER, service_class
from shared.contracts.messages import Stage
from shared.contracts.topics import Channel

#: Tracks differ in length: the coefficient of variation of their cost in the situations below. An assumption.
SPREAD: Final = 0.4
#: Decoders side by side in a worker of ingestion. Each is a process of its own.
_DECODERS: Final = 4
SEED: Final = 7


def pipeline(
    measured: Measured,
    run: Run,
    workers: Mapping[Stage, int],
    *,
    partitions: int,
    cores: float | None,
    max_unfinished: float,
    spread: float = 0.0,
    scaler: Autoscaler | None = None,
) -> Model:
    """The five services. On ``cores`` shared cores the broker and Redis take theirs, too, and ingestion decodes with
    several processes; without a number every worker has one core, and broker and Redis run elsewhere.
    """
    parts = 3  # the aggregator hears of a track from ingestion, the genre worker and the mood worker
    shared = cores is not None
    transactions = sum(run.transactions.values())
    servers_s = run.broker_cpu_s + run.redis.cpu_s
    cpu_s = {
        stage: run.cpu_s[stage] + (servers_s * run.transactions[stage] / transactions if shared else 0.0)
        for stage in Stage
    }
    segments = max(1.0, run.topics[Channel.FEATURES].records)
    joined = (run.topics[Channel.PREDICTIONS].records + 2) / parts
    wait_s = measured.commit_s + measured.delivery_s

    def stage(which: Stage, records: float, limit: int, after: tuple[Stage, ...], visits: int = 1) -> StageModel:
        return StageModel(
            name=which.value,
            cpu_s=cpu_s[which] / visits,
            after=tuple(one.value for one in after),
            workers=workers[which],
            batch=max(1, int(limit / records)),
            wait_s=wait_s,
            spread=spread,
            autoscaler=scaler,
        )

    entry = stage(Stage.INGESTION, 1, 1, ())
    return Model(
        stages=(
            replace(entry, slots=_DECODERS if shared else 1),
            stage(Stage.FEATURE_EXTRACTION, 1, _records(FEATURE_EXTRACTION.name), (Stage.INGESTION,)),
            stage(Stage.GENRE_WORKER, segments, _records(GENRE_WORKER.name), (Stage.FEATURE_EXTRACTION,)),
            stage(Stage.MOOD_WORKER, 1, _records(MOOD_WORKER.name), (Stage.INGESTION,)),
            stage(
                Stage.AGGREGATOR,
                joined,
                _records(AGGREGATOR.name),
                (Stage.INGESTION, Stage.GENRE_WORKER, Stage.MOOD_WORKER),
                parts,
            ),
        ),
        partitions=partitions,
        cores=cores,
        max_unfinished=max_unfinished,
    )


def _records(name: str) -> int:
    """The most records of one poll of a service."""
    nodes = (INGESTION, FEATURE_EXTRACTION, GENRE_WORKER, MOOD_WORKER, AGGREGATOR)
    (node,) = (node for node in nodes if node.name == name)
    records: int = service_class(node).batch_records
    return records


# The check


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure as measured and as simulated."""

    what: str
    measured: float
    simulated: float

    @property
    def error(self) -> float:
        """Relative to the measured figure."""
        return (self.simulated - self.measured) / self.measured


def replay(measured: Measured, run: Run) -> Outcome:
    """The measured run, simulated: the same tracks, workers and cores, all submitted at once."""
    workers = dict.fromkeys(Stage, run.workers_each)
    model = pipeline(
        measured,
        run,
        workers,
        partitions=measured.partitions,
        cores=run.cores,
        max_unfinished=200,
    )
    return simulate(model, [0.0] * run.tracks, SEED)


def one_by_one(measured: Measured) -> Outcome:
    """Clips, each submitted long after the answer of the one before."""
    workers = dict.fromkeys(Stage, 1)
    run = measured.low_rate
    cores = run.cores
    model = pipeline(measured, run, workers, partitions=measured.partitions, cores=cores, max_unfinished=200)
    return simulate(model, [60.0 * n for n in range(measured.low_rate.tracks)], SEED)


def check(measured: Measured) -> list[Comparison]:
    """The simulation beside the measured runs."""
    found = []
    for name, run in (("clips of 30 s", measured.clip), ("tracks of 4 minutes", measured.track)):
        simulated = replay(measured, run)
        found += [
            Comparison(f"{run.tracks} {name} at once: makespan, s", run.makespan_s, simulated.makespan_s),
            Comparison(f"{run.tracks} {name} at once: tracks/s", run.tracks / run.makespan_s, simulated.throughput),
            Comparison(f"{run.tracks} {name} at once: mean latency, s", run.latency_s, simulated.latency_s),
        ]
    low = one_by_one(measured)
    found.append(
        Comparison(
            f"{measured.low_rate.tracks} clips one by one: mean latency, s", measured.low_rate.latency_s, low.latency_s
        )
    )
    return found


# Situations


@dataclass(frozen=True, slots=True)
class Situation:
    """A load and the installation that meets it. ``sample_s``: how often its state is noted."""

    name: str
    model: Model
    arrivals: tuple[float, ...]
    sample_s: float

    def run(self) -> Outcome:
        return simulate(self.model, self.arrivals, SEED, self.sample_s)


#: One worker for each 20 waiting tracks: some ten seconds of work.
BY_LAG: Final = Autoscaler(lag=20, least=1, most=32)
BY_LAG_AND_USE: Final = replace(BY_LAG, use=0.7)
_SITUATION_PARTITIONS: Final = 96


def burst(measured: Measured, max_unfinished: int) -> Situation:
    """One track a second for an hour and a half, and 10,000 more at once after ten minutes."""
    arrivals = sorted([*poisson(lambda _: 1.0, 1.0, 5400.0, SEED), *[600.0] * 10_000])
    model = _scaled(measured, max_unfinished, BY_LAG_AND_USE)
    return Situation(f"burst, at most {max_unfinished:,} under way", model, tuple(arrivals), 30.0)


def wave(measured: Measured, scaler: Autoscaler) -> Situation:
    """A day with a wave: one track a second in the mean, from 0.1 at night to 1.9 by day."""

    def rate(at: float) -> float:
        return 1.0 - 0.9 * math.cos(2 * math.pi * at / DAY_S)

    arrivals = tuple(poisson(rate, 1.9, DAY_S, SEED))
    name = f"day's wave, workers by {'lag and CPU' if scaler.use else 'lag alone'}"
    return Situation(name, _scaled(measured, 5000, scaler), arrivals, 300.0)


def situations(measured: Measured) -> list[Situation]:
    """All that the document shows."""
    return [burst(measured, 200), burst(measured, 5000), wave(measured, BY_LAG), wave(measured, BY_LAG_AND_USE)]


def _scaled(measured: Measured, max_unfinished: int, scaler: Autoscaler) -> Model:
    return pipeline(
        measured,
        measured.track,
        dict.fromkeys(Stage, 1),
        partitions=_SITUATION_PARTITIONS,
        cores=None,
        max_unfinished=max_unfinished,
        spread=SPREAD,
        scaler=scaler,
    )


def fixed(measured: Measured, shares: Mapping[Stage, int], partitions: int, max_unfinished: int) -> Outcome:
    """So many workers with a backlog that never ends: what they do at best. 100 tracks a worker."""
    model = pipeline(
        measured, measured.track, shares, partitions=partitions, cores=None, max_unfinished=max_unfinished,
        spread=SPREAD,
    )  # fmt: skip
    return simulate(model, [0.0] * (100 * sum(shares.values())), SEED)
