"""What becomes of each record of a batch: its outputs, a typed failure, or a dead letter. Nothing is published here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any, Final

from shared.bus.base import FencedError, Headers, MessageTooLargeError, Outgoing, Record, UnreadableBatch
from shared.contracts.codec import MalformedMessageError, NewerSchemaError, decode_message
from shared.contracts.errors import (
    AbandonedError,
    DependencyError,
    ErrorCode,
    HeldError,
    TonestreamError,
    TransientError,
)
from shared.contracts.messages import TrackResult
from shared.contracts.topics import Channel, Topics, comes_from_outside
from shared.runtime import metrics, traces
from shared.runtime.crash_guard import CrashLoop
from shared.runtime.dead_letters import cut_to, dead_letter, said
from shared.runtime.envelope import outgoing, salvaged_request_id
from shared.runtime.logs import about
from shared.runtime.metrics import DeadLetterReason
from shared.runtime.policy import LoopPolicy
from shared.runtime.service import AnyDelivery, AnyHandled, AnyService, Delivery, Origin, Outcome

log = logging.getLogger(__name__)

#: The longest track key that a message takes; an outsider's record may have any.
_LONGEST_KEY: Final = 200
#: What a dead letter is cut to, step by step, where its topic refuses it as too large: a topic with Kafka's default
#: limit takes the first, one that is set as small as the requests topic takes the second.
_LETTER_BYTES: Final = (512 * 1024, 16 * 1024)


#: The end of an answer that leaves together with a dead letter, and of no other.
KEPT_FOR_OPERATORS: Final = "the record is kept in the dead letters, where an operator can see why"


class StoppedError(Exception):
    """The loop was stopped while it waited: the batch stays uncommitted and goes to another worker."""


@dataclass(frozen=True, slots=True)
class Settled:
    """One record with all that leaves with its offset. ``attempts`` is how many times it was tried.

    ``counts_against_worker``: a dead letter of it takes room in the limit that stops a bad deploy. Records that clients
    wrote take none if their sender may be to blame: if they cannot be read or understood, or kill the worker. A crash
    loop is our defect as well, but the limit is no guard against it: each crash ends the process that counts, and eight
    crashes a record are a brake of their own. If it counted, a stranger's file could stop a healthy worker. An
    exception of a handler always counts, because that is what a bad deploy looks like.
    """

    record: Record
    outputs: tuple[Outgoing, ...]
    after_commit: tuple[Callable[[], None], ...] = ()
    kind: str = "done"
    attempts: int = 1
    counts_against_worker: bool = True
    dead_because: DeadLetterReason | None = None

    @property
    def dead(self) -> bool:
        return self.kind == "dead"

    @property
    def counted(self) -> int:
        """How many dead letters of this count towards the limit."""
        return int(self.dead and self.counts_against_worker)


class HeldPartitions:
    """The partitions in which a record is held, for one turn of the loop: records behind it cannot be committed."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, int], HeldError] = {}

    def hold(self, record: Record, fault: HeldError) -> None:
        """``record`` waits, and with it the records behind it in its partition."""
        self._faults.setdefault((record.topic, record.partition), fault)

    def holds(self, record: Record) -> bool:
        """Whether ``record`` stands in a partition in which one is held."""
        return (record.topic, record.partition) in self._faults

    @property
    def partitions(self) -> frozenset[tuple[str, int]]:
        """The (topic, partition) pairs in which a record is held."""
        return frozenset(self._faults)

    def release(self) -> None:
        """The turn is over. Raises the HeldError of the record that was held first, if one was."""
        for fault in self._faults.values():
            raise fault


