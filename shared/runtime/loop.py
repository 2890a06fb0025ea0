"""The one loop that drives every service: poll, handle, publish and commit as one unit.

Why nothing is lost or doubled: the outputs of a batch and the offsets of its records are one transaction of the bus.
A worker that dies before it, at whatever instruction, leaves records that the next worker is given again; one that
dies after it leaves nothing undone that an answer depends on.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final, TypeVar

from shared.bus.base import (
    BackPressureError,
    BusUnavailableError,
    FencedError,
    Membership,
    MessageTooLargeError,
    Outgoing,
    Record,
)
from shared.contracts.codec import (
    MalformedMessageError,
    NewerSchemaError,
    decode,
    outgoing,
    salvaged_request_id,
)
from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError, TransientError
from shared.contracts.messages import TrackResult
from shared.contracts.topics import Topics
from shared.runtime import metrics
from shared.runtime.dead_letters import dead_letter
from shared.runtime.health import Pulse
from shared.runtime.logs import about
from shared.runtime.service import Delivery, Origin, Outcome, Service, Verdict

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: The longest track key that a message takes; an outsider's record may have any.
_LONGEST_KEY: Final = 200


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """How patient the loop is. Times in seconds.

    ``retry_budget_s`` bounds the waiting of one batch; together with a batch's work it should stay below the bus's
    poll interval, though ``keep_alive_s`` keeps a slower worker in its group. ``keep_alive_s`` None: the bus knows no
    poll interval, and the batch is handled in the loop's own thread.
    """

    batch_records: int
    poll_s: float = 1.0
    tick_s: float = 5.0
    pause_s: float = 0.5
    retry_attempts: int = 3
    retry_budget_s: float = 30.0
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 20.0
    keep_alive_s: float | None = 1.0


@dataclass(frozen=True, slots=True)
class _Settled:
    """One record with all that leaves with its offset."""

    record: Record
    outputs: tuple[Outgoing, ...]
    after_commit: tuple[Callable[[], None], ...] = ()
    kind: str = "done"


class _StoppedError(Exception):
    """The loop was told to stop while it waited: the batch stays uncommitted and goes to another worker."""


class ServiceLoop:
    """Runs one service on one membership until told to stop."""

    def __init__(
        self, service: Service, membership: Membership, topics: Topics, policy: LoopPolicy, pulse: Pulse | None = None
    ) -> None:
        self._service = service
        self._membership = membership
        self._topics = topics
        self._policy = policy
        self._pulse = pulse or Pulse()
        self._stop = threading.Event()
        self._name = service.stage.value
        self._next_tick = 0.0
        self._side = (
            None if policy.keep_alive_s is None else ThreadPoolExecutor(1, thread_name_prefix=f"{self._name}-batch")
        )

    def stop(self) -> None:
        """Finish the batch in hand, leave the group, return from ``run``. Safe from signals and other threads."""
        self._stop.set()

    def run(self) -> None:
        """Until ``stop``. Faults of the bus and of dependencies are waited out; defects of one record never end it."""
        failures = 0
        try:
            while not self._stop.is_set():
                try:
                    self._turn()
                    failures = 0
                except FencedError as error:
                    self._drop_batch("fenced", error)
                except BusUnavailableError as error:
                    failures += 1
                    self._pulse.waiting("bus")
                    self._drop_batch("bus_unavailable", error)
                    self._stop.wait(self._backoff_s(failures))
                except DependencyError as error:
                    failures += 1
                    self._pulse.waiting(str(error))
                    self._drop_batch("dependency", error)
                    self._stop.wait(self._backoff_s(failures))
                except _StoppedError:
                    log.info("stopped while waiting; the batch goes to another worker")
        finally:
            self._membership.close()
            self._service.close()
            if self._side is not None:
                self._side.shutdown(wait=False, cancel_futures=True)

    def _turn(self) -> None:
        self._tick()
        if not self._service.ready():
            self._membership.keep_alive()
            self._pulse.polled()
            self._pulse.waiting(None)
            self._stop.wait(self._policy.pause_s)
            return
        records = self._membership.poll(self._policy.batch_records, self._policy.poll_s)
        self._pulse.polled()
        self._pulse.waiting(None)
        metrics.LAST_POLL.labels(self._name).set_to_current_time()
        if not records:
            return
        self._pulse.batch_started()
        started = time.monotonic()
        try:
            settled = self._keeping_alive(lambda: self._settle(records))
            self._commit(settled)
        finally:
            self._pulse.batch_ended()
        metrics.BATCH_SECONDS.labels(self._name).observe(time.monotonic() - started)

    def _tick(self) -> None:
        if time.monotonic() < self._next_tick:
            return
        self._next_tick = time.monotonic() + self._policy.tick_s
        try:
            due = [outgoing(self._topics, message) for message in self._service.tick()]
            if due:
                self._membership.commit(due, [])
        except (DependencyError, BackPressureError) as error:
            log.warning("tick put off: %s", error)

    # Handling

    def _settle(self, records: Sequence[Record]) -> list[_Settled]:
        """Every record of the batch with what became of it, in order. Waits for dependencies as long as it takes."""
        failures = 0
        while True:
            try:
                return self._settle_once(records)
            except DependencyError as error:
                failures += 1
                self._pulse.waiting(str(error))
                delay = self._backoff_s(failures)
                log.warning("waiting for a dependency: %s", error, extra={"retry_in_s": round(delay, 2)})
                self._sleep(delay)
            finally:
                self._pulse.waiting(None)

    def _settle_once(self, records: Sequence[Record]) -> list[_Settled]:
        deliveries: list[Delivery] = []
        unreadable: dict[int, _Settled] = {}
        for position, record in enumerate(records):
            try:
                channel = self._topics.channel(record.topic)
                deliveries.append(Delivery(record, decode(channel, record.value)))
            except MalformedMessageError as error:
                unreadable[position] = self._refuse(record, error)
        handled = iter(self._handle_with_retries(deliveries))
        return [unreadable[position] if position in unreadable else next(handled) for position in range(len(records))]

    def _handle_with_retries(self, deliveries: list[Delivery]) -> list[_Settled]:
        verdicts: list[Verdict] = [Outcome()] * len(deliveries)
        attempts = [0] * len(deliveries)
        pending = list(range(len(deliveries)))
        waited = 0.0
        while pending:
            for position, verdict in zip(pending, self._handle([deliveries[p] for p in pending]), strict=True):
                verdicts[position] = verdict
                attempts[position] += 1
            delays = {
                position: self._retry_delay_s(verdicts[position], attempts[position])
                for position in pending
                if isinstance(verdicts[position], TransientError) and attempts[position] < self._policy.retry_attempts
            }
            pending = [position for position, delay in delays.items() if waited + delay <= self._policy.retry_budget_s]
            if pending:
                delay = max(delays[position] for position in pending)
                metrics.RETRIES.labels(self._name).inc(len(pending))
                self._sleep(delay)
                waited += delay
        return [
            self._conclude(delivery, verdict, tries)
            for delivery, verdict, tries in zip(deliveries, verdicts, attempts, strict=True)
        ]

    def _handle(self, deliveries: list[Delivery]) -> Sequence[Verdict]:
        if not deliveries:
            return []
        try:
            return self._service.handle(deliveries)
        except (DependencyError, _StoppedError):
            raise
        except Exception as error:
            if len(deliveries) == 1:
                return [error]
            # One of them is to blame. Handling them one by one finds out which, and the others get their answers.
            return [verdict for delivery in deliveries for verdict in self._handle([delivery])]

    def _conclude(self, delivery: Delivery, verdict: Verdict, attempts: int) -> _Settled:
        record, message = delivery.record, delivery.message
        key = message.track.key if isinstance(message, TrackResult) else message.track_key
        with about(request_id=message.request_id, track_key=key):
            origin = Origin(message.request_id, key, record)
            if isinstance(verdict, Outcome):
                try:
                    return self._settled(record, verdict)
                except MalformedMessageError as error:
                    verdict = error
            if isinstance(verdict, TonestreamError):
                log.info("failed: %s", verdict.message, extra={"code": verdict.code.value, "attempts": attempts})
                answered = self._give_up(origin, verdict)
                return self._settled(record, answered, "failed") if answered else self._bury(origin, verdict, attempts)
            return self._bury(origin, verdict, attempts)

    def _bury(self, origin: Origin, defect: Exception, attempts: int) -> _Settled:
        """A defect in our code or in the record: keep the record for an operator, and answer the request."""
        log.error("defect; the record goes to the dead letters", exc_info=defect)
        told = TonestreamError(
            ErrorCode.INTERNAL, f"{self._name} failed on this track ({type(defect).__name__}); its operator can see why"
        )
        letter = dead_letter(self._topics, origin.record, self._service.stage, defect, attempts)
        return self._settled(origin.record, self._give_up(origin, told) or Outcome(), "dead", letter)

    def _give_up(self, origin: Origin, error: TonestreamError) -> Outcome | None:
        """The service's answer to a record it cannot handle; None where even that fails: then an operator is all
        that is left, and the next record."""
        try:
            return self._service.give_up(origin, error)
        except DependencyError:
            raise
        except Exception:
            log.exception("defect while giving up")
            return None

    def _refuse(self, record: Record, error: MalformedMessageError) -> _Settled:
        """The record is no message of its topic. Its request is answered as far as it can be told whose it is."""
        origin = _origin(record)
        with about(request_id=origin.request_id, track_key=origin.track_key, coordinates=record.coordinates):
            log.warning("not a message: %s", error.reason)
            if self._service.answers_invalid_input and not isinstance(error, NewerSchemaError):
                told = TonestreamError(ErrorCode.INVALID_REQUEST, error.reason)
                if answered := self._give_up(origin, told):
                    return self._settled(record, answered, "failed")
            letter = dead_letter(self._topics, record, self._service.stage, error, attempts=1)
            if salvaged_request_id(record) is None and not self._service.answers_invalid_input:
                return _Settled(record, (letter,), kind="dead")
            told = TonestreamError(ErrorCode.INTERNAL, f"{self._name} could not read a message: {error.reason}")
            return self._settled(record, self._give_up(origin, told) or Outcome(), "dead", letter)

    def _settled(self, record: Record, outcome: Outcome, kind: str = "done", *more: Outgoing) -> _Settled:
        outputs = tuple(outgoing(self._topics, message) for message in outcome.messages)
        return _Settled(record, outputs + more, outcome.after_commit, kind)

    # Committing

    def _commit(self, settled: list[_Settled]) -> None:
        """Publish and commit as one unit; then, and only then, clean up."""
        try:
            self._commit_patiently(
                [output for one in settled for output in one.outputs], [one.record for one in settled]
            )
        except MessageTooLargeError as error:
            # The bus refuses one of the outputs for good. Alone, the others pass; the culprit is buried.
            if len(settled) > 1:
                for one in settled:
                    self._commit([one])
                return
            record = settled[0].record
            buried = self._bury(_origin(record), error, attempts=1)
            self._commit_patiently(list(buried.outputs), [record])
            settled = [buried]
        for one in settled:
            metrics.RECORDS.labels(self._name, one.kind).inc()
            for clean_up in one.after_commit:
                try:
                    clean_up()
                except Exception:
                    log.warning("clean-up failed; what is left expires by itself", exc_info=True)

    def _commit_patiently(self, outputs: Sequence[Outgoing], consumed: Sequence[Record]) -> None:
        while True:
            try:
                self._membership.commit(outputs, consumed)
                return
            except BackPressureError:
                # The next stage is behind. The work is done and nothing was published: offer it again.
                self._pulse.polled()
                if self._stop.is_set():
                    raise _StoppedError from None

    def _drop_batch(self, reason: str, error: Exception) -> None:
        log.warning("batch dropped uncommitted, to be redone: %s", error, extra={"reason": reason})
        metrics.REWINDS.labels(self._name, reason).inc()
        try:
            self._membership.rewind()
        except (BusUnavailableError, FencedError) as again:
            log.warning("rewind put off: %s", again)

    # Time

    def _keeping_alive(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` while the membership is kept: a long batch must not look like a dead worker."""
        if self._side is None:
            return work()
        future = self._side.submit(copy_context().run, work)
        while not wait([future], timeout=self._policy.keep_alive_s).done:
            try:
                self._membership.keep_alive()
                self._pulse.polled()
            except (BusUnavailableError, FencedError) as error:
                log.warning("keep-alive failed: %s", error)
        return future.result()

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _StoppedError

    def _backoff_s(self, failures: int) -> float:
        """The doubled step, less up to half of it by chance, so that many workers do not come back at once."""
        step = min(self._policy.longest_backoff_s, self._policy.first_backoff_s * 2.0 ** min(failures - 1, 16))
        return random.uniform(step / 2, step)

    def _retry_delay_s(self, verdict: Verdict, attempts: int) -> float:
        asked = verdict.retry_after_s if isinstance(verdict, TransientError) else None
        return max(self._backoff_s(attempts), asked or 0.0)


def _origin(record: Record) -> Origin:
    """Whose a record is, as far as it tells; what it does not tell is named by where it stands."""
    key = record.key.decode("utf-8", "replace")[:_LONGEST_KEY]
    return Origin(salvaged_request_id(record) or record.coordinates, key or record.coordinates, record)


class Watchdog:
    """Ends the process when a batch is stuck for good: a supervisor restarts it, and the batch goes to another."""

    EXIT_STATUS = 70

    def __init__(self, pulse: Pulse, stall_s: float) -> None:
        self._pulse = pulse
        self._stall_s = stall_s
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(5.0, self._stall_s / 4)):
            stuck = self._pulse.seconds_in_batch()
            if stuck > self._stall_s:
                log.critical("stuck in one batch for %.0f s; ending the process to be restarted", stuck)
                logging.shutdown()
                os._exit(self.EXIT_STATUS)
