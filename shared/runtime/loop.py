"""The one loop that drives every service: poll, handle, publish and commit as one unit.

Why nothing is lost or doubled: the outputs of a batch and the offsets of its records are one transaction of the bus.
A worker that dies before it, at whatever instruction, leaves records that the next worker is given again; one that
dies after it leaves nothing undone that an answer depends on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from importlib.metadata import version
from typing import Final, Protocol, TypeVar

from shared.bus.base import (
    BackPressureError,
    BusError,
    BusUnavailableError,
    FencedError,
    Membership,
    MessageTooLargeError,
    Outgoing,
    Record,
)
from shared.contracts.errors import DependencyError, HeldError
from shared.contracts.topics import Topics
from shared.runtime import metrics
from shared.runtime.crash_guard import CrashGuard, CrashLoop, Unit
from shared.runtime.dead_letters import DeadLetterLimit, DeadLetterLimitError
from shared.runtime.envelope import outgoing
from shared.runtime.health import Pulse
from shared.runtime.logs import REPEATING
from shared.runtime.metrics import CommitOutcome, RewindReason
from shared.runtime.policy import LoopPolicy
from shared.runtime.redaction import Redactor
from shared.runtime.service import AnyService
from shared.runtime.settling import HeldPartitions, Settled, Settler, StoppedError
from shared.state.in_flight import InFlightRegistry, NoRegistry
from shared.system.fault_points import BATCH_BEGUN, COMMITTED, HANDLED, fault_point

log = logging.getLogger(__name__)

#: Longest time for which the partition of a held record is put aside, seconds. The others go on.
_LONGEST_HOLD_S: Final = 5.0
#: How often a loop that has no partitions yet looks whether it has some, seconds.
_JOINING_S: Final = 0.05
#: How often the lag is looked up, and after a failure, seconds.
_LAG_EVERY_S: Final = 5.0
_LAG_AGAIN_S: Final = 30.0
#: How an attempt to commit that raised has ended.
_COMMIT_OUTCOMES: Final[dict[type[Exception], CommitOutcome]] = {
    FencedError: CommitOutcome.FENCED,
    BackPressureError: CommitOutcome.BACK_PRESSURE,
    MessageTooLargeError: CommitOutcome.TOO_LARGE,
}

Result = TypeVar("Result")


class Epochs(Protocol):
    """Where the ownership epochs of this worker's partitions are noted; see ``shared.state.fences``."""

    def note(self, records: Sequence[Record]) -> bool:
        """Note the epochs of the records. Whether any is new, and has to be confirmed. Raises DependencyError."""
        ...

    def forget(self) -> None:
        """Note them all again."""
        ...


