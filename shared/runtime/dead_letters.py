"""Records that no worker can handle, kept with their original bytes and the reason (headers after KIP-1034)."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

from shared.bus.base import Headers, Outgoing, Record
from shared.contracts.messages import Stage
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel, Topics
from shared.runtime.envelope import REPLAY_HEADER, salvaged_request_id
from shared.runtime.redaction import Redactor

#: First part of the header names, in the manner of KIP-1034's ``__streams.errors.``.
ERROR_HEADER_PREFIX: Final = "tonestream.errors."
#: Header of a letter that stands for a batch which cannot be read: ``offset`` is its last.
_FIRST_OFFSET: Final = "first_offset"
#: The headers behind this prefix, and what each says.
ERROR_HEADERS: Final[dict[str, str]] = {
    "exception": "the type of the error",
    "message": "the error, without secrets",
    "stacktrace": "where it was raised, without secrets",
    "topic": "where the record stood",
    "partition": "where the record stood",
    "offset": "where the record stood; of a batch that nobody can read, its last offset",
    _FIRST_OFFSET: "the first offset of a batch that nobody can read",
    "service": "who gave it up",
    "attempts": "how many times it was tried",
    "cut": "what the record was, where the letter does not hold all of it",
}

#: Our first header. The headers before it are the record's own, whatever their names.
_FIRST: Final = f"{ERROR_HEADER_PREFIX}exception"
_STACKTRACE: Final = f"{ERROR_HEADER_PREFIX}stacktrace"
#: Only on a dead letter that was cut: the sizes of the whole record.
_CUT: Final = f"{ERROR_HEADER_PREFIX}cut"
#: What a header takes on the wire besides its name and value, at most.
_HEADER_BYTES: Final = 10
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

    ``attempts`` is how many times it was tried. The text of the error passes through ``redact``. A record that is too
    large for a dead letter is cut, and a header says so.
    """
    trace = "".join(traceback.format_exception(error))
    why = {
        "exception": type(error).__name__,
        "message": said(error, redact),
        "stacktrace": redact(trace[-_MAX_SEARCHED:])[-_MAX_TRACE:],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "service": stage.value,
        "attempts": str(attempts),
    }
    if record.unreadable is not None:
        why[_FIRST_OFFSET] = str(record.unreadable.first_offset)
    headers = tuple(
        (f"{ERROR_HEADER_PREFIX}{name}", text.encode("utf-8", "backslashreplace")) for name, text in why.items()
    )
    limit = MAX_MESSAGE_BYTES[Channel.DEAD_LETTERS]
    letter = Outgoing(topics.name(Channel.DEAD_LETTERS), record.key, record.value, record.headers + headers)
    if record.unreadable is not None and _size(letter.key, letter.value, letter.headers) > limit:
        return replace(letter, value=b"")  # a part of a batch is of no use to anybody
    return cut_to(limit, letter)


def cut_to(limit: int, letter: Outgoing) -> Outgoing:
    """``letter`` in at most ``limit`` bytes: unchanged if it fits, else with less of its key, headers and value.

    The headers that say where the record stood stay whole. The end of the stack trace stays. The header
    ``tonestream.errors.cut`` says what the record was.
    """
    if _size(letter.key, letter.value, letter.headers) <= limit:
        return letter
    theirs, ours = _parted(letter.headers)
    if all(name != _CUT for name, _ in ours):
        said = f"a key of {len(letter.key)} bytes, {len(theirs)} headers and a value of {len(letter.value)} bytes"
        ours = (*ours, (_CUT, said.encode()))
    ours = tuple((name, value[-limit // 4 :] if name == _STACKTRACE else value) for name, value in ours)
    left = max(0, limit - _size(b"", b"", ours))
    key = letter.key[: left // 4]
    kept: list[tuple[str, bytes]] = []
    room = left // 4
    for header in theirs:
        room -= _size(b"", b"", (header,))
        if room < 0:
            break
        kept.append(header)
    value = letter.value[: max(0, left - _size(key, b"", kept))]
    return Outgoing(letter.topic, key, value, (*kept, *ours))


def _size(key: bytes, value: bytes, headers: Iterable[tuple[str, bytes]]) -> int:
    """Bytes on the wire, an upper bound."""
    return len(key) + len(value) + sum(len(name.encode()) + len(held) + _HEADER_BYTES for name, held in headers)


def _parted(headers: Headers) -> tuple[Headers, Headers]:
    """A dead letter's headers: those its record had, which may be called like ours, and ours."""
    first = max((place for place, (name, _) in enumerate(headers) if name == _FIRST), default=len(headers))
    return headers[:first], headers[first:]


def said(error: Exception, redact: Callable[[str], str]) -> str:
    """What the error says, without secrets."""
    try:
        text = str(error)
    except Exception:
        text = "(the error cannot be put into words)"
    # Redacted first and cut then: half a secret would not be recognised.
    return redact(text[:_MAX_SEARCHED])[:_MAX_MESSAGE]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of the dead letters, read: what it was, and what became of it. Fields nobody wrote are empty.

    ``cut`` says what the record was, where the letter does not hold all of it.
    """

    record: Record
    exception: str
    message: str
    stacktrace: str
    topic: str
    partition: str
    offset: str
    service: str
    attempts: str
    cut: str
    #: Set where the letter stands for a batch that cannot be read.
    first_offset: str = ""

    @classmethod
    def of(cls, record: Record) -> Self:
        """The dead letter in ``record``, whatever its headers are."""

        ours = dict(_parted(record.headers)[1])

        def header(name: str) -> str:
            return ours.get(f"{ERROR_HEADER_PREFIX}{name}", b"").decode("utf-8", "replace")

        return cls(
            record,
            exception=header("exception"),
            message=header("message"),
            stacktrace=header("stacktrace"),
            topic=header("topic"),
            partition=header("partition"),
            offset=header("offset"),
            service=header("service"),
            attempts=header("attempts"),
            cut=header("cut"),
            first_offset=header(_FIRST_OFFSET),
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
        """The request of the record, if it names one. An unreadable batch names none."""
        return None if self.first_offset else salvaged_request_id(self.record, self.topic)

    @property
    def replay_of(self) -> tuple[str, ...]:
        """The dead letters it had been before, oldest first."""
        return tuple(
            value.decode("utf-8", "replace") for name, value in self.original_headers() if name == REPLAY_HEADER
        )

    def original_headers(self) -> Headers:
        """The record's own headers, without ours about the error."""
        return _parted(self.record.headers)[0]

    def replayed(self) -> Outgoing:
        """The original record, addressed to its original topic, with a header that marks the replay."""
        headers = (*self.original_headers(), (REPLAY_HEADER, self.id.encode()))
        return Outgoing(self.topic, self.record.key, self.record.value, headers)


class DeadLetterLimitError(Exception):
    """So many records fail that the worker must be at fault. It stops before it empties a topic."""

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
