"""What has arrived for each unfinished request. In Redis, so that it outlives the aggregator.

One hash a request, one field a part: writing a part twice changes nothing, and parts may come in any order and through
any number of aggregators.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

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
from shared.state.connection import Keys, redis_faults
from shared.state.fences import Fences
from shared.state.requests import OPEN_GUARD, Requests

Part = IngestedTrack | SegmentPrediction | SilentSegment | GenreFailure | MoodPrediction | Overdue

_TRACK: Final = "track"
_MOOD: Final = "mood"
_FAILURE: Final = "failure"
_OVERDUE: Final = "overdue"
_SINGLE_FIELDS: Final = (_TRACK, _MOOD, _FAILURE, _OVERDUE)
#: KEYS: fence, the answer's claim, votes, waiting. ARGV: epoch, request ID, seconds to live, deadline, whether the
#: request is announced (1 or 0), number of single fields, these with their values by turns, then the others.
_ADD: Final = f"""
{OPEN_GUARD}
for i = 7, #ARGV, 2 do
    local write = i < 7 + 2 * tonumber(ARGV[6]) and 'HSETNX' or 'HSET'
    redis.call(write, KEYS[3], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[3], ARGV[3])
-- Parts of a request that nobody announced wait for nothing: they expire.
if ARGV[5] == '1' then
    redis.call('ZADD', KEYS[4], ARGV[4], ARGV[2])
else
    redis.call('ZADD', KEYS[4], 'XX', ARGV[4], ARGV[2])
end
return 1
"""
#: An overdue request is reminded of again after this many seconds, should the reminder itself be lost.
_REMIND_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a request is: its single parts, and how many of its segments have been heard of."""

    track: IngestedTrack | None
    mood: MoodPrediction | None
    failure: GenreFailure | None
    overdue: Overdue | None
    segments: int

    @property
    def genre_ended(self) -> bool:
        """Whether nothing more will come for the genre."""
        if self.track is None:
            return False
        if self.failure is not None or self.track.audio is None:
            return True
        return 0 < self.track.audio.segments <= self.segments

    def with_answer(self, result: TrackResult) -> Standing:
        """The same, now that an answer for the same track is known."""
        assert self.track is not None
        return replace(self, track=self.track.model_copy(update={"cached": result}))

    def with_segments(self, fields: Sequence[str]) -> Standing:
        """The same, counting only those segments among the ``fields`` that the track has."""
        assert self.track is not None
        limit = 0 if self.track.audio is None else self.track.audio.segments
        heard = {int(name[1:]) for name in fields if name not in _SINGLE_FIELDS}
        return replace(self, segments=sum(index < limit for index in heard))

    @property
    def complete(self) -> bool:
        if self.track is None:
            return False
        if self.track.cached is not None or self.overdue is not None:
            return True
        return self.track.follows is None and self.mood is not None and self.genre_ended


