"""What an operator does with dead letters, by the command line or over HTTP: read them, and replay them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from services.topology import ENTRANCES, READ_BY_SERVICES
from shared.bus.base import BusError, BusUnavailableError, Publisher, Reader
from shared.contracts.errors import DependencyError
from shared.contracts.topics import Topics
from shared.runtime.dead_letters import DeadLetter
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.state.replays import Replays
    from shared.state.requests import Requests

#: Records of one poll: a dead letter can have several megabytes.
_BATCH: Final = 50
#: Dead letters per look-up of replay marks.
_MARKS: Final = 500
#: At least as long as the dead letters themselves are kept.
_REMEMBERED_S: Final = 31 * 24 * 3600


class UnknownDeadLetterError(BusError):
    """There is no dead letter of that ID (any more)."""


class NotReadInTimeError(BusUnavailableError):
    """The dead letters could not be read to their end in the time allowed."""


class DeadLetterSummary(BaseModel):
    """A record that no worker could handle, and why. ``topic``, ``partition`` and ``offset`` say where it stood."""

    # Without its value: all values together may not fit into memory.
    model_config = ConfigDict(frozen=True)

    id: str = Field(description="partition and offset among the dead letters", examples=["3:17"])
    time: str
    service: str
    exception: str
    message: str
    topic: str
    partition: str
    offset: str
    attempts: str
    request_id: str | None
    bytes: int = Field(description="size of the record")
    replay_of: list[str] = Field(description="the dead letters it was before")
    cut: str | None = Field(description="what the record was, if only a part of it is kept")
    replayed: bool | None = Field(description="null: not known at the moment")

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterSummary:
        """What a list shows of the letter, before Redis is asked whether it was replayed."""
        return cls(
            id=letter.id,
            time=datetime.fromtimestamp(letter.record.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            service=letter.service,
            exception=letter.exception,
            message=letter.message,
            topic=letter.topic,
            partition=letter.partition,
            offset=letter.offset,
            attempts=letter.attempts,
            request_id=letter.request_id,
            bytes=len(letter.record.value),
            replay_of=list(letter.replay_of),
            cut=letter.cut or None,
            replayed=None,
        )


def read_letters(reader: Reader, timeout_s: float) -> Iterator[list[DeadLetter]]:
    """All dead letters from the beginning to the current end, some at a time. Raises NotReadInTimeError."""
    deadline = time.monotonic() + timeout_s
    read = 0
    while True:
        letters = [DeadLetter.of(record) for record in reader.poll(_BATCH, timeout_s=0.2)]
        read += len(letters)
        if letters:
            yield letters
        elif reader.at_end():
            return
        if time.monotonic() > deadline:
            raise NotReadInTimeError(
                f"the dead letters were not read to their end in {timeout_s:g} s ({read} read); --timeout allows more"
            )


def find_letters(reader: Reader, wanted: Sequence[str], timeout_s: float) -> list[DeadLetter]:
    """The dead letters with these IDs, in this order. Raises UnknownDeadLetterError, NotReadInTimeError."""
    found: dict[str, DeadLetter] = {}
    for letters in read_letters(reader, timeout_s):
        found.update((letter.id, letter) for letter in letters if letter.id in wanted)
        if len(found) == len(set(wanted)):
            break
    if missing := [letter_id for letter_id in dict.fromkeys(wanted) if letter_id not in found]:
        raise UnknownDeadLetterError(
            f"there is no dead letter {', '.join(missing)}; see `tonestream dead-letters list`"
        )
    return [found[letter_id] for letter_id in dict.fromkeys(wanted)]


def open_replays(settings: Settings) -> Replays:
    """The marks of replayed dead letters."""
    from shared.state.connection import connect
    from shared.state.keys import Keys
    from shared.state.replays import Replays

    return Replays(connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix), _REMEMBERED_S)


def open_requests(settings: Settings) -> Requests:
    """The state of requests. Raises DependencyError for a cluster that is away, and for a newer version's state."""
    from shared.state.connection import connect
    from shared.state.keys import Keys
    from shared.state.layout import require_own_layout
    from shared.state.requests import Requests

    client = connect(settings.redis_url.get_secret_value())
    require_own_layout(client, Keys(settings.redis_prefix))
    ttl_s, deadline_s = settings.state_ttl_s, settings.result_deadline_s
    return Requests.open(client, Keys(settings.redis_prefix), "dead-letters", ttl_s, deadline_s)


