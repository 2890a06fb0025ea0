"""What stands in the way of handling a request once more, and which dead letters were replayed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import redis

from shared.state.connection import Keys, redis_faults

#: Keys that stand for a request made and answered. ``outcome``: those that follow it from now on want its new answer.
_STANDING: Final = ("request", "answered", "votes", "outcome")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request is: ``entered`` is where its record stands, ``waiting`` says that it waits for its parts."""

    entered: str | None
    answered: bool
    waiting: bool


class Replays:
    """``ttl_s`` is how long it is remembered that a dead letter was replayed."""

    def __init__(self, client: redis.Redis, keys: Keys, ttl_s: int) -> None:
        self._redis = client
        self._keys = keys
        self._ttl_s = ttl_s

    def progress(self, request_id: str) -> Progress:
        """What Redis knows of a request; as of one never heard of where that has expired."""
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._keys("request", request_id))
            pipeline.exists(self._keys("answered", request_id))
            pipeline.zscore(self._keys("waiting"), request_id)
            entered, answered, waiting = pipeline.execute()
        return Progress(cast("str | None", entered), bool(answered), waiting is not None)

    def reopen(self, request_ids: Iterable[str]) -> None:
        """Forget that these requests were made and answered: their next record counts as the first."""
        with redis_faults():
            pipeline = self._redis.pipeline()
            for request_id in request_ids:
                pipeline.delete(*(self._keys(kind, request_id) for kind in _STANDING))
                pipeline.zrem(self._keys("waiting"), request_id)
            pipeline.execute()

    def mark(self, letters: Iterable[str]) -> None:
        """Remember that these dead letters (by ID) were replayed."""
        now = str(int(time.time()))
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for letter in letters:
                pipeline.set(self._keys("replayed", letter), now, ex=self._ttl_s)
            pipeline.execute()

    def marked(self, letters: Sequence[str]) -> set[str]:
        """Those of the dead letters that were replayed."""
        if not letters:
            return set()
        with redis_faults():
            found = cast("list[str | None]", self._redis.mget([self._keys("replayed", letter) for letter in letters]))
        return {letter for letter, when in zip(letters, found, strict=True) if when is not None}