class VoteState:
    """The parts of unfinished requests.

    ``requests`` knows which are closed, ``fences`` are those of the service whose records bring the parts.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, requests: Requests, fences: Fences, ttl_s: int, deadline_s: float
    ) -> None:
        self._redis = client
        self._keys = keys
        self._requests = requests
        self._fences = fences
        self._ttl_s = ttl_s
        self._deadline_s = deadline_s
        self._add = client.register_script(_ADD)

    def add(self, parts: Sequence[tuple[Part, Record]]) -> None:
        """Write the parts down, each with the record that brings it. The first failure and the first announcement of a
        request stand; nothing is written for one that is closed. Raises FencedError, DependencyError.
        """
        groups: dict[tuple[str, str], list[tuple[Part, Record]]] = {}
        for part, record in parts:
            groups.setdefault((part.request_id, self._fences.key(record)), []).append((part, record))
        deadline = time.time() + self._deadline_s
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for (request_id, fence), brought in groups.items():
                fields = {_field(part): part for part, _ in reversed(brought)}
                single = [name for name in fields if name in _SINGLE_FIELDS]
                others = [name for name in fields if name not in _SINGLE_FIELDS]
                keys = [fence, self._requests.answer_key(request_id), self._votes(request_id), self._waiting()]
                epoch = brought[-1][1].epoch
                arguments: list[str | int | float] = [epoch, request_id, self._ttl_s, deadline]
                arguments += [int(_TRACK in fields), len(single)]
                for name in (*single, *others):
                    arguments += [name, fields[name].model_dump_json()]
                self._add(keys=keys, args=arguments, client=pipeline)
            pipeline.execute()

    def standing(self, request_ids: Sequence[str]) -> dict[str, Standing]:
        """How far each of the requests is."""
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for request_id in request_ids:
                pipeline.hmget(self._votes(request_id), list(_SINGLE_FIELDS))
                pipeline.hlen(self._votes(request_id))
            replies = pipeline.execute()
        found = {
            request_id: _standing(cast("list[str | None]", replies[2 * i]), cast(int, replies[2 * i + 1]))
            for i, request_id in enumerate(request_ids)
        }
        # There are enough parts: are they those of the track? An index beyond its end is none of them.
        full = [request_id for request_id, standing in found.items() if standing.genre_ended and standing.segments]
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for request_id in full:
                pipeline.hkeys(self._votes(request_id))
            fields = cast("list[list[str]]", pipeline.execute() if full else [])
        for request_id, names in zip(full, fields, strict=True):
            found[request_id] = found[request_id].with_segments(names)
        return found

    def predictions(self, track: IngestedTrack) -> list[SegmentPrediction]:
        """The predictions of the segments of ``track``, by index."""
        segments = 0 if track.audio is None else track.audio.segments
        with redis_faults():
            fields = cast("Mapping[str, str]", self._redis.hgetall(self._votes(track.request_id)))
        found = [SegmentPrediction.model_validate_json(text) for name, text in fields.items() if name[0] == "p"]
        return sorted((one for one in found if one.index < segments), key=lambda prediction: prediction.index)

    def forget(self, request_id: str) -> None:
        """The request is answered."""
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.delete(self._votes(request_id))
            pipeline.zrem(self._waiting(), request_id)
            pipeline.execute()

    def without_news(self, for_s: float, limit: int) -> list[str]:
        """At most ``limit`` requests that wait and have had no part for ``for_s`` seconds, the longest first."""
        until = time.time() + self._deadline_s - for_s
        with redis_faults():
            found = self._redis.zrangebyscore(self._waiting(), "-inf", until, start=0, num=limit)
        return cast("list[str]", found)

    def unfinished(self) -> int:
        """How many requests are announced and not yet answered."""
        with redis_faults():
            return self._redis.zcard(self._waiting())

    def overdue(self, limit: int) -> list[Overdue]:
        """At most ``limit`` requests without news for longer than the deadline."""
        now = time.time()
        with redis_faults():
            late = cast(
                "list[tuple[str, float]]",
                self._redis.zrangebyscore(self._waiting(), "-inf", now, start=0, num=limit, withscores=True),
            )
        standing = self.standing([request_id for request_id, _ in late])
        found = []
        for request_id, deadline in late:
            track = standing[request_id].track
            if track is None:  # parts without a request: nobody to answer
                self.forget(request_id)
                continue
            with redis_faults():
                self._redis.zadd(self._waiting(), {request_id: now + _REMIND_AGAIN_S}, xx=True)
            waited = self._deadline_s + now - deadline
            found.append(Overdue(request_id=request_id, track_key=track.track_key, waited_s=waited))
        return found

    def _votes(self, request_id: str) -> str:
        return self._keys("votes", request_id)

    def _waiting(self) -> str:
        return self._keys("waiting")


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


def _standing(single: list[str | None], fields: int) -> Standing:
    track, mood, failure, overdue = single
    return Standing(
        track=None if track is None else IngestedTrack.model_validate_json(track),
        mood=None if mood is None else MoodPrediction.model_validate_json(mood),
        failure=None if failure is None else GenreFailure.model_validate_json(failure),
        overdue=None if overdue is None else Overdue.model_validate_json(overdue),
        segments=fields - sum(part is not None for part in single),
    )