def newest_letters(reader: Reader, limit: int, service: str | None, timeout_s: float) -> list[DeadLetterSummary]:
    """The last ``limit`` dead letters, of one service if it is given, the oldest first. Raises BusError."""
    found: deque[DeadLetterSummary] = deque(maxlen=limit)
    for letters in read_letters(reader, timeout_s):
        found += [DeadLetterSummary.of(letter) for letter in letters if service in (None, letter.service)]
    return sorted(found, key=lambda one: one.time)


def with_marks(listed: Sequence[DeadLetterSummary], replays: Replays) -> tuple[list[DeadLetterSummary], str | None]:
    """The summaries with ``replayed``; and why that is not known, where Redis does not answer."""
    marked: set[str] = set()
    try:
        for start in range(0, len(listed), _MARKS):
            marked |= replays.marked([one.id for one in listed[start : start + _MARKS]])
    except DependencyError as error:
        return list(listed), str(error)
    return [one.model_copy(update={"replayed": one.id in marked}) for one in listed], None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A dead letter that is not replayed, and why."""

    letter: DeadLetter
    reason: str


def replay_letters(
    letters: Sequence[DeadLetter], topics: Topics, requests: Requests, replays: Replays, publisher: Publisher
) -> tuple[list[DeadLetter], list[Refusal]]:
    """Publish the original records of dead letters; returns the replayed ones, and the others with the reason.

    The order is: reopen the requests in Redis, publish, mark as replayed. A crash in between replays too much rather
    than too little. Raises DependencyError and the errors of ``Publisher.publish``.
    """
    sent: list[DeadLetter] = []
    refusals: list[Refusal] = []
    for letter in letters:
        reason = _obstacle(letter, topics, requests)
        if reason is None:
            sent.append(letter)
        else:
            refusals.append(Refusal(letter, reason))
    entrances = [letter for letter in sent if topics.channel(letter.topic) in ENTRANCES]
    requests.reopen(letter.request_id for letter in entrances if letter.request_id)
    if sent:
        publisher.publish([letter.replayed() for letter in sent])
        replays.mark(letter.id for letter in sent)
    return sent, refusals


def _obstacle(letter: DeadLetter, topics: Topics, requests: Requests) -> str | None:
    """Why a letter cannot be replayed; None if it can."""
    try:
        channel = topics.channel(letter.topic)
    except ValueError:
        channel = None
    if channel not in READ_BY_SERVICES:
        known = repr(letter.topic) if letter.topic else "none"
        return f"its original topic is unknown: {known} is no topic that workers of {topics.prefix!r} read"
    if letter.first_offset:
        return "it is a batch of records that cannot be read; whoever wrote it has to send them again"
    if letter.cut:
        return f"it holds only a part of its record, which had {letter.cut} and stood at {letter.stood_at}"
    if letter.request_id is None:
        return None
    claims = requests.claims([letter.request_id])[letter.request_id]
    if channel in ENTRANCES:
        if claims.waiting and claims.answered_by is None:
            return f"request {letter.request_id} is still under way; try again when it is answered"
        return None
    if claims.answered_by is not None:
        entered = f"; the request stands at {claims.accepted_by}" if claims.accepted_by else ""
        return (
            f"request {letter.request_id} is answered already, and a part of it changes no answer: submit the track"
            f" again{entered}"
        )
    return None
