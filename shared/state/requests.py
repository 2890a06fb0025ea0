"""How far each request is: entered by one record, answered by one record, closed for good.

A claim holds the coordinates of the record that made it. A redelivery has the same ones and may go on; any other record
finds the thing claimed. So a claim needs no undoing when its unit of work is not committed: the record comes again, to
whichever worker, and is recognised. Once the answer is committed the request is closed, and from then on no record may
do anything for it, not even the one that answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import redis

from shared.bus.base import Record
from shared.state.connection import Keys, redis_faults
from shared.state.fences import GUARD, Fences

#: How the claim to answer a request begins once the answer is committed.
_CLOSED: Final = "closed "

#: ``GUARD``, and behind it the end, with 0, for a request that is closed. KEYS[2]: the claim to answer the request.
OPEN_GUARD: Final = f"""
{GUARD}
local answer = redis.call('GET', KEYS[2])
if answer and string.sub(answer, 1, {len(_CLOSED)}) == '{_CLOSED}' then return 0 end
"""

#: KEYS: fence, the answer's claim, the claim. ARGV: epoch, coordinates, seconds to live.
_CLAIM: Final = f"""
{OPEN_GUARD}
local holder = redis.call('GET', KEYS[3])
if not holder then
    redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
    return 1
end
return holder == ARGV[2] and 1 or 0
"""

#: KEYS: the answer's claim. ARGV: coordinates, seconds to live.
_CLOSE: Final = f"""
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
    redis.call('SET', KEYS[1], '{_CLOSED}' .. ARGV[1], 'EX', ARGV[2])
    return 1
end
return holder == '{_CLOSED}' .. ARGV[1] and 1 or 0
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """The record that answers a request, by its coordinates; ``closed`` once that is committed."""

    coordinates: str
    closed: bool


class Requests:
    """The state of requests by their IDs. ``fences`` are those of the service whose records make the claims."""

    def __init__(self, client: redis.Redis, keys: Keys, fences: Fences, ttl_s: int) -> None:
        self._redis = client
        self._keys = keys
        self._fences = fences
        self._ttl_s = ttl_s
        self._claim_script = client.register_script(_CLAIM)
        self._close_script = client.register_script(_CLOSE)

    def enter(self, request_id: str, record: Record, entered: str | None = None) -> bool:
        """Whether ``record`` is the one that makes the request, or carries it on.

        In the latter case ``entered`` gives the coordinates of the one that made it. Raises FencedError,
        DependencyError.
        """
        return self._claim(self._keys("request", request_id), request_id, record, entered or record.coordinates)

    def answer(self, request_id: str, record: Record) -> bool:
        """Whether ``record`` is the one that answers the request. Raises FencedError, DependencyError."""
        return self._claim(self.answer_key(request_id), request_id, record, record.coordinates)

    def close(self, request_id: str, coordinates: str) -> bool:
        """The answer by the record at ``coordinates`` is committed. False where another record answers, or none."""
        with redis_faults():
            closed = self._close_script(keys=[self.answer_key(request_id)], args=[coordinates, self._ttl_s])
        return bool(closed)

    def answers(self, request_ids: Sequence[str]) -> Mapping[str, Answer]:
        """The records that answer the requests; those without one are left out."""
        if not request_ids:
            return {}
        with redis_faults():
            found = cast("list[str | None]", self._redis.mget([self.answer_key(id_) for id_ in request_ids]))
        return {
            request_id: Answer(holder.removeprefix(_CLOSED), holder.startswith(_CLOSED))
            for request_id, holder in zip(request_ids, found, strict=True)
            if holder is not None
        }

    def answer_key(self, request_id: str) -> str:
        """Where the claim to answer the request is: other scripts look there, too."""
        return self._keys("answered", request_id)

    def _claim(self, key: str, request_id: str, record: Record, coordinates: str) -> bool:
        keys = [self._fences.key(record), self.answer_key(request_id), key]
        with redis_faults():
            return bool(self._claim_script(keys=keys, args=[record.epoch, coordinates, self._ttl_s]))
