"""Discrete events: tracks queue for stages with partitions, batches and workers; an autoscaler follows the lag.

A track enters at a stage, and its records go on to the stages behind it, as in ``services/topology.py``. It is done
when the last stage has handled a part from every way. The same seed gives the same run.

Cores are shared as an operating system shares them: with more busy workers than cores each gets an equal part. All work
in progress then advances at the same speed, so its ends stay in order on one clock of work. That clock runs slower
while the cores are crowded.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_NEVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """Asks every ``every_s`` seconds for one worker for each ``lag`` waiting tracks, as KEDA does by consumer lag.

    With ``use`` it also asks for so many that this part of their cores is busy, as Kubernetes does by CPU. The larger
    number counts.

    A new worker works after ``start_s``. Workers leave only if fewer were asked for during all of ``cooldown_s``, the
    stabilisation window of Kubernetes, and finish what they have in hand. ``least`` and ``most`` bound the workers;
    more than there are partitions would stand idle.
    """

    lag: float
    least: int
    most: int
    every_s: float = 30.0
    start_s: float = 30.0
    cooldown_s: float = 300.0
    use: float | None = None


@dataclass(frozen=True, slots=True)
class StageModel:
    """One service. ``cpu_s`` is the CPU time of a track, ``spread`` its coefficient of variation (0: all alike, 1:
    exponential).

    A worker takes up to ``batch`` waiting tracks of its partitions at once, handles them for the sum of their CPU time,
    and they go on together. It does that in ``slots`` threads side by side. Each batch also waits ``wait_s`` (delivery,
    commit), in which it uses no core.
    """

    name: str
    cpu_s: float
    after: tuple[str, ...] = ()
    workers: int = 1
    batch: int = 1
    slots: int = 1
    wait_s: float = 0.0
    spread: float = 0.0
    autoscaler: Autoscaler | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline. ``stages`` are in the order of the way, each named by those before it in ``after``; the first takes
    the arrivals, the last completes the tracks.

    ``cores`` are shared by all workers; None gives every thread one of its own. The first stage pauses while
    ``max_unfinished`` tracks have passed it and are not done.
    """

    stages: tuple[StageModel, ...]
    partitions: int
    cores: float | None = None
    max_unfinished: float = math.inf


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one time: backlog and working workers by stage, the median latency of the tracks done since."""

    at_s: float
    backlog: tuple[int, ...]
    workers: tuple[int, ...]
    latency_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. ``busy_s`` is core-seconds of work by stage, ``paid_s`` worker-seconds by stage, started
    ones included. ``inside`` is the mean number of tracks between arrival and completion."""

    arrived: int
    completed: int
    makespan_s: float
    latencies_s: tuple[float, ...]
    busy_s: tuple[float, ...]
    paid_s: tuple[float, ...]
    inside: float
    samples: tuple[Sample, ...]

    @property
    def latency_s(self) -> float:
        """The mean time from arrival to completion, seconds."""
        return sum(self.latencies_s) / len(self.latencies_s)

    @property
    def throughput(self) -> float:
        """Completed tracks a second, from the first arrival to the last completion."""
        return self.completed / self.makespan_s

    def latency_percentile_s(self, part: float) -> float:
        """The latency that ``part`` (0 to 1) of the tracks do not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


@dataclass(slots=True)
class _Stage:
    model: StageModel
    index: int
    next: tuple[int, ...]
    expects: int
    queues: list[deque[int]]
    #: Of each worker: its batches in hand, and those of its partitions that hold tracks, whose turn it is first.
    busy: list[int]
    ready: list[deque[int]]
    #: When the autoscaler asked for how many, within its window.
    asked: deque[tuple[float, int]]
    waiting: int = 0
    #: Workers that work, and those that were asked for and start.
    workers: int = 0
    starting: int = 0
    work_s: float = 0.0
    work_seen_s: float = 0.0
    paid_s: float = 0.0
    paid_until: float = 0.0


class _Run:
    def __init__(self, model: Model, arrivals: Sequence[float], seed: int, sample_s: float) -> None:
        self.model = model
        self.arrivals = arrivals
        self.random = random.Random(seed)
        self.now = 0.0
        self.cores = model.cores or _NEVER
        #: The clock of work, and how many batches advance with it.
        self.work_clock = 0.0
        self.running = 0
        self.order = 0
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.work: list[tuple[float, int, Callable[[], None]]] = []
        self.unfinished = 0
        self.completed_at: list[float] = [math.nan] * len(arrivals)
        self.done = 0
        self.partition = [self.random.randrange(model.partitions) for _ in arrivals]
        self.parts: list[int] = [0] * len(arrivals)
        self.area = 0.0
        self.entered = 0
        self.since_sample: list[float] = []
        self.samples: list[Sample] = []
        self.sample_s = sample_s
        names = [stage.name for stage in model.stages]
        self.stages = [
            _Stage(
                stage,
                index,
                tuple(n for n, other in enumerate(model.stages) if stage.name in other.after),
                len(stage.after),
                [deque() for _ in range(model.partitions)],
                [],
                [],
                deque(),
            )
            for index, stage in enumerate(model.stages)
        ]
        unknown = {name for stage in model.stages for name in stage.after} - set(names)
        if unknown:
            raise ValueError(f"no such stages: {sorted(unknown)}")
        for stage in self.stages:
            self._resize(stage, min(stage.model.workers, model.partitions))

    # Time

    def _at(self, seconds: float, what: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.timers, (seconds, self.order, what))

    def _start_work(self, cpu_s: float, what: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.work, (self.work_clock + cpu_s, self.order, what))
        self.running += 1

    def _speed(self) -> float:
        return min(1.0, self.cores / self.running) if self.running else 1.0

    def run(self) -> Outcome:
        if self.arrivals:
            self._at(self.arrivals[0], self._arrive)
        for stage in self.stages:
            if stage.model.autoscaler is not None:
                self._at(stage.model.autoscaler.every_s, lambda stage=stage: self._scale(stage))  # type: ignore[misc]
        if self.sample_s:
            self._at(self.sample_s, self._sample)
        while self.done < len(self.arrivals):
            by_work = self.now + (self.work[0][0] - self.work_clock) / self._speed() if self.work else _NEVER
            by_timer = self.timers[0][0] if self.timers else _NEVER
            at = min(by_work, by_timer)
            if at == _NEVER:
                raise RuntimeError("the simulation stands still with tracks inside")
            self._advance(at)
            if by_work <= by_timer:
                self.work_clock, _, what = heapq.heappop(self.work)
                self.running -= 1
            else:
                _, _, what = heapq.heappop(self.timers)
            what()
        for stage in self.stages:
            self._pay(stage)
        start = self.arrivals[0]
        return Outcome(
            arrived=len(self.arrivals),
            completed=self.done,
            makespan_s=self.now - start,
            latencies_s=tuple(end - begin for end, begin in zip(self.completed_at, self.arrivals, strict=True)),
            busy_s=tuple(stage.work_s for stage in self.stages),
            paid_s=tuple(stage.paid_s for stage in self.stages),
            inside=self.area / (self.now - start) if self.now > start else 0.0,
            samples=tuple(self.samples),
        )

    def _advance(self, at: float) -> None:
        passed = at - self.now
        self.work_clock += passed * self._speed()
        self.area += passed * (self.entered - self.done)
        self.now = at

    # Tracks

    def _arrive(self) -> None:
        track = self.entered
        self.entered += 1
        if self.entered < len(self.arrivals):
            self._at(self.arrivals[self.entered], self._arrive)
        self._enqueue(self.stages[0], track)

    def _enqueue(self, stage: _Stage, track: int) -> None:
        partition = self.partition[track]
        worker = partition % stage.workers
        queue = stage.queues[partition]
        if not queue:
            stage.ready[worker].append(partition)
        queue.append(track)
        stage.waiting += 1
        self._serve(stage, worker)

    def _serve(self, stage: _Stage, worker: int) -> None:
        """Start batches of a worker while it has a free thread and its partitions hold tracks."""
        while stage.busy[worker] < stage.model.slots and stage.ready[worker]:
            if stage.index == 0 and self.unfinished >= self.model.max_unfinished:
                return
            batch = self._take(stage, worker)
            stage.busy[worker] += 1
            if stage.index == 0:
                self.unfinished += len(batch)
            cpu_s = sum(self._cpu_s(stage.model) for _ in batch)
            stage.work_s += cpu_s
            self._start_work(cpu_s, lambda batch=batch: self._worked(stage, worker, batch))  # type: ignore[misc]

    def _take(self, stage: _Stage, worker: int) -> list[int]:
        """Up to a batch, partition by partition. One that still holds tracks comes again after the others."""
        ready = stage.ready[worker]
        batch: list[int] = []
        while ready and len(batch) < stage.model.batch:
            partition = ready.popleft()
            queue = stage.queues[partition]
            while queue and len(batch) < stage.model.batch:
                batch.append(queue.popleft())
            if queue:
                ready.append(partition)
        stage.waiting -= len(batch)
        return batch

    def _cpu_s(self, model: StageModel) -> float:
        if not model.spread or not model.cpu_s:
            return model.cpu_s
        shape = 1 / model.spread**2
        return self.random.gammavariate(shape, model.cpu_s / shape)

    def _worked(self, stage: _Stage, worker: int, batch: list[int]) -> None:
        if stage.model.wait_s:
            self._at(self.now + stage.model.wait_s, lambda: self._finished(stage, worker, batch))
        else:
            self._finished(stage, worker, batch)

    def _finished(self, stage: _Stage, worker: int, batch: list[int]) -> None:
        stage.busy[worker] -= 1
        for track in batch:
            for following in stage.next:
                self._enqueue(self.stages[following], track)
            if not stage.next:
                self._part(stage, track)
        if worker < stage.workers:
            self._serve(stage, worker)

    def _part(self, stage: _Stage, track: int) -> None:
        """The last stage has handled a part of the track; with the last one the track is done."""
        self.parts[track] += 1
        if self.parts[track] < max(1, stage.expects):
            return
        self.done += 1
        self.unfinished -= 1
        self.completed_at[track] = self.now
        self.since_sample.append(self.now - self.arrivals[track])
        first = self.stages[0]
        if first.waiting and self.unfinished + 1 >= self.model.max_unfinished:
            for worker in range(first.workers):
                self._serve(first, worker)

    # Workers

    def _resize(self, stage: _Stage, workers: int) -> None:
        self._pay(stage)
        stage.workers = workers
        stage.busy += [0] * (workers - len(stage.busy))
        stage.ready = [deque() for _ in range(workers)]
        for partition, queue in enumerate(stage.queues):
            if queue:
                stage.ready[partition % workers].append(partition)
        for worker in range(workers):
            self._serve(stage, worker)

    def _pay(self, stage: _Stage) -> None:
        stage.paid_s += (self.now - stage.paid_until) * (stage.workers + stage.starting)
        stage.paid_until = self.now

    def _scale(self, stage: _Stage) -> None:
        scaler = stage.model.autoscaler
        assert scaler is not None
        self._at(self.now + scaler.every_s, lambda: self._scale(stage))
        by_lag = math.ceil(stage.waiting / scaler.lag)
        by_use = math.ceil((stage.work_s - stage.work_seen_s) / scaler.every_s / scaler.use) if scaler.use else 0
        stage.work_seen_s = stage.work_s
        wanted = max(scaler.least, min(scaler.most, self.model.partitions, max(by_lag, by_use)))
        stage.asked.append((self.now, wanted))
        while stage.asked[0][0] <= self.now - scaler.cooldown_s:
            stage.asked.popleft()
        have = stage.workers + stage.starting
        if wanted > have:
            more = wanted - have
            self._pay(stage)
            stage.starting += more
            self._at(self.now + scaler.start_s, lambda: self._started(stage, more))
        elif not stage.starting and (enough := max(asked for _, asked in stage.asked)) < have:
            self._resize(stage, enough)

    def _started(self, stage: _Stage, more: int) -> None:
        self._pay(stage)
        stage.starting -= more
        self._resize(stage, stage.workers + more)

    def _sample(self) -> None:
        latencies = sorted(self.since_sample)
        self.samples.append(
            Sample(
                self.now,
                tuple(stage.waiting for stage in self.stages),
                tuple(stage.workers for stage in self.stages),
                latencies[len(latencies) // 2] if latencies else math.nan,
            )
        )
        self.since_sample = []
        self._at(self.now + self.sample_s, self._sample)


def simulate(model: Model, arrivals: Iterable[float], seed: int = 0, sample_s: float = 0.0) -> Outcome:
    """Run tracks that arrive at these times, seconds in ascending order, until the last is done.

    ``sample_s``: how often the state is noted; 0 for never.
    """
    return _Run(model, list(arrivals), seed, sample_s).run()


def poisson(rate: Callable[[float], float], most: float, until_s: float, seed: int) -> list[float]:
    """Arrival times of independent clients at ``rate(t)`` tracks a second, at most ``most``, up to ``until_s``."""
    chance = random.Random(seed)
    found: list[float] = []
    at = 0.0
    while True:
        at += chance.expovariate(most)
        if at >= until_s:
            return found
        if chance.random() * most < rate(at):
            found.append(at)
