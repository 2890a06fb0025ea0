"""One request does the work, those that want the same at the same time follow it and get its answer.

A piece of work (a source to fetch, audio to classify) is led by the first request that asks for it. The next ones are
noted as its followers. What makes that safe without locks: leading and following are one step in Redis, and so are
ending the lead and reading who follows. So a follower is either read by whoever ends the lead, or it has become the
leader of the next go.

All of it may be repeated: a redelivered request finds that it leads already, and ending a lead twice reads the same
followers twice, until they are forgotten.
"""

from __future__ import annotations

from typing import Final, cast

import redis
from pydantic import ValidationError

from shared.cache.connection import Keys, redis_faults
from shared.contracts.messages import TrackResult

#: KEYS: the work; ARGV: request ID, prefix of followers' keys, prefix of leads' keys, seconds to live.
_LEAD_OR_FOLLOW: Final = """
local leader = redis.call('GET', KEYS[1])
if not leader or leader == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[4])
    redis.call('SADD', ARGV[3] .. ARGV[1], KEYS[1])
    redis.call('EXPIRE', ARGV[3] .. ARGV[1], ARGV[4])
    return false
end
redis.call('SADD', ARGV[2] .. leader, ARGV[1])
redis.call('EXPIRE', ARGV[2] .. leader, ARGV[4])
return leader
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

    Everything expires after ``ttl_s``: at least as long as a request may be under way.
    """

    def __init__(self, client: redis.Redis, keys: Keys, ttl_s: int) -> None:
        self._redis = client
        self._keys = keys
        self._ttl_s = ttl_s
        self._lead_or_follow = client.register_script(_LEAD_OR_FOLLOW)
        self._end = client.register_script(_END)

    def follow(self, request_id: str, work: str) -> str | None:
        """The request that ``request_id`` follows from now on in ``work``; None where it leads."""
        arguments = [request_id, self._followers(""), self._leads(""), str(self._ttl_s)]
        with redis_faults():
            leader = self._lead_or_follow(keys=[self._keys("work", work)], args=arguments)
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
        """The answers are out. What was answered stays until it expires: a follower may still be on its way."""
        with redis_faults():
            self._redis.delete(self._leads(request_id), self._followers(request_id))

    def _leads(self, request_id: str) -> str:
        return self._keys("leads", request_id)

    def _followers(self, request_id: str) -> str:
        return self._keys("followers", request_id)

    def _outcome(self, request_id: str) -> str:
        return self._keys("outcome", request_id)
