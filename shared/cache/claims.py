"""Doing a thing once although records are delivered again: whoever claims it first, by the record it came in, owns it.

The claim holds the record's coordinates (topic, partition, offset). A redelivery has the same ones and may go on; any
other record finds the thing claimed. So a claim needs no undoing when its unit of work is not committed: the record
comes again, to whichever worker, and is recognised.
"""

from __future__ import annotations

from typing import cast

import redis

from shared.cache.connection import Keys, redis_faults


class Claims:
    """One kind of claim (``kind`` names it) by request ID."""

    def __init__(self, client: redis.Redis, keys: Keys, kind: str, ttl_s: int) -> None:
        self._redis = client
        self._keys = keys
        self._kind = kind
        self._ttl_s = ttl_s

    def claim(self, request_id: str, coordinates: str) -> bool:
        """Whether the record at ``coordinates`` is the one that may do it."""
        key = self._keys(self._kind, request_id)
        with redis_faults():
            if self._redis.set(key, coordinates, nx=True, ex=self._ttl_s):
                return True
            return cast("str | None", self._redis.get(key)) == coordinates

    def holders(self, request_ids: list[str]) -> dict[str, str]:
        """The coordinates that hold the claims on ``request_ids``; unclaimed ones are left out."""
        if not request_ids:
            return {}
        with redis_faults():
            found = cast("list[str | None]", self._redis.mget([self._keys(self._kind, id_) for id_ in request_ids]))
        return {id_: holder for id_, holder in zip(request_ids, found, strict=True) if holder is not None}
