"""The retry note: record headers that travel with the unchanged request through the retry topic.

A request stays the same request on its way: its claim holds the coordinates at which it first entered, and its time
counts from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from shared.bus.base import Headers, Outgoing, Record, parsed_coordinates
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import REPLAY_HEADER, headers_of

PREFIX: Final = "tonestream.retry."
#: What each header says. All are text; the times are whole milliseconds.
HEADERS: Final[dict[str, str]] = {
    f"{PREFIX}attempt": "failed tries so far; a try that was only cut short by the first lane is none",
    f"{PREFIX}not-before-ms": "the next try begins at this time at the earliest, Unix epoch",
    f"{PREFIX}entered": "where the request first entered: topic/partition@offset",
    f"{PREFIX}received-at-ms": "when it entered, Unix epoch",
    f"{PREFIX}waited-ms": "all pauses between its tries so far",
    f"{PREFIX}spent-ms": "time spent on fetching it in the retry lane so far",
    f"{PREFIX}first-error": "why the first try failed",
}
_LONGEST_ERROR: Final = 300
_MOST_REPLAYS: Final = 20
_LONGEST_REPLAY: Final = 40


@dataclass(frozen=True, slots=True)
class RetryNote:
    """How far a request is with its tries. The fields are those of ``HEADERS``; the times are in milliseconds."""

    entered: str
    received_at_ms: int
    attempt: int = 0
    not_before_ms: int = 0
    waited_ms: int = 0
    spent_ms: int = 0
    first_error: str = ""

    @classmethod
    def of(cls, record: Record) -> Self:
        """The note of a record of the retry topic. Raises ValueError if it has none, or none that is whole."""
        entered = _text(record, "entered")
        parsed_coordinates(entered)
        return cls(
            entered=entered,
            received_at_ms=_number(record, "received-at-ms"),
            attempt=_number(record, "attempt"),
            not_before_ms=_number(record, "not-before-ms"),
            waited_ms=_number(record, "waited-ms"),
            spent_ms=_number(record, "spent-ms"),
            first_error=_text(record, "first-error"),
        )

    def headers(self) -> Headers:
        """The note as headers of a record."""
        values = (
            self.attempt, self.not_before_ms, self.entered, self.received_at_ms, self.waited_ms, self.spent_ms,
            self.first_error[:_LONGEST_ERROR],
        )  # fmt: skip
        return tuple((name, str(value).encode("utf-8", "replace")) for name, value in zip(HEADERS, values, strict=True))


@dataclass(frozen=True, slots=True)
class Retry:
    """A request on its way to the retry topic. ``origin`` is the record it came in.

    The bytes of the request stay as they are. Of the record's own headers only those of a replay are kept, because any
    client may write headers.
    """

    request: TrackRequest
    origin: Record
    note: RetryNote

    def outgoing(self, topics: Topics) -> Outgoing:
        """The record to publish."""
        replays = [pair for pair in self.origin.headers if pair[0] == REPLAY_HEADER and len(pair[1]) <= _LONGEST_REPLAY]
        return Outgoing(
            topics.name(Channel.REQUESTS_RETRY),
            self.request.track_key.encode(),
            self.origin.value,
            (*headers_of(self.request), *replays[-_MOST_REPLAYS:], *self.note.headers()),
        )


def _text(record: Record, name: str) -> str:
    value = record.header(f"{PREFIX}{name}")
    if value is None:
        raise ValueError(f"there is no header {name}")
    return value.decode("utf-8", "replace")


def _number(record: Record, name: str) -> int:
    number = int(_text(record, name))
    if number < 0:
        raise ValueError(f"the header {name} is negative")
    return number
