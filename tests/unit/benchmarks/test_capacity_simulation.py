"""The simulation against what queueing theory says in closed form, and against what must hold in any queue."""

from __future__ import annotations

import random
import statistics

import pytest

from benchmarks.capacity.simulation import Autoscaler, Model, Outcome, StageModel, poisson, simulate

SEEDS = range(4)


def single(rate: float, *, spread: float, slots: int = 1, cores: float | None = None, seed: int = 0) -> Outcome:
    """One stage with one worker, Poisson arrivals and one second of work a track."""
    stage = StageModel("only", 1.0, spread=spread, slots=slots)
    return simulate(Model((stage,), 1, cores), poisson(lambda _: rate, rate, 20_000.0, seed), seed + 100)


def mean_latency_s(rate: float, spread: float, slots: int = 1, cores: float | None = None) -> float:
    return statistics.fmean(
        single(rate, spread=spread, slots=slots, cores=cores, seed=seed).latency_s for seed in SEEDS
    )


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.8])
def test_constant_work_waits_as_long_as_in_m_d_1(rate: float) -> None:
    assert mean_latency_s(rate, spread=0.0) - 1.0 == pytest.approx(rate / (2 * (1 - rate)), rel=0.08)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.8])
def test_exponential_work_waits_as_long_as_in_m_m_1(rate: float) -> None:
    assert mean_latency_s(rate, spread=1.0) == pytest.approx(1 / (1 - rate), rel=0.08)


def test_the_wait_follows_the_spread_as_pollaczek_and_khinchin_say() -> None:
    rate, spread = 0.7, 0.5
    waiting = rate * (1 + spread**2) / (2 * (1 - rate))
    assert mean_latency_s(rate, spread) - 1.0 == pytest.approx(waiting, rel=0.06)


def test_a_shared_core_is_as_slow_as_in_m_m_1_with_processor_sharing() -> None:
    latency_s = mean_latency_s(0.6, spread=1.0, slots=10_000, cores=1.0)
    assert latency_s == pytest.approx(1 / (1 - 0.6), rel=0.08)


def test_a_core_is_busy_for_the_part_that_the_load_says() -> None:
    outcome = single(0.6, spread=0.0)
    assert outcome.busy_s[0] / outcome.makespan_s == pytest.approx(0.6, rel=0.02)


def test_littles_law_holds() -> None:
    outcome = single(0.8, spread=0.7)
    assert outcome.inside == pytest.approx(outcome.arrived / outcome.makespan_s * outcome.latency_s, rel=1e-6)


def forked(**changes: object) -> Model:
    """A way that forks and joins, with batches, pauses and an autoscaler."""
    scaler = Autoscaler(lag=5, least=1, most=6, every_s=5.0, start_s=7.0, cooldown_s=20.0)
    stages = (
        StageModel("first", 0.2, slots=4),
        StageModel("left", 0.5, ("first",), batch=8, wait_s=0.05, spread=0.4, autoscaler=scaler),
        StageModel("right", 0.3, ("first",), batch=3, spread=0.4, autoscaler=scaler),
        StageModel("join", 0.01, ("first", "left", "right"), batch=20),
    )
    return Model(stages, partitions=8, **changes)  # type: ignore[arg-type]


def test_every_track_is_done_once_whatever_the_autoscaler_does() -> None:
    arrivals = sorted([*poisson(lambda _: 0.5, 0.5, 2000.0, seed=3), *[300.0] * 500])
    outcome = simulate(forked(max_unfinished=60), arrivals, seed=4, sample_s=10.0)
    assert outcome.completed == outcome.arrived == len(arrivals) == len(outcome.latencies_s)
    assert min(outcome.latencies_s) > 0
    workers = [sample.workers[1] for sample in outcome.samples]
    assert max(workers) > 1 and workers[-1] == 1


def test_an_autoscaler_by_use_keeps_the_workers_that_a_steady_load_needs() -> None:
    def least(use: float | None) -> int:
        scaler = Autoscaler(lag=20, least=1, most=10, use=use)
        model = Model((StageModel("only", 1.0, autoscaler=scaler),), partitions=60)
        outcome = simulate(model, [n / 3 for n in range(12_000)], sample_s=30.0)
        return min(sample.workers[0] for sample in outcome.samples[20:])

    assert least(0.75) >= 4
    assert least(None) == 1


def test_the_same_seed_gives_the_same_run_and_another_gives_another() -> None:
    arrivals = poisson(lambda _: 1.0, 1.0, 300.0, seed=5)
    first, again, other = (simulate(forked(), arrivals, seed=seed, sample_s=5.0) for seed in (6, 6, 7))
    assert first == again
    assert first != other


def test_work_is_conserved_when_cores_are_shared() -> None:
    stages = (StageModel("a", 1.0, slots=3), StageModel("b", 2.0, ("a",)))
    outcome = simulate(Model(stages, partitions=4, cores=1.0), [0.0] * 50)
    assert outcome.makespan_s == pytest.approx(sum(outcome.busy_s), rel=1e-9)
    assert sum(outcome.busy_s) == pytest.approx(150.0)


def test_the_first_stage_pauses_while_too_many_are_under_way() -> None:
    stages = (StageModel("entry", 0.01), StageModel("slow", 1.0, ("entry",)))
    outcome = simulate(Model(stages, partitions=1, max_unfinished=10), [0.0] * 100, sample_s=1.0)
    assert max(sample.backlog[1] for sample in outcome.samples) < 10
    assert outcome.samples[0].backlog[0] >= 88


def test_more_workers_than_partitions_change_nothing() -> None:
    random_arrivals = sorted(random.Random(8).uniform(0, 50) for _ in range(200))
    few, many = (
        simulate(Model((StageModel("only", 1.0, workers=workers),), partitions=4), random_arrivals)
        for workers in (4, 40)
    )
    assert few == many


def test_the_rate_of_arrivals_follows_the_clock() -> None:
    arrivals = poisson(lambda at: 2.0 if at < 1000 else 0.5, 2.0, 2000.0, seed=9)
    early = sum(at < 1000 for at in arrivals)
    assert early == pytest.approx(2000, rel=0.1) and len(arrivals) - early == pytest.approx(500, rel=0.15)
