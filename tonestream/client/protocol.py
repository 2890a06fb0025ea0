"""The HTTP API in terms of calls and answers, without any input or output.

Each function is a flow: a generator that yields the next call, or a pause, and is sent the answer. `blocking.py` and
`asynchronous.py` drive the same flows, one with httpx's blocking client and one with its asyncio client.
"""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from shared.contracts.messages import TrackResult
from shared.runtime import traces
from tonestream.client.answers import Accepted, Page, Problem, Ticket, TrackState
from tonestream.client.errors import Missed, NotFound, Refused, TimedOut, Unavailable, UnexpectedAnswer
from tonestream.client.sources import Submission, as_text

T = TypeVar("T")
_Model = TypeVar("_Model", bound=BaseModel)

#: Statuses that say: not now. A call that changes nothing when it is made twice is made again.
_LATER: Final = frozenset({429, 502, 503, 504})
_GONE: Final = frozenset({404, 410})
#: The longest time for which the gateway holds an answer back, in seconds (``?wait=``).
_LONGEST_WAIT_S: Final = 30.0
#: The longest pause between two tries, in seconds. A server that asks for a longer one is not asked again.
LONGEST_PAUSE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.25
#: The most rows of one page.
_PAGE_ROWS: Final = 500
#: The gateway sends a comment every 15 s. A stream without one for this long has lost its server.
SILENCE_S: Final = 45.0


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. ``file`` is a body to be streamed from the disk; ``extra_s`` is added to the time limit."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    file: Path | None = None
    extra_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this long, then go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why there is no response."""

    reason: str


Flow = Generator[Call | Pause, Answer | NoAnswer | None, T]


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event. ``id`` is where a stream goes on after it."""

    id: str | None
    name: str
    data: str


def submit(submission: Submission, retries: int) -> Flow[Ticket]:
    """Send a request. Its ID is the Idempotency-Key, so a retry never makes a second request."""
    headers = {"Idempotency-Key": submission.request_id, **traces.context_fields()}
    wishes = submission.wishes
    wanted = {"model": wishes.model, "force": wishes.force or None, "embedding": wishes.embedding or None}
    given = {name: value for name, value in wanted.items() if value is not None}
    if submission.file is not None:
        headers |= {"Content-Type": "application/octet-stream", "X-Filename": quote(as_text(submission.file.name))}
        query = {name: "true" if value is True else value for name, value in given.items()}
        call = Call("POST", "/v1/tracks", query, headers, file=submission.file)
    else:
        named = {"audio_url": submission.url, "track_id": submission.track_id}
        source = {name: value for name, value in named.items() if value is not None}
        call = Call("POST", "/v1/tracks", headers=headers, body=source | given)
    answer = yield from _answered(call, retries)
    accepted = _read(Accepted, answer)
    return Ticket(accepted.request_id, accepted.source or submission.shown)


def state(request_id: str, retries: int, wait_s: float = 0.0) -> Flow[TrackState]:
    """How far a request is; the gateway waits up to ``wait_s`` seconds for its result."""
    query = {"wait": f"{wait_s:.3f}".rstrip("0").rstrip(".")} if wait_s > 0 else {}
    answer = yield from _answered(
        Call("GET", f"/v1/tracks/{quote(request_id, safe='')}", query, extra_s=wait_s), retries
    )
    return _read(TrackState, answer)


def remove(request_id: str, retries: int) -> Flow[None]:
    """Remove a track from the library. A second removal changes nothing."""
    yield from _answered(Call("DELETE", f"/v1/tracks/{quote(request_id, safe='')}"), retries)


