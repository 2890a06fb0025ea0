"""Whether Redis answers, also while no record needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis

from shared.contracts.errors import DependencyError
from shared.state.keys import Keys
from shared.state.layout import NewerStateError, require_own_layout


class RedisProbe:
    """Asks now and then, in a thread of its own. ``client`` should have short timeouts.

    ``moved_on`` is called once if the state turns out to be that of a newer version, whose first worker has started.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        moved_on: Callable[[NewerStateError], None] = lambda error: None,
        every_s: float = 2.0,
    ) -> None:
        self._client = client
        self._keys = keys
        self._moved_on = moved_on
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
            try:
                require_own_layout(self._client, self._keys)
            except NewerStateError as error:
                self._moved_on(error)
                return
            except (DependencyError, redis.RedisError, OSError):
                continue
            self._last = time.monotonic()
