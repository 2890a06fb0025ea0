"""The state of requests: one hash each, and a class whose methods are the arrows between its phases.

    new --accept--> accepted --add(track)--> waiting --answer--> answered --close--> closed
     ^                                                                                 |
     +------------------------------------- reopen ------------------------------------+

A request is accepted by one record and answered by one record. Each claim holds the coordinates of the record that made
it. A redelivery has the same coordinates and may go on; any other record finds the claim taken. So a claim needs no
undoing when its unit of work is not committed: the record comes again, to whichever worker, and is recognised. Once the
answer is committed the request is closed. From then on no record may do anything for it, not even the one that
answered.

Parts may come in any order, also before the request is accepted, and through any number of aggregators. Writing a part
twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self, cast

import redis

from shared.bus.base import Record
from shared.contracts.messages import (
    GenreFailure,
    IngestedTrack,
    MoodPrediction,
    Overdue,
    SegmentPrediction,
    SilentSegment,
    TrackResult,
)
from shared.state.connection import redis_faults, run_all
from shared.state.fences import GUARD, Fences
from shared.state.keys import Keys

Part = IngestedTrack | SegmentPrediction | SilentSegment | GenreFailure | MoodPrediction | Overdue

#: Fields of the hash. The first four stay when the request is closed.
ACCEPTED_BY: Final = "accepted_by"
ANSWERED_BY: Final = "answered_by"
CLOSED: Final = "closed"
ANSWER: Final = "answer"
HEARD: Final = "heard"
#: The trace context of the record that announced the request.
_TRACE: Final = "trace"
#: What a request holds on to, by the first part of the field.
FOLLOWER: Final = "follower:"
WORK: Final = "work:"
AUDIO: Final = "audio:"

_TRACK: Final = "track"
_MOOD: Final = "mood"
_FAILURE: Final = "failure"
_OVERDUE: Final = "overdue"
_SINGLE_PARTS: Final = (_TRACK, _MOOD, _FAILURE, _OVERDUE)
#: An overdue request is reminded of again after this many seconds, should the reminder itself be lost.
_REMIND_AGAIN_S: Final = 60.0

#: ``GUARD``, and behind it the end, with 0, if the request is closed. KEYS[2]: the request.
OPEN_GUARD: Final = f"""
{GUARD}
if redis.call('HEXISTS', KEYS[2], '{CLOSED}') == 1 then return 0 end
"""

#: KEYS: fence, request. ARGV: epoch, field, coordinates, seconds to live.
_CLAIM: Final = f"""
{OPEN_GUARD}
local holder = redis.call('HGET', KEYS[2], ARGV[2])
if not holder then
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
    redis.call('EXPIRE', KEYS[2], ARGV[4])
    return 1
end
return holder == ARGV[3] and 1 or 0
"""

#: KEYS: fence, request, waiting. ARGV: epoch, request ID, seconds to live, deadline, 1 if the request is announced,
#: else 0, number of single parts, these with their values by turns, then those of segments.
_ADD: Final = f"""
{OPEN_GUARD}
local heard = 0
for i = 7, #ARGV, 2 do
    if i < 7 + 2 * tonumber(ARGV[6]) then
        redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1])
    else
        heard = heard + redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    end
end
if heard > 0 then redis.call('HINCRBY', KEYS[2], '{HEARD}', heard) end
redis.call('EXPIRE', KEYS[2], ARGV[3])
-- Parts of a request that nobody announced wait for nothing: they expire.
if ARGV[5] == '1' then
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[2])
else
    redis.call('ZADD', KEYS[3], 'XX', ARGV[4], ARGV[2])
end
return 1
"""

#: KEYS: request. ARGV: coordinates, seconds to live.
_CLOSE: Final = f"""
if redis.call('HGET', KEYS[1], '{ANSWERED_BY}') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], '{CLOSED}', '1')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

#: Removes fields of a hash. Few commands with many fields each: one a field would be written to the disk one by one.
_REMOVE: Final = """
local function remove(key, unwanted)
    local fields = {}
    local function flush()
        if #fields > 0 then redis.call('HDEL', key, unpack(fields)) end
        fields = {}
    end
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if unwanted(field) then fields[#fields + 1] = field end
        if #fields == 1000 then flush() end
    end
    flush()
end
"""

