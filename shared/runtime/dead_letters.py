"""Records that no worker can handle, kept with their original bytes and the reason (headers after KIP-1034)."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from shared.bus.base import Headers, Outgoing, Record
from shared.contracts.codec import salvaged_request_id
from shared.contracts.messages import Stage
from shared.contracts.topics import Channel, Topics
from shared.runtime.redaction import Redactor

#: First part of the header names, in the manner of KIP-1034's ``__streams.errors.``.
ERROR_HEADER_PREFIX: Final = "tonestream.errors."
#: Which dead letter a record is the replay of. Each further replay adds one, so that a loop can be seen.
REPLAY_HEADER: Final = "tonestream.replay.of"
#: Topics whose records workers read, and bury.
REPLAYABLE: Final = (
    Channel.REQUESTS, Channel.REQUESTS_RETRY, Channel.TRACKS, Channel.FEATURES, Channel.PREDICTIONS, Channel.MOODS,
)  # fmt: skip
#: Those of them that carry requests: replaying one makes the request anew.
ENTRANCES: Final = (Channel.REQUESTS, Channel.REQUESTS_RETRY)
_MAX_MESSAGE: Final = 1000
_MAX_TRACE: Final = 8000
#: Most characters that are searched for secrets.
_MAX_SEARCHED: Final = 100_000
_MINUTE_S: Final = 60.0


def dead_letter(
    topics: Topics,
    record: Record,
    stage: Stage,
    error: Exception,
    attempts: int,
    redact: Callable[[str], str] = Redactor(),  # noqa: B008 (it holds nothing that changes)
) -> Outgoing:
    """``record`` as it was, on its way to the dead letters, with headers that say why and where it stood.

    ``attempts`` is how many times it was tried. What the error says passes through ``redact``.
    """
    trace = "".join(traceback.format_exception(error))
    why = {
        "exception": type(error).__name__,
        # Redacted first and cut then: half a secret would not be recognised.
        "message": redact(_said(error)[:_MAX_SEARCHED])[:_MAX_MESSAGE],
        "stacktrace": redact(trace[-_MAX_SEARCHED:])[-_MAX_TRACE:],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "service": stage.value,
        "attempts": str(attempts),
    }
    headers = tuple(
        (f"{ERROR_HEADER_PREFIX}{name}", text.encode("utf-8", "backslashreplace")) for name, text in why.items()
    )
    return Outgoing(topics.name(Channel.DEAD_LETTERS), record.key, record.value, record.headers + headers)


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return "(the error cannot be put into words)"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of the dead letters, read: what it was, and what became of it. Fields nobody wrote are empty."""

    record: Record
    exception: str
    message: str
    stacktrace: str
    topic: str
    partition: str
    offset: str
    service: str
    attempts: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """The dead letter in ``record``, whatever its headers are."""

        def told(name: str) -> str:
            return (record.header(f"{ERROR_HEADER_PREFIX}{name}") or b"").decode("utf-8", "replace")

        return cls(
            record,
            exception=told("exception"),
            message=told("message"),
            stacktrace=told("stacktrace"),
            topic=told("topic"),
            partition=told("partition"),
            offset=told("offset"),
            service=told("service"),
            attempts=told("attempts"),
        )

    @property
    def id(self) -> str:
        """``partition:offset`` among the dead letters."""
        return f"{self.record.partition}:{self.record.offset}"

    @property
    def stood_at(self) -> str:
        """The coordinates of the original record."""
        return f"{self.topic}/{self.partition}@{self.offset}"

    @property
    def request_id(self) -> str | None:
        """Whose record it is, as far as it tells."""
        return salvaged_request_id(self.record)

    @property
    def replay_of(self) -> tuple[str, ...]:
        """The dead letters it had been before, oldest first."""
        return tuple(value.decode("utf-8", "replace") for name, value in self.record.headers if name == REPLAY_HEADER)

    def original_headers(self) -> Headers:
        """The headers without those that tell of the error."""
        return tuple(pair for pair in self.record.headers if not pair[0].startswith(ERROR_HEADER_PREFIX))

    def replayed(self) -> Outgoing:
        """The original record once more, on its way to where it came from, and saying that it is a replay."""
        headers = (*self.original_headers(), (REPLAY_HEADER, self.id.encode()))
        return Outgoing(self.topic, self.record.key, self.record.value, headers)


class DeadLetterLimitError(Exception):
    """So many records fail that the fault must be the worker's: it stops before it empties a topic."""

    EXIT_STATUS = 65


class DeadLetterLimit:
    """At most ``per_minute`` dead letters within any 60 seconds; 0 for any number."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buried: deque[float] = deque()

    def room(self) -> float:
        """How many more there may be now."""
        if not self._per_minute:
            return float("inf")
        oldest = self._clock() - _MINUTE_S
        while self._buried and self._buried[0] <= oldest:
            self._buried.popleft()
        return self._per_minute - len(self._buried)

    def count(self, letters: int) -> None:
        """So many were published just now."""
        if self._per_minute:
            self._buried.extend([self._clock()] * letters)

    def error(self) -> DeadLetterLimitError:
        return DeadLetterLimitError(
            f"more than {self._per_minute} dead letters in a minute: the fault is more likely this worker's than the"
            " records'. See `tonestream dead-letters list`; TONESTREAM_DEAD_LETTER_LIMIT is the limit"
        )
