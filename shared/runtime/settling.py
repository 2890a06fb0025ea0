"""What becomes of each record of a batch: its outputs, a typed failure, or a dead letter. Nothing is published here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Final

from shared.bus.base import Outgoing, Record
from shared.contracts.codec import MalformedMessageError, NewerSchemaError, decode, outgoing, salvaged_request_id
from shared.contracts.errors import AbandonedError, DependencyError, ErrorCode, TonestreamError, TransientError
from shared.contracts.messages import TrackResult
from shared.contracts.topics import Topics
from shared.runtime import metrics
from shared.runtime.dead_letters import dead_letter
from shared.runtime.logs import about
from shared.runtime.policy import LoopPolicy
from shared.runtime.service import Delivery, Origin, Outcome, Service, Verdict

log = logging.getLogger(__name__)

#: The longest track key that a message takes; an outsider's record may have any.
_LONGEST_KEY: Final = 200


class StoppedError(Exception):
    """The loop was told to stop while it waited: the batch stays uncommitted and goes to another worker."""


@dataclass(frozen=True, slots=True)
class Settled:
    """One record with all that leaves with its offset. ``attempts`` is how many times it was tried."""

    record: Record
    outputs: tuple[Outgoing, ...]
    after_commit: tuple[Callable[[], None], ...] = ()
    kind: str = "done"
    attempts: int = 1

    @property
    def dead(self) -> bool:
        return self.kind == "dead"


class Settler:
    """Drives the handler of one service. ``sleep`` waits, and raises StoppedError where waiting is over."""

    def __init__(
        self,
        service: Service,
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

    def settle(self, records: Sequence[Record], abandoned: Event | None = None) -> list[Settled]:
        """Every record with what became of it, in order. ``abandoned`` is what the deliveries look at.

        Raises DependencyError, StoppedError and AbandonedError, and no other.
        """
        abandoned = abandoned or Event()
        deliveries: list[Delivery] = []
        unreadable: dict[int, Settled] = {}
        for position, record in enumerate(records):
            try:
                channel = self._topics.channel(record.topic)
                deliveries.append(Delivery(record, decode(channel, record.value), abandoned))
            except MalformedMessageError as error:
                unreadable[position] = self._refuse(record, error)
        handled = iter(self._handle_with_retries(deliveries))
        return [unreadable[position] if position in unreadable else next(handled) for position in range(len(records))]

    def bury(self, record: Record, defect: Exception, attempts: int, answered: bool = True) -> Settled:
        """The record goes to the dead letters. Its request is answered, unless ``answered`` is False."""
        return self._bury(_origin(record), defect, attempts, answered)

    def _handle_with_retries(self, deliveries: list[Delivery]) -> list[Settled]:
        verdicts: list[Verdict] = [Outcome()] * len(deliveries)
        attempts = [0] * len(deliveries)
        pending = list(range(len(deliveries)))
        waited = 0.0
        while pending:
            for position, tried in zip(pending, self._handle([deliveries[p] for p in pending]), strict=True):
                verdicts[position], tries = tried
                attempts[position] += tries
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

    def _handle(self, deliveries: list[Delivery]) -> list[tuple[Verdict, int]]:
        """The verdicts, each with the number of tries it took."""
        if not deliveries:
            return []
        try:
            verdicts = self._service.handle(deliveries)
            if len(verdicts) != len(deliveries):
                raise RuntimeError(f"{len(verdicts)} verdicts on {len(deliveries)} deliveries")
            return [(verdict, 1) for verdict in verdicts]
        except (DependencyError, StoppedError, AbandonedError):
            raise
        except Exception as error:
            if len(deliveries) == 1:
                return [(error, 1)]
            # One of them is to blame. Handling them one by one finds out which, and the others get their answers.
            alone = [self._handle([delivery])[0] for delivery in deliveries]
            return [(verdict, tries + 1) for verdict, tries in alone]

    def _conclude(self, delivery: Delivery, verdict: Verdict, attempts: int) -> Settled:
        record, message = delivery.record, delivery.message
        key = message.track.key if isinstance(message, TrackResult) else message.track_key
        with about(request_id=message.request_id, track_key=key):
            origin = Origin(message.request_id, key, record)
            if isinstance(verdict, Outcome):
                try:
                    return self._settled(record, verdict, attempts)
                except Exception as error:
                    verdict = error
            if isinstance(verdict, TonestreamError):
                log.info("failed: %s", verdict.message, extra={"code": verdict.code.value, "attempts": attempts})
                answered = self._give_up(origin, verdict, attempts, "failed")
                return answered or self._bury(origin, verdict, attempts)
            return self._bury(origin, verdict, attempts)

    def _refuse(self, record: Record, error: MalformedMessageError) -> Settled:
        """The record is no message of its topic. Its request is answered as far as it can be told whose it is."""
        origin = _origin(record)
        with about(request_id=origin.request_id, track_key=origin.track_key, coordinates=record.coordinates):
            log.warning("not a message: %s", error.reason)
            if self._service.answers_invalid_input and not isinstance(error, NewerSchemaError):
                told = TonestreamError(ErrorCode.INVALID_REQUEST, error.reason)
                if answered := self._give_up(origin, told, 1, "failed"):
                    return answered
            letter = dead_letter(self._topics, record, self._service.stage, error, 1, self._redact)
            if salvaged_request_id(record) is None and not self._service.answers_invalid_input:
                return Settled(record, (letter,), kind="dead")
            told = TonestreamError(ErrorCode.INTERNAL, f"{self._name} could not read a message: {error.reason}")
            answered = self._give_up(origin, told, 1, "dead", letter)
            return answered or Settled(record, (letter,), kind="dead")

    def _bury(self, origin: Origin, defect: Exception, attempts: int, answered: bool = True) -> Settled:
        """A defect in our code or in the record: keep the record for an operator, and answer the request."""
        log.error("defect; the record goes to the dead letters", exc_info=defect)
        letter = dead_letter(self._topics, origin.record, self._service.stage, defect, attempts, self._redact)
        told = TonestreamError(
            ErrorCode.INTERNAL, f"{self._name} failed on this track ({type(defect).__name__}); its operator can see why"
        )
        settled = self._give_up(origin, told, attempts, "dead", letter) if answered else None
        return settled or Settled(origin.record, (letter,), kind="dead", attempts=attempts)

    def _give_up(
        self, origin: Origin, error: TonestreamError, attempts: int, kind: str, *more: Outgoing
    ) -> Settled | None:
        """The service's answer to a record it cannot handle; None where even that fails: then an operator is all
        that is left, and the next record."""
        try:
            return self._settled(origin.record, self._service.give_up(origin, error), attempts, kind, *more)
        except DependencyError:
            raise
        except Exception:
            log.exception("defect while giving up")
            return None

    def _settled(self, record: Record, outcome: Outcome, attempts: int, kind: str = "done", *more: Outgoing) -> Settled:
        outputs = tuple(outgoing(self._topics, message) for message in outcome.messages)
        if outcome.retry is not None:
            outputs += (outcome.retry.outgoing(self._topics),)
            metrics.RETRIES.labels(self._name).inc()
        return Settled(record, outputs + more, outcome.after_commit, kind, attempts)

    def _retry_delay_s(self, verdict: Verdict, attempts: int) -> float:
        asked = verdict.retry_after_s if isinstance(verdict, TransientError) else None
        return max(self._policy.backoff_s(attempts), asked or 0.0)


def _origin(record: Record) -> Origin:
    """Whose a record is, as far as it tells; what it does not tell is named by where it stands."""
    key = record.key.decode("utf-8", "replace")[:_LONGEST_KEY]
    return Origin(salvaged_request_id(record) or record.coordinates, key or record.coordinates, record)