#: KEYS: request, waiting. ARGV: request ID, the coordinates that closed it ('': whatever its phase).
_FORGET: Final = f"""
{_REMOVE}
if ARGV[2] ~= '' and (redis.call('HGET', KEYS[1], '{ANSWERED_BY}') ~= ARGV[2]
        or redis.call('HEXISTS', KEYS[1], '{CLOSED}') == 0) then
    return 0
end
local stays = {{['{ACCEPTED_BY}'] = true, ['{ANSWERED_BY}'] = true, ['{CLOSED}'] = true, ['{ANSWER}'] = true}}
remove(KEYS[1], function(field) return not stays[field] end)
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""

#: KEYS: request, waiting. ARGV: request ID. What the request holds on to stays, so that it can be let go.
_REOPEN: Final = f"""
{_REMOVE}
remove(KEYS[1], function(field)
    local kind = string.match(field, '^%a+:')
    return kind ~= '{FOLLOWER}' and kind ~= '{WORK}' and kind ~= '{AUDIO}'
end)
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""


class Phase(StrEnum):
    """How far a request is."""

    NEW = "new"
    ACCEPTED = "accepted"
    WAITING = "waiting"
    ANSWERED = "answered"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Claims:
    """Which records stand for a request, by their coordinates. ``waiting``: its track is announced."""

    accepted_by: str | None
    answered_by: str | None
    closed: bool
    waiting: bool

    @property
    def phase(self) -> Phase:
        if self.closed:
            return Phase.CLOSED
        if self.answered_by is not None:
            return Phase.ANSWERED
        if self.waiting:
            return Phase.WAITING
        return Phase.NEW if self.accepted_by is None else Phase.ACCEPTED


@dataclass(frozen=True, slots=True)
class RequestState:
    """What is known of an unfinished request: its single parts, and how many of its segments have been heard of.

    ``trace`` is the trace context that was noted for it, empty if none was.
    """

    track: IngestedTrack | None
    mood: MoodPrediction | None
    failure: GenreFailure | None
    overdue: Overdue | None
    segments: int
    trace: str = ""

    @property
    def genre_ended(self) -> bool:
        """Whether nothing more will come for the genre."""
        if self.track is None:
            return False
        if self.failure is not None or self.track.audio is None:
            return True
        return 0 < self.track.audio.segments <= self.segments

    @property
    def complete(self) -> bool:
        """Whether the request can be answered."""
        if self.track is None:
            return False
        if self.track.cached is not None or self.overdue is not None:
            return True
        return self.track.follows is None and self.mood is not None and self.genre_ended

    def with_answer(self, result: TrackResult) -> RequestState:
        """The same, now that an answer for the same track is known."""
        assert self.track is not None
        return replace(self, track=self.track.model_copy(update={"cached": result}))

    def with_segments(self, fields: Iterable[str]) -> RequestState:
        """The same, counting only those segments among the ``fields`` that the track has."""
        assert self.track is not None
        limit = 0 if self.track.audio is None else self.track.audio.segments
        heard = {int(name[1:]) for name in fields if _is_segment(name)}
        return replace(self, segments=sum(index < limit for index in heard))


