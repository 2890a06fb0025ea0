"""Request coalescing: one request does the work, and those that want the same at the same time get its answer.

The first request that asks for a piece of work (a source to fetch, audio to classify) leads it. The next ones follow.
Two facts make that safe without locks: leading and following are one step in Redis, and a request whose answer is
claimed can no longer be followed. The answer is claimed before the lead is ended and the followers are read. So a
follower is either read then, or it has become the next leader.

Every step may be repeated. A redelivered request finds that it leads already. Ending a lead twice reads the same
followers twice, until they are forgotten. If a request never gets an answer, nobody ends its lead. The lead then
expires after the time in which a request is answered.
"""

from __future__ import annotations

from typing import Final, cast

from pydantic import ValidationError

from shared.bus.base import Record
from shared.contracts.messages import TrackResult
from shared.state.connection import redis_faults
from shared.state.fences import GUARD
from shared.state.requests import ANSWER, ANSWERED_BY, FOLLOWER, WORK, Requests

#: KEYS: fence, the work, the request. ARGV: epoch, request ID, prefix of the keys of requests, seconds to live, seconds
#: that a lead lasts.
_LEAD_OR_FOLLOW: Final = f"""
{GUARD}
local leader = redis.call('GET', KEYS[2])
if leader and leader ~= ARGV[2] and redis.call('HEXISTS', ARGV[3] .. leader, '{ANSWERED_BY}') == 0 then
    redis.call('HSET', ARGV[3] .. leader, '{FOLLOWER}' .. ARGV[2], '1')
    redis.call('EXPIRE', ARGV[3] .. leader, ARGV[4])
    return leader
end
if redis.call('HEXISTS', KEYS[3], '{ANSWERED_BY}') == 0 then
    redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[5])
    redis.call('HSET', KEYS[3], '{WORK}' .. KEYS[2], '1')
    redis.call('EXPIRE', KEYS[3], ARGV[4])
end
return false
"""

#: KEYS: the request. ARGV: request ID, its answer, to be kept if it has followers.
_END: Final = f"""
local followers = {{}}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, {len(WORK)}) == '{WORK}' then
        local work = string.sub(field, {len(WORK)} + 1)
        if redis.call('GET', work) == ARGV[1] then redis.call('DEL', work) end
    elseif string.sub(field, 1, {len(FOLLOWER)}) == '{FOLLOWER}' then
        followers[#followers + 1] = string.sub(field, {len(FOLLOWER)} + 1)
    end
end
if #followers > 0 then redis.call('HSET', KEYS[1], '{ANSWER}', ARGV[2]) end
return followers
"""


class Coalescing:
    """Who leads which work, who follows whom, and what the leaders were answered: in the state of the requests."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._lead_s = max(1, round(requests.deadline_s))
        self._lead_or_follow = requests.client.register_script(_LEAD_OR_FOLLOW)
        self._end = requests.client.register_script(_END)

    def lead_or_follow(self, request_id: str, work: str, record: Record) -> str | None:
        """The request that ``request_id`` follows from now on in ``work``; None if it is to do the work itself.

        It leads then, unless it is answered already. ``record`` is the one that asks. Raises FencedError,
        DependencyError.
        """
        requests = self._requests
        keys = [requests.fences.key(record), requests.keys.work(work), requests.keys.request(request_id)]
        arguments: list[str | int] = [record.epoch, request_id, requests.keys.request(""), requests.ttl_s, self._lead_s]
        with redis_faults():
            return cast("str | None", self._lead_or_follow(keys=keys, args=arguments))

    def end(self, request_id: str, result: TrackResult) -> list[str]:
        """``request_id`` leads nothing any more. Returns its followers, and keeps ``result`` for them."""
        with redis_faults():
            arguments = [request_id, result.model_dump_json()]
            followers = self._end(keys=[self._requests.keys.request(request_id)], args=arguments)
        return sorted(cast("list[str]", followers))

    def answer_of(self, leader: str) -> TrackResult | None:
        """The answer of a request that had followers when it ended; None before, or where it is not readable."""
        with redis_faults():
            text = cast("str | None", self._requests.client.hget(self._requests.keys.request(leader), ANSWER))
        try:
            return None if text is None else TrackResult.model_validate_json(text)
        except ValidationError:
            return None