class Settler:
    """Drives the handler of one service. ``sleep`` waits, and raises StoppedError if waiting is over."""

    def __init__(
        self,
        service: AnyService,
        topics: Topics,
        policy: LoopPolicy,
        sleep: Callable[[float], None],
        redact: Callable[[str], str],
    ) -> None:
        self._service = service
        self._topics = topics
        self._policy = policy
        self._sleep = sleep
        self._redact = redact
        self._name = service.name
        self._group = topics.group(service.name)
        self._queue_seconds = metrics.QUEUE_SECONDS.labels(self._name)
        self._handler_seconds = metrics.HANDLER_SECONDS.labels(self._name)
        self._batch_records = metrics.BATCH_RECORDS.labels(self._name)
        #: When a message of a newer schema was first seen, by what is said of it.
        self._newer_since: dict[str, float] = {}

    def settle(
        self,
        records: Sequence[Record],
        held: HeldPartitions | None = None,
        abandoned: Event | None = None,
        queueing: Callable[[], None] = lambda: None,
    ) -> list[Settled]:
        """What became of the records, in order, except those in ``held`` partitions, to which this may add.

        ``abandoned`` and ``queueing`` are those of the deliveries. Raises DependencyError, FencedError, StoppedError
        and AbandonedError, and no other.
        """
        held = held or HeldPartitions()
        abandoned = abandoned or Event()
        deliveries: list[AnyDelivery] = []
        taken: list[tuple[Record, MalformedMessageError | None]] = []
        for record in records:
            if held.holds(record):
                continue
            if record.unreadable is not None:
                taken.append((record, None))
                continue
            try:
                channel = self._topics.channel(record.topic)
                delivery = Delivery(record, decode_message(channel, record.value), abandoned, queueing)
            except MalformedMessageError as error:
                if isinstance(error, NewerSchemaError) and (waits := self._waits_for_upgrade(record, error)):
                    held.hold(record, waits)
                else:
                    taken.append((record, error))
                continue
            if (fault := self._service.held(delivery.message)) is not None:
                held.hold(record, fault)
                continue
            deliveries.append(delivery)
            taken.append((record, None))
        self._measure_the_wait(deliveries)
        with traces.processing([record for record, _ in taken], self._group):
            settled = iter(self._handled(deliveries))
            # Refused last: an invalid request must not take the request ID of a valid one that was read with it.
            return [
                self._unreadable_to_dead_letters(record)
                if record.unreadable is not None
                else (next(settled) if error is None else self._refuse(record, error))
                for record, error in taken
            ]

    def _waits_for_upgrade(self, record: Record, error: NewerSchemaError) -> HeldError | None:
        """Why the record waits, as a newer version of the service will read it: a rolling upgrade loses nothing.

        None where clients write, whose versions no operator upgrades, and after a wait: once a version, and not once a
        record.
        """
        now = time.monotonic()
        if self._service.answers_invalid_input or now >= self._newer_since.setdefault(error.reason, now) + (
            self._policy.newer_wait_s
        ):
            return None
        return HeldError(f"a newer version wrote {record.coordinates}: {error.reason}. Upgrade {self._name}")

    def is_message(self, record: Record) -> bool:
        """Whether the record is a message of its topic."""
        if record.unreadable is not None:
            return False
        try:
            decode_message(self._topics.channel(record.topic), record.value)
        except MalformedMessageError:
            return False
        return True

    def to_dead_letters(self, record: Record, defect: Exception, attempts: int, answered: bool = True) -> Settled:
        """The record goes to the dead letters. Its request is answered, unless ``answered`` is False."""
        if record.unreadable is not None:
            # Without its bytes, which may be what stands in the way.
            return self._unreadable_to_dead_letters(replace(record, value=b""))
        with traces.processing([record], self._group):
            settled = self._to_dead_letters(_origin(record), defect, attempts, answered)
        stranger = isinstance(defect, CrashLoop) and comes_from_outside(record.topic)
        return replace(settled, counts_against_worker=not stranger)

    def crashed(self, record: Record, crash_loop: CrashLoop) -> Settled:
        """The record goes to the dead letters, because it killed its worker again and again."""
        return self.to_dead_letters(record, crash_loop, crash_loop.attempts, crash_loop.answered)

    def smaller(self, dead: Settled) -> Settled | None:
        """The same with a smaller dead letter, which says that it was cut; None if it is as small as it gets."""
        dead_letters = self._topics.name(Channel.DEAD_LETTERS)
        for limit in _LETTER_BYTES:
            outputs = tuple(cut_to(limit, one) if one.topic == dead_letters else one for one in dead.outputs)
            if outputs != dead.outputs:
                return replace(dead, outputs=outputs)
        return None

    def _handled(self, deliveries: list[AnyDelivery]) -> list[Settled]:
        """What became of the deliveries, in order. Those whose fault may heal are tried again, within the policy."""
        results: list[AnyHandled] = [Outcome()] * len(deliveries)
        attempts = [0] * len(deliveries)
        pending = list(range(len(deliveries)))
        waited = 0.0
        while pending:
            tried = [deliveries[position] for position in pending]
            started = time.perf_counter()
            try:
                handled = self._service.handle(tried)
                if len(handled) != len(tried):
                    raise RuntimeError(f"{len(handled)} outcomes of {len(tried)} deliveries")
            except (DependencyError, FencedError, StoppedError, AbandonedError):
                raise
            except Exception as error:
                handled = [error] if len(tried) == 1 else self._one_by_one(tried)
                # One of several is to blame. The attempt in which they were handled together counts for each of them.
                attempts = [count + (len(tried) > 1 and at in pending) for at, count in enumerate(attempts)]
            finally:
                self._handler_seconds.observe(time.perf_counter() - started)
            for position, result in zip(pending, handled, strict=True):
                results[position] = result
                attempts[position] += 1
            delays = {
                position: self._retry_delay_s(results[position], attempts[position])
                for position in pending
                if isinstance(results[position], TransientError) and attempts[position] < self._policy.retry_attempts
            }
            pending = [position for position, delay in delays.items() if waited + delay <= self._policy.retry_budget_s]
            if pending:
                delay = max(delays[position] for position in pending)
                metrics.RETRIES.labels(self._name).inc(len(pending))
                self._sleep(delay)
                waited += delay
        return [
            self._conclude(delivery, result, tries)
            for delivery, result, tries in zip(deliveries, results, attempts, strict=True)
        ]

    def _measure_the_wait(self, deliveries: Sequence[AnyDelivery]) -> None:
        """How long the records were in the queue. A client's timestamp may be in the future."""
        if deliveries:
            self._batch_records.observe(len(deliveries))
        now_ms = time.time() * 1000
        for delivery in deliveries:
            if delivery.record.timestamp_ms:
                self._queue_seconds.observe(max(0.0, now_ms - delivery.record.timestamp_ms) / 1000)

    def _one_by_one(self, deliveries: list[AnyDelivery]) -> list[AnyHandled]:
        """The deliveries handled again, each on its own, after a defect with all of them."""
        handled: list[AnyHandled] = []
        for delivery in deliveries:
            try:
                handled += self._service.handle([delivery])
            except (DependencyError, FencedError, StoppedError, AbandonedError):
                raise
            except Exception as error:
                handled.append(error)
        return handled

    def _conclude(self, delivery: AnyDelivery, result: AnyHandled, attempts: int) -> Settled:
        record, message = delivery.record, delivery.message
        key = message.track.key if isinstance(message, TrackResult) else message.track_key
        with about(request_id=message.request_id, track_key=key), traces.current(record):
            traces.concluded(record, message.request_id, attempts)
            origin = Origin(message.request_id, key, record)
            if isinstance(result, Outcome):
                try:
                    return self._settled(record, result, attempts)
                except Exception as error:
                    result = error
            if isinstance(result, TonestreamError):
                log.info("failed: %s", result.message, extra={"code": result.code.value, "attempts": attempts})
                traces.failed(record, result.code.value, partial(self._redact, result.message))
                answered = self._give_up(origin, result, attempts, "failed")
                return answered or self._to_dead_letters(origin, result, attempts)
            return self._to_dead_letters(origin, result, attempts)

    def _refuse(self, record: Record, error: MalformedMessageError) -> Settled:
        """The record is no message of its topic. Its request is answered if its bytes or headers name one.

        On a topic that clients write to, that is the sender's mistake, and the answer says so. On our own topics it is
        a defect, and the record is kept.
        """
        origin = _origin(record)
        ids = {"request_id": origin.request_id, "track_key": origin.track_key, "coordinates": record.coordinates}
        with about(**ids), traces.current(record):
            traces.concluded(record, origin.request_id, 1)
            outside = self._service.answers_invalid_input
            log.log(logging.INFO if outside else logging.WARNING, "not a message: %s", error.reason)
            code = ErrorCode.INVALID_REQUEST if outside else ErrorCode.INTERNAL
            traces.failed(record, code.value, partial(self._redact, error.reason))
            if outside:
                reason = TonestreamError(ErrorCode.INVALID_REQUEST, error.reason)
                if answered := self._give_up(origin, reason, 1, "failed"):
                    return answered
            letter = dead_letter(self._topics, record, self._service.stage, error, 1, self._redact)
            because = DeadLetterReason.MALFORMED
            unanswered = Settled(
                record, (letter,), kind="dead", counts_against_worker=not outside, dead_because=because
            )
            if outside or salvaged_request_id(record) is None:
                return unanswered
            reason = TonestreamError(
                ErrorCode.INTERNAL, f"{self._name} could not read a message: {error.reason}; {KEPT_FOR_OPERATORS}"
            )
            answered = self._give_up(origin, reason, 1, "dead", letter)
            return replace(answered, dead_because=because) if answered else unanswered

    def _unreadable_to_dead_letters(self, record: Record) -> Settled:
        """Nobody can read the batch, so nobody is answered: what looks like a request ID in its bytes may be none."""
        batch = UnreadableBatch(record)
        traces.failed(record, type(batch).__name__, partial(str, batch))
        log.error("goes to the dead letters: %s", batch)
        letter = dead_letter(self._topics, record, self._service.stage, batch, 1, self._redact)
        # At the entry it is a stranger's mistake, and no sign that this worker is a bad one.
        entry = self._topics.channel(record.topic) is Channel.REQUESTS
        kind = "unreadable" if entry else "dead"
        return Settled(record, (letter,), kind=kind, dead_because=DeadLetterReason.UNREADABLE)

    def _to_dead_letters(self, origin: Origin, defect: Exception, attempts: int, answered: bool = True) -> Settled:
        """A defect in our code or in the record: keep the record for an operator, and answer the request."""
        log.error("defect; the record goes to the dead letters", exc_info=defect)
        traces.failed(origin.record, type(defect).__name__, partial(said, defect, self._redact))
        letter = dead_letter(self._topics, origin.record, self._service.stage, defect, attempts, self._redact)
        reason = TonestreamError(
            ErrorCode.INTERNAL, f"{self._name} failed on this track ({type(defect).__name__}); {KEPT_FOR_OPERATORS}"
        )
        settled = self._give_up(origin, reason, attempts, "dead", letter) if answered else None
        settled = settled or Settled(origin.record, (letter,), kind="dead", attempts=attempts)
        return replace(settled, dead_because=_reason(defect))

    def _give_up(
        self, origin: Origin, error: TonestreamError, attempts: int, kind: str, *more: Outgoing
    ) -> Settled | None:
        """The service's answer to a record it cannot handle; None if even that fails. Then only an operator can
        help."""
        try:
            return self._settled(origin.record, self._service.give_up(origin, error), attempts, kind, *more)
        except (DependencyError, FencedError):
            raise
        except Exception:
            log.exception("defect while giving up")
            return None

    def _settled(
        self, record: Record, outcome: Outcome[Any], attempts: int, kind: str = "done", *more: Outgoing
    ) -> Settled:
        outputs = tuple(
            _with(
                outgoing(self._topics, message, cause=record, pack=self._policy.pack),
                traces.headers(record, message.request_id),
            )
            for message in outcome.messages
        )
        if outcome.retry is not None:
            context = traces.headers(record, outcome.retry.request.request_id)
            outputs += (_with(outcome.retry.outgoing(self._topics), context),)
            metrics.RETRIES.labels(self._name).inc()
        return Settled(record, outputs + more, outcome.after_commit, kind, attempts)

    def _retry_delay_s(self, result: AnyHandled, attempts: int) -> float:
        asked = result.retry_after_s if isinstance(result, TransientError) else None
        return max(self._policy.backoff_s(attempts), asked or 0.0)


def _with(record: Outgoing, headers: Headers) -> Outgoing:
    return replace(record, headers=record.headers + headers) if headers else record


def _reason(defect: Exception) -> DeadLetterReason:
    if isinstance(defect, CrashLoop):
        return DeadLetterReason.CRASH_LOOP
    return DeadLetterReason.TOO_LARGE if isinstance(defect, MessageTooLargeError) else DeadLetterReason.DEFECT


def _origin(record: Record) -> Origin:
    """The request and track key of a record; its coordinates stand in for what it does not name."""
    key = record.key.decode("utf-8", "replace")[:_LONGEST_KEY]
    return Origin(salvaged_request_id(record) or record.coordinates, key or record.coordinates, record)