class Requests:
    """The state of requests by their IDs, as one service sees it.

    ``fences`` are those of the service whose records write. Each write on behalf of a record raises FencedError once
    the record's partition has another owner. A request is remembered for ``ttl_s`` seconds after the last write, and is
    overdue after ``deadline_s`` seconds without news.
    """

    def __init__(self, client: redis.Redis, keys: Keys, fences: Fences, ttl_s: int, deadline_s: float) -> None:
        self.client = client
        self.keys = keys
        self.fences = fences
        self.ttl_s = ttl_s
        self.deadline_s = deadline_s
        self._claim_script = client.register_script(_CLAIM)
        self._add_script = client.register_script(_ADD)
        self._close_script = client.register_script(_CLOSE)
        self._forget_script = client.register_script(_FORGET)
        self._reopen_script = client.register_script(_REOPEN)

    @classmethod
    def open(cls, client: redis.Redis, keys: Keys, service: str, ttl_s: int, deadline_s: float) -> Self:
        """As the workers of ``service`` see them."""
        return cls(client, keys, Fences(keys, service), ttl_s, deadline_s)

    # The arrows

    def accept(self, request_id: str, record: Record, entered: str | None = None) -> bool:
        """Whether ``record`` is the one that makes the request, or carries it on.

        In the latter case ``entered`` gives the coordinates of the one that made it. Raises FencedError,
        DependencyError.
        """
        return self._claim(request_id, ACCEPTED_BY, record, entered or record.coordinates)

    def add(self, parts: Sequence[tuple[Part, Record]], traces: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the parts down, each with the record that brings it. The first of each single part stands. Nothing is
        written for a closed request. ``traces`` are the trace contexts of requests that are announced here, by ID.
        Raises FencedError, DependencyError.
        """
        groups: dict[tuple[str, str], list[tuple[Part, Record]]] = {}
        for part, record in parts:
            groups.setdefault((part.request_id, self.fences.key(record)), []).append((part, record))
        deadline = time.time() + self.deadline_s
        calls = []
        for (request_id, fence), brought in groups.items():
            fields = {_field(part): part for part, _ in reversed(brought)}
            single = [name for name in fields if name in _SINGLE_PARTS]
            segments = [name for name in fields if name not in _SINGLE_PARTS]
            arguments: list[str | int | float] = [brought[-1][1].epoch, request_id, self.ttl_s, deadline]
            trace = traces.get(request_id, "") if _TRACK in fields else ""
            arguments += [int(_TRACK in fields), len(single) + bool(trace)]
            if trace:
                arguments += [_TRACE, trace]
            for name in (*single, *segments):
                arguments += [name, fields[name].model_dump_json()]
            calls.append(([fence, self.keys.request(request_id), self.keys.waiting()], arguments))
        with redis_faults():
            run_all(self.client, self._add_script, calls)

    def answer(self, request_id: str, record: Record) -> bool:
        """Whether ``record`` is the one that answers the request. Raises FencedError, DependencyError."""
        return self._claim(request_id, ANSWERED_BY, record, record.coordinates)

    def close(self, request_id: str, coordinates: str) -> bool:
        """The answer by the record at ``coordinates`` is committed. False where another record answers, or none."""
        with redis_faults():
            keys = [self.keys.request(request_id)]
            return bool(self._close_script(keys=keys, args=[coordinates, self.ttl_s]))

    def forget(self, request_id: str, closed_by: str = "") -> None:
        """Remove the parts, and what the request holds on to. Its claims stay, so that its ID stays used.

        With ``closed_by`` only if the record at these coordinates closed it, and it was not reopened since.
        """
        with redis_faults():
            keys = [self.keys.request(request_id), self.keys.waiting()]
            self._forget_script(keys=keys, args=[request_id, closed_by])

    def reopen(self, request_ids: Iterable[str]) -> None:
        """Forget that these requests were made and answered: their next record counts as the first."""
        with redis_faults():
            for request_id in request_ids:
                keys = [self.keys.request(request_id), self.keys.waiting()]
                self._reopen_script(keys=keys, args=[request_id])

    def _claim(self, request_id: str, field: str, record: Record, coordinates: str) -> bool:
        keys = [self.fences.key(record), self.keys.request(request_id)]
        with redis_faults():
            return bool(self._claim_script(keys=keys, args=[record.epoch, field, coordinates, self.ttl_s]))

    # Looking

    def claims(self, request_ids: Sequence[str]) -> dict[str, Claims]:
        """Which records stand for each of the requests."""
        with redis_faults():
            pipeline = self.client.pipeline(transaction=False)
            for request_id in request_ids:
                pipeline.hmget(self.keys.request(request_id), [ACCEPTED_BY, ANSWERED_BY, CLOSED])
                pipeline.zscore(self.keys.waiting(), request_id)
            replies = pipeline.execute() if request_ids else []
        found = {}
        for number, request_id in enumerate(request_ids):
            accepted_by, answered_by, closed = cast("list[str | None]", replies[2 * number])
            waiting = replies[2 * number + 1] is not None
            found[request_id] = Claims(accepted_by, answered_by, closed is not None, waiting)
        return found

    def states(self, request_ids: Sequence[str]) -> dict[str, RequestState]:
        """How far each of the requests is."""
        with redis_faults():
            pipeline = self.client.pipeline(transaction=False)
            for request_id in request_ids:
                pipeline.hmget(self.keys.request(request_id), [*_SINGLE_PARTS, HEARD, _TRACE])
            replies = cast("list[list[str | None]]", pipeline.execute() if request_ids else [])
        found = dict(zip(request_ids, map(_state, replies), strict=True))
        # There are enough segments. Are they those of the track? An index beyond its end is none of them.
        full = [request_id for request_id, state in found.items() if state.genre_ended and state.segments]
        with redis_faults():
            pipeline = self.client.pipeline(transaction=False)
            for request_id in full:
                pipeline.hkeys(self.keys.request(request_id))
            fields = cast("list[list[str]]", pipeline.execute() if full else [])
        for request_id, names in zip(full, fields, strict=True):
            found[request_id] = found[request_id].with_segments(names)
        return found

    def predictions(self, track: IngestedTrack) -> list[SegmentPrediction]:
        """The predictions of the segments of ``track``, by index."""
        segments = 0 if track.audio is None else track.audio.segments
        with redis_faults():
            fields = cast("Mapping[str, str]", self.client.hgetall(self.keys.request(track.request_id)))
        found = [
            SegmentPrediction.model_validate_json(text)
            for name, text in fields.items()
            if _is_segment(name) and name[0] == "p"
        ]
        return sorted((one for one in found if one.index < segments), key=lambda prediction: prediction.index)

    def unfinished(self) -> int:
        """How many requests are announced and not yet answered."""
        with redis_faults():
            return self.client.zcard(self.keys.waiting())

    def without_news(self, for_s: float, limit: int) -> list[str]:
        """At most ``limit`` requests that wait and have had no part for ``for_s`` seconds, the longest first."""
        until = time.time() + self.deadline_s - for_s
        with redis_faults():
            found = self.client.zrangebyscore(self.keys.waiting(), "-inf", until, start=0, num=limit)
        return cast("list[str]", found)

    def overdue(self, limit: int) -> list[Overdue]:
        """At most ``limit`` requests without news for longer than the deadline."""
        now = time.time()
        with redis_faults():
            late = cast(
                "list[tuple[str, float]]",
                self.client.zrangebyscore(self.keys.waiting(), "-inf", now, start=0, num=limit, withscores=True),
            )
        states = self.states([request_id for request_id, _ in late])
        found = []
        for request_id, deadline in late:
            track = states[request_id].track
            if track is None:  # parts without a request: nobody to answer
                self.forget(request_id)
                continue
            with redis_faults():
                self.client.zadd(self.keys.waiting(), {request_id: now + _REMIND_AGAIN_S}, xx=True)
            waited = self.deadline_s + now - deadline
            found.append(Overdue(request_id=request_id, track_key=track.track_key, waited_s=waited))
        return found


def _field(part: Part) -> str:
    match part:
        case IngestedTrack():
            return _TRACK
        case MoodPrediction():
            return _MOOD
        case GenreFailure():
            return _FAILURE
        case Overdue():
            return _OVERDUE
        case SegmentPrediction(index=index):
            return f"p{index}"
        case SilentSegment(index=index):
            return f"s{index}"


def _is_segment(field: str) -> bool:
    return field[0] in "ps" and field[1:].isdigit()


def _state(values: list[str | None]) -> RequestState:
    track, mood, failure, overdue, heard, trace = values
    return RequestState(
        track=None if track is None else IngestedTrack.model_validate_json(track),
        mood=None if mood is None else MoodPrediction.model_validate_json(mood),
        failure=None if failure is None else GenreFailure.model_validate_json(failure),
        overdue=None if overdue is None else Overdue.model_validate_json(overdue),
        segments=int(heard or 0),
        trace=trace or "",
    )
