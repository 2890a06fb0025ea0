"""One request does the work, those that want the same at the same time follow it and get its answer.

A piece of work (a source to fetch, audio to classify) is led by the first request that asks for it. The next ones are
noted as its followers. What makes that safe without locks: leading and following are one step in Redis, and a request
whose answer is claimed can no longer be followed. The answer is claimed before the lead is ended and the followers are
read. So a follower is either read then, or it has become the leader of the next go.

All of it may be repeated: a redelivered request finds that it leads already, and ending a lead twice reads the same
followers twice, until they are forgotten. A lead that nobody ends, because its request never gets an answer, expires
with the time in which a request is answered.
"""

from __future__ import annotations

from typing import Final, cast

import redis
from pydantic import ValidationError

from shared.bus.base import Record
from shared.contracts.messages import TrackResult
from shared.state.connection import Keys, redis_faults
from shared.state.fences import GUARD, Fences
from shared.state.requests import Requests

#: KEYS: fence, the work, the request's own answer. ARGV: epoch, request ID, prefixes of the keys of followers, leads
#: and answers, seconds to live, seconds that a lead lasts.
_LEAD_OR_FOLLOW: Final = f"""
{GUARD}
local leader = redis.call('GET', KEYS[2])
if leader and leader ~= ARGV[2] and redis.call('EXISTS', ARGV[5] .. leader) == 0 then
    redis.call('SADD', ARGV[3] .. leader, ARGV[2])
    redis.call('EXPIRE', ARGV[3] .. leader, ARGV[6])
    return leader
end
if redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[7])
    redis.call('SADD', ARGV[4] .. ARGV[2], KEYS[2])
    redis.call('EXPIRE', ARGV[4] .. ARGV[2], ARGV[6])
end
return false
"""

#: KEYS: leads and followers of the request; ARGV: request ID.
_END: Final = """
for _, work in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if redis.call('GET', work) == ARGV[1] then
        redis.call('DEL', work)
    end
end
return redis.call('SMEMBERS', KEYS[2])
"""


class Followers:
    """Who leads which work, who follows whom, and what the followed ones were answered.

    Everything expires after ``ttl_s``, at least as long as a request may be under way; a lead after ``lead_s``.
    ``requests`` knows which are answered, ``fences`` are those of the service whose records lead and follow.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, requests: Requests, fences: Fences, ttl_s: int, lead_s: float
    ) -> None:
        self._redis = client
        self._keys = keys
        self._requests = requests
        self._fences = fences
        self._ttl_s = ttl_s
        self._lead_s = max(1, round(lead_s))
        self._lead_or_follow = client.register_script(_LEAD_OR_FOLLOW)
        self._end = client.register_script(_END)

    def follow(self, request_id: str, work: str, record: Record) -> str | None:
        """The request that ``request_id`` follows from now on in ``work``; None where it is to do the work itself.

        It leads then, unless it is answered already. ``record`` is the one that asks. Raises FencedError,
        DependencyError.
        """
        keys = [self._fences.key(record), self._keys("work", work), self._requests.answer_key(request_id)]
        prefixes = [self._followers(""), self._leads(""), self._requests.answer_key("")]
        arguments: list[str | int] = [record.epoch, request_id, *prefixes, self._ttl_s, self._lead_s]
        with redis_faults():
            leader = self._lead_or_follow(keys=keys, args=[*arguments])
        return cast("str | None", leader)

    def end(self, request_id: str, result: TrackResult) -> list[str]:
        """``request_id`` leads nothing any more. The requests that followed it, for which ``result`` is kept."""
        with redis_faults():
            found = self._end(keys=[self._leads(request_id), self._followers(request_id)], args=[request_id])
            followers = sorted(cast("list[str]", found))
            if followers:
                self._redis.set(self._outcome(request_id), result.model_dump_json(), ex=self._ttl_s)
        return followers

    def outcome(self, leader: str) -> TrackResult | None:
        """The answer of a request that had followers when it ended; None before, or where it is not readable."""
        with redis_faults():
            text = cast("str | None", self._redis.get(self._outcome(leader)))
        try:
            return None if text is None else TrackResult.model_validate_json(text)
        except ValidationError:
            return None

    def forget(self, request_id: str) -> None:
        """The request is closed. What was answered stays until it expires: a follower may still be on its way."""
        with redis_faults():
            self._redis.delete(self._leads(request_id), self._followers(request_id))

    def _leads(self, request_id: str) -> str:
        return self._keys("leads", request_id)

    def _followers(self, request_id: str) -> str:
        return self._keys("followers", request_id)

    def _outcome(self, request_id: str) -> str:
        return self._keys("outcome", request_id)