def wait(request_id: str, timeout_s: float | None, retries: int) -> Flow[TrackResult]:
    """The result of a request, once it is there."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        left = _LONGEST_WAIT_S if deadline is None else deadline - began
        found = yield from state(request_id, retries, max(0.0, min(_LONGEST_WAIT_S, left)))
        if found.result is not None:
            return found.result
        if deadline is not None and time.monotonic() >= deadline:
            raise late(request_id, timeout_s)
        if time.monotonic() - began < min(1.0, left) / 2:  # it answered at once, without a result: do not press it
            yield Pause(min(1.0, max(0.0, left)))


def late(request_id: str, timeout_s: float | None) -> TimedOut:
    """The error for a result that did not come in time."""
    return TimedOut(f"no result of {request_id} within {timeout_s:g} s; the request goes on")


def page(filters: Mapping[str, Any], after: str | None, retries: int) -> Flow[Page]:
    """One page of rows."""
    query = {"limit": _PAGE_ROWS, **filters, **({} if after is None else {"after": after})}
    answer = yield from _answered(Call("GET", "/v1/results", query), retries)
    return _read(Page, answer)


def filters(
    genre: str | Sequence[str] | None,
    mood: str | Sequence[str] | None,
    status: str | Sequence[str] | None,
    **more: str | float | None,
) -> dict[str, Any]:
    """The query for these filters; those that are None are left out."""
    several = {"genre": genre, "mood": mood, "status": status}
    lists = {
        name: [value] if isinstance(value, str) else list(value) for name, value in several.items() if value is not None
    }
    return {**lists, **{name: value for name, value in more.items() if value is not None}}


def events_call(after: str | None) -> Call:
    """The call that opens the stream of events, after the event with the ID ``after``."""
    headers = {"Accept": "text/event-stream", **({} if after is None else {"Last-Event-ID": after})}
    return Call("GET", "/v1/events", headers=headers)


class EventParser:
    """Server-sent events from their lines (WHATWG HTML, 9.2.6)."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """The event that ends with this line; None if none does.

        >>> parser = EventParser()
        >>> [parser.feed(line) for line in ("id: 7", "event: result", "data: {}")]
        [None, None, None]
        >>> parser.feed("")
        Event(id='7', name='result', data='{}')
        """
        if not line:
            event = Event(self.last_id, self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self.last_id = value or None
        return None


class _ResultArrived(BaseModel):
    request_id: str


def finished_request(event: Event) -> str | None:
    """The request whose result the event announces; None for other events. Raises Missed."""
    if event.name == "reset":
        raise Missed(event.id)
    if event.name != "result":
        return None
    try:
        return _ResultArrived.model_validate_json(event.data).request_id
    except ValidationError as error:
        raise UnexpectedAnswer("the stream of events holds one that is not Tonestream's") from error


def pause_s(attempt: int, asked: float | None) -> float:
    """How long to wait after the failed try number ``attempt``, in seconds.

    What the server asks for goes first; otherwise twice as long as the last time, spread over clients.
    """
    if asked is not None:
        return asked
    return min(LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)


def failure(answer: Answer | NoAnswer) -> Unavailable | None:
    """Why this is worth another try; None if it is an answer to work with."""
    if isinstance(answer, NoAnswer):
        return Unavailable(answer.reason)
    if answer.status in _LATER:
        return Unavailable(_problem(answer).sentence, _retry_after_s(answer.headers))
    return None


def require_success(answer: Answer) -> None:
    """Raises Refused, NotFound or Unavailable for a status that is none of success."""
    if answer.status < 300:
        return
    problem = _problem(answer)
    if answer.status in _GONE:
        raise NotFound(problem)
    if answer.status >= 500:
        raise Unavailable(problem.sentence)
    raise Refused(problem)


def _answered(call: Call, retries: int) -> Flow[Answer]:
    """The answer to a call. Every call may be made twice: a submission has its Idempotency-Key."""
    attempt = 0
    while True:
        answer = yield call
        assert answer is not None
        attempt += 1
        fault = failure(answer)
        if fault is None:
            assert isinstance(answer, Answer)
            require_success(answer)
            return answer
        pause = pause_s(attempt, fault.retry_after_s)
        if attempt > retries or pause > LONGEST_PAUSE_S:
            raise fault
        yield Pause(pause)


def _read(model: type[_Model], answer: Answer) -> _Model:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "body"
        raise UnexpectedAnswer(
            f"the answer is not one of Tonestream's gateway, or of a newer one ({place}: {fault['msg']})"
        ) from None


def _problem(answer: Answer) -> Problem:
    """The problem that an answer names; one made of its status if it names none."""
    try:
        return Problem.model_validate_json(answer.body)
    except ValidationError:
        return Problem(
            code="unknown", title=f"the server answered with HTTP status {answer.status}", status=answer.status
        )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait in a Retry-After header: seconds, or a date."""
    said = headers.get("retry-after", "").strip()
    if not said:
        return None
    if said.isdigit():
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None
