"""Which dead letters were replayed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import cast

import redis

from shared.state.connection import redis_faults
from shared.state.keys import Keys


class Replays:
    """``ttl_s`` is how long it is remembered that a dead letter was replayed."""

    def __init__(self, client: redis.Redis, keys: Keys, ttl_s: int) -> None:
        self._redis = client
        self._keys = keys
        self._ttl_s = ttl_s

    def mark(self, letters: Iterable[str]) -> None:
        """Remember that these dead letters (by ID) were replayed."""
        now = str(int(time.time()))
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for letter in letters:
                pipeline.set(self._keys.replayed(letter), now, ex=self._ttl_s)
            pipeline.execute()

    def marked(self, letters: Sequence[str]) -> set[str]:
        """Those of the dead letters that were replayed."""
        if not letters:
            return set()
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for letter in letters:
                pipeline.get(self._keys.replayed(letter))
            found = cast("list[str | None]", pipeline.execute())
        return {letter for letter, when in zip(letters, found, strict=True) if when is not None}