class ServiceLoop:
    """Runs one service on one membership until ``stop``.

    ``in_flight`` is where the batch in hand is written down, to find records that kill their worker; ``redact`` keeps
    secrets out of the dead letters; ``epochs`` is where the ownership epochs of the partitions are noted;
    ``replicated`` returns when what was written for the batch outlives the server that took it.
    """

    def __init__(
        self,
        service: AnyService,
        membership: Membership,
        topics: Topics,
        policy: LoopPolicy,
        pulse: Pulse | None = None,
        in_flight: InFlightRegistry | None = None,
        redact: Callable[[str], str] | None = None,
        epochs: Epochs | None = None,
        replicated: Callable[[], None] | None = None,
    ) -> None:
        self._service = service
        self._membership = membership
        self._topics = topics
        self._policy = policy
        self._pulse = pulse or Pulse()
        self._in_flight = in_flight or NoRegistry()
        self._guard = CrashGuard(self._in_flight)
        self._epochs = epochs
        self._replicated = replicated
        self._limit = DeadLetterLimit(policy.dead_letter_limit)
        self._settler = Settler(service, topics, policy, self._sleep, redact or Redactor())
        self._stop = threading.Event()
        #: Set when nobody waits any more for what is in hand.
        self._abandoned = threading.Event()
        self._name = service.name
        self._next_tick = 0.0
        self._joined = False
        self._next_lag = 0.0
        #: Turns that held a record, since a record from one of these partitions was last handled.
        self._holds = 0
        self._held_partitions: frozenset[tuple[str, int]] = frozenset()
        self._held_because, self._held_until = "", 0.0
        self._side = (
            None if policy.keep_alive_s is None else ThreadPoolExecutor(1, thread_name_prefix=f"{self._name}-batch")
        )

    def stop(self) -> None:
        """Finish what is in hand or give it up after ``stop_grace_s``, leave the group, return from ``run``.

        Safe from signals and other threads.
        """
        self._stop.set()

    def run(self) -> None:
        """Until ``stop``. Faults of the bus and of dependencies are waited out; defects of one record never end it.

        Raises DeadLetterLimitError, once it left the group: workers of a better version may go on.
        """
        failures = 0
        metrics.begin(self._name, version("tonestream"))
        try:
            while not self._stop.is_set():
                try:
                    if self._turn():
                        failures = 0
                except FencedError as error:
                    # Once is usual when a group changes. Again and again is not, and must not become a busy loop.
                    self._drop_batch(RewindReason.FENCED, error)
                    if failures:
                        self._stop.wait(self._policy.wait_s(failures))
                    failures += 1
                except BusUnavailableError as error:
                    failures += 1
                    self._pulse.waiting(f"the bus cannot be used: {error}")
                    self._drop_batch(RewindReason.BUS_UNAVAILABLE, error)
                    self._stop.wait(self._policy.wait_s(failures))
                except HeldError as error:
                    self._put_aside(error)
                except DependencyError as error:
                    failures += 1
                    self._pulse.waiting(str(error))
                    self._drop_batch(RewindReason.DEPENDENCY, error)
                    self._stop.wait(self._policy.wait_s(failures))
                except DeadLetterLimitError as error:
                    self._pulse.stopped(str(error))
                    self._give_up_what_is_in_hand()
                    metrics.REWINDS.labels(self._name, RewindReason.DEAD_LETTER_LIMIT).inc()
                    raise
                except StoppedError:
                    log.info("stopped; what is not committed goes to another worker")
            self._finish()
            self._give_up_what_is_in_hand()
        finally:
            self._abandoned.set()
            self._membership.close()
            self._owns_nothing()
            self._in_flight.flush()
            self._service.close()
            if self._side is not None:
                self._side.shutdown(wait=False, cancel_futures=True)

    def _turn(self) -> bool:
        """One round of the loop. Returns whether it made progress: then the next fault counts as a first one."""
        self._pulse.moved()
        self._tick()
        if not self._service.ready():
            self._membership.keep_alive()
            self._reached_the_bus()
            self._stop.wait(self._policy.pause_s)
            return True
        records = self._poll(self._policy.batch_records, self._policy.poll_s)
        self._reached_the_bus()
        metrics.LAST_POLL.labels(self._name).set_to_current_time()
        if not records:
            self._in_flight.flush()
            return True
        self._own(records)
        held = HeldPartitions()
        with self._batch():
            # One unit of work, or several where a record may have killed its worker.
            for number, unit in enumerate(self._keeping_alive(partial(self._guard.units, records))):
                if number and self._stop.is_set():
                    raise StoppedError
                self._commit(self._keeping_alive(partial(self._settle, unit, held)))
            self._note_held(records, held)
        return True

    @contextmanager
    def _batch(self) -> Iterator[None]:
        """The time from poll to commit of one batch."""
        self._pulse.batch_started()
        started = time.monotonic()
        try:
            yield
        except (BusError, DependencyError, DeadLetterLimitError, StoppedError):
            # No record killed the worker. Any other end of the worker counts as a crash.
            self._in_flight.withdraw()
            raise
        finally:
            self._pulse.batch_ended()
        metrics.BATCH_SECONDS.labels(self._name).observe(time.monotonic() - started)

    def _own(self, records: Sequence[Record]) -> None:
        """Note and confirm the ownership epochs of the records: before this, nothing may be written on their behalf.

        Raises FencedError, DependencyError, BusUnavailableError.
        """
        if self._epochs is not None and self._epochs.note(records):
            # Noted first, then confirmed: whoever is confirmed wrote its epoch over those of all owners before.
            self._membership.confirm(records)

    def _poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """The next records. The first poll ends once this member owns partitions, because the worker is ready from then
        on: without work, it would only look so after ``timeout_s``."""
        if self._joined:
            return self._membership.poll(max_records, timeout_s)
        until = time.monotonic() + timeout_s
        while True:
            left = until - time.monotonic()
            records = self._membership.poll(max_records, max(0.0, min(_JOINING_S, left)))
            if records or self._membership.assigned() or left <= _JOINING_S or self._stop.is_set():
                self._joined = True
                return records

    def _reached_the_bus(self) -> None:
        self._pulse.polled()
        self._pulse.waiting(self._held_because if time.monotonic() < self._held_until else None)

    def _finish(self) -> None:
        """Finish work at a stop, within ``stop_grace_s``. A batch ends with its turn, so here there is none."""

    def _give_up_what_is_in_hand(self) -> None:
        """Abandon work under way. A batch ends with its turn, so here there is none."""

    def _measure_lag(self) -> None:
        """How far this worker is behind, and what it owns. It is looked up now and then only: that is a request."""
        if time.monotonic() < self._next_lag:
            return
        self._next_lag = time.monotonic() + _LAG_EVERY_S
        try:
            lag = self._membership.lag()
        except BusError as error:
            self._next_lag = time.monotonic() + _LAG_AGAIN_S
            log.debug("the lag is unknown: %s", error)
            return
        for channel in self._service.inputs:
            topic = self._topics.name(channel)
            behind = [records for (name, _), records in lag.items() if name == topic]
            metrics.LAG.labels(self._name, channel.value).set(sum(behind))
            metrics.PARTITIONS.labels(self._name, channel.value).set(len(behind))

    def _owns_nothing(self) -> None:
        for channel in self._service.inputs:
            for gauge in (metrics.LAG, metrics.PARTITIONS):
                with suppress(KeyError):
                    gauge.remove(self._name, channel.value)

    def _tick(self) -> None:
        self._measure_lag()
        if time.monotonic() < self._next_tick:
            return
        self._next_tick = time.monotonic() + self._policy.tick_s
        try:
            due = [outgoing(self._topics, message) for message in self._service.tick()]
            if due:
                self._membership.commit(due, [])
            self._service.tidy(self._membership.committed)
            self._in_flight.tidy(self._membership.committed)
        except (DependencyError, BackPressureError) as error:
            log.warning("tick put off: %s", error, extra=REPEATING)
        except BusError:
            raise
        except Exception:
            log.exception("defect in what is done between batches; the batches go on")

    # Handling

    def _settle(self, unit: Unit, held: HeldPartitions) -> list[Settled]:
        """What became of the records of the unit. Those in ``held`` partitions wait, and are left out."""
        if all(held.holds(record) for record in unit.records):
            return []
        crash_loop = self._begin(unit)
        if crash_loop is not None:
            return [self._settler.crashed(unit.records[0], crash_loop)]
        return self._settler.settle(unit.records, held, self._abandoned)

    def _begin(self, unit: Unit) -> CrashLoop | None:
        """Write down that the unit is in hand. Returns why its one record must not be tried again, if so."""
        crash_loop = self._guard.begin(unit)
        fault_point(BATCH_BEGUN)
        if unit.alone and crash_loop is None:
            log.warning("handled alone: workers died with it", extra={"coordinates": unit.records[0].coordinates})
        return crash_loop

    def _note_held(self, records: Sequence[Record], held: HeldPartitions) -> None:
        """Note where records are held; they stay uncommitted, with those behind them. Raises HeldError if any are."""
        if not held.partitions and any((one.topic, one.partition) in self._held_partitions for one in records):
            self._holds = 0
        self._held_partitions = held.partitions
        held.release()

    def _put_aside(self, error: HeldError) -> None:
        """Put the partitions aside in which a record is held. Otherwise the next polls might deliver nothing else."""
        self._holds += 1
        seconds = self._hold_s()
        self._held_because, self._held_until = str(error), time.monotonic() + seconds
        self._pulse.waiting(self._held_because)
        self._drop_batch(RewindReason.HELD, error)
        self._membership.put_aside(self._held_partitions, seconds)

    # Committing

    def _commit(self, settled: list[Settled]) -> None:
        """Publish and commit as one unit; then, and only then, clean up.

        Records before the dead letter that exceeds the limit are committed. The rest is left to others. Raises
        DeadLetterLimitError.
        """
        allowed = self._within_limit(settled)
        if allowed:
            self._publish(allowed)
        if len(allowed) < len(settled):
            raise self._limit.error()

    def _publish(self, settled: list[Settled]) -> None:
        fault_point(HANDLED)
        try:
            self._commit_patiently(
                [output for one in settled for output in one.outputs], [one.record for one in settled]
            )
        except MessageTooLargeError as error:
            # The bus refuses one of the outputs for good. One by one the others pass, and the culprit goes to the dead
            # letters.
            if len(settled) > 1:
                for one in settled:
                    self._commit([one])
                return
            if settled[0].dead and settled[0].record.unreadable is None:
                if smaller := self._settler.smaller(settled[0]):
                    self._publish([smaller])
                    return
                raise BusUnavailableError(f"the dead letters do not take {settled[0].record.coordinates}") from error
            self._commit([self._settler.to_dead_letters(settled[0].record, error, settled[0].attempts)])
            return
        fault_point(COMMITTED)
        self._in_flight.finished([one.record for one in settled])
        self._limit.count(sum(one.counted for one in settled))
        for one in settled:
            metrics.RECORDS.labels(self._name, one.kind).inc()
            if one.dead_because is not None:
                metrics.DEAD_LETTERS.labels(self._name, one.dead_because).inc()
        if any(one.after_commit for one in settled):
            # A blob store may take its time, and the group must not take this worker for dead meanwhile.
            try:
                self._keeping_alive(partial(self._clean_up, settled))
            except StoppedError:
                log.info("stopped while cleaning up; others tidy up what is left")

    def _clean_up(self, settled: list[Settled]) -> None:
        for one in settled:
            for clean_up in one.after_commit:
                try:
                    clean_up()
                except DependencyError as error:
                    log.warning("clean-up failed; what is left expires by itself: %s", error, extra=REPEATING)
                except Exception:
                    log.warning("clean-up failed; what is left expires by itself", exc_info=True)

    def _within_limit(self, settled: list[Settled]) -> list[Settled]:
        """The records before the first dead letter that exceeds the limit."""
        room = self._limit.room()
        for position, one in enumerate(settled):
            room -= one.counted
            if room < 0:
                return settled[:position]
        return settled

    def _commit_patiently(self, outputs: Sequence[Outgoing], consumed: Sequence[Record]) -> None:
        if self._replicated is not None:
            self._replicated()
        while True:
            try:
                with self._measured_commit():
                    self._membership.commit(outputs, consumed)
                return
            except BackPressureError:
                # The next stage is behind. The work is done and nothing was published: offer it again.
                self._pulse.polled()
                if self._stop.is_set():
                    raise StoppedError from None

    @contextmanager
    def _measured_commit(self) -> Iterator[None]:
        outcome = CommitOutcome.COMMITTED
        started = time.perf_counter()
        try:
            yield
        except BusError as error:
            outcome = _COMMIT_OUTCOMES.get(type(error), CommitOutcome.UNAVAILABLE)
            raise
        finally:
            metrics.COMMIT_SECONDS.labels(self._name).observe(time.perf_counter() - started)
            metrics.COMMITS.labels(self._name, outcome).inc()

    def _drop_batch(self, reason: RewindReason, error: Exception) -> None:
        log.warning("batch dropped uncommitted, to be redone: %s", error, extra={"reason": reason.value, **REPEATING})
        self._give_up_what_is_in_hand()
        metrics.REWINDS.labels(self._name, reason).inc()
        if self._epochs is not None:
            self._epochs.forget()
        try:
            self._membership.rewind()
        except (BusUnavailableError, FencedError) as again:
            log.warning("rewind put off: %s", again, extra=REPEATING)

    # Time

    def _hold_s(self) -> float:
        """How long a held record waits before it is looked at again."""
        return min(_LONGEST_HOLD_S, self._policy.backoff_s(self._holds))

    def _keeping_alive(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` while the membership is kept: a long batch must not look like a dead worker.

        After a stop it gets ``stop_grace_s`` to end. Then StoppedError is raised and its outcome ignored.
        """
        if self._side is None:
            return self._patiently(work)
        future = self._side.submit(copy_context().run, self._patiently, work)
        give_up_at = math.inf
        while not wait([future], timeout=self._policy.keep_alive_s).done:
            if self._stop.is_set():
                give_up_at = min(give_up_at, time.monotonic() + self._policy.stop_grace_s)
            if time.monotonic() >= give_up_at:
                self._abandoned.set()
                raise StoppedError
            try:
                self._membership.keep_alive()
                self._pulse.polled()
                self._measure_lag()
            except (BusUnavailableError, FencedError) as error:
                self._pulse.moved()
                log.warning("keep-alive failed: %s", error, extra=REPEATING)
        return future.result()

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """``work``, again and again while a dependency is away. No record is in flight meanwhile."""
        failures = 0
        while True:
            try:
                return work()
            except DependencyError as error:
                failures += 1
                self._pulse.waiting(str(error))
                self._in_flight.withdraw()
                delay = self._policy.wait_s(failures)
                log.warning("waiting for a dependency: %s", error, extra={"retry_in_s": round(delay, 2), **REPEATING})
                self._sleep(delay)
            finally:
                self._pulse.waiting(None)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError
