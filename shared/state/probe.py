"""Whether Redis answers, also while no record needs it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import redis


class RedisProbe:
    """Asks now and then, in a thread of its own. ``client`` should have short timeouts."""

    def __init__(self, client: redis.Redis, every_s: float = 2.0) -> None:
        self._client = client
        self._every_s = every_s
        self._last = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._ask, name="redis-probe", daemon=True).start()

    def silent_s(self) -> float:
        """Seconds since it last answered."""
        return time.monotonic() - self._last

    def close(self) -> None:
        self._closed.set()

    def _ask(self) -> None:
        while not self._closed.wait(self._every_s):
            # Callers that need Redis report its faults. Here only the time of the last answer counts.
            with suppress(redis.RedisError, redis.exceptions.RedisClusterException, OSError):
                self._client.ping()
                self._last = time.monotonic()
