"""How much one client may ask for: token buckets, one a client, and only so many."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
#: Buckets that are kept. The one that was unused for the longest goes first, and would be full again soon.
_MOST_CLIENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """``quota`` units within ``window_s`` seconds; as many may come at once."""

    quota: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``600/minute``. Raises ValueError."""
        quota, _, unit = text.partition("/")
        if unit not in _SECONDS:
            raise ValueError(f"{text!r} is no rate")
        return cls(int(quota), _SECONDS[unit])


@dataclass(frozen=True, slots=True)
class Allotment:
    """What a client has left: ``remaining`` units, and ``wait_s`` seconds until there is room again if it was
    ``refused``, else until its bucket is full."""

    refused: bool
    remaining: int
    wait_s: int


class Limiter:
    """Buckets that fill at ``rate``. Safe from many threads."""

    def __init__(
        self, rate: Rate, clock: Callable[[], float] = time.monotonic, most_clients: int = _MOST_CLIENTS
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._most_clients = most_clients
        self._lock = threading.Lock()
        #: The units in each client's bucket, and when that was so.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, units: int = 1) -> Allotment:
        """Take so many units from the client's bucket, if there is room. What is more than a whole bucket is taken
        from a full one, which is then empty for as long as that takes to fill."""
        now = self._clock()
        per_s = self.rate.quota / self.rate.window_s
        with self._lock:
            held, since = self._buckets.pop(client, (float(self.rate.quota), now))
            held = min(float(self.rate.quota), held + (now - since) * per_s)
            needed = min(units, self.rate.quota)
            refused = held < needed
            if not refused:
                held -= units
            self._buckets[client] = (held, now)
            if len(self._buckets) > self._most_clients:
                self._buckets.popitem(last=False)
        missing = needed - held if refused else self.rate.quota - held
        return Allotment(refused, max(0, int(held)), max(1 if refused else 0, math.ceil(missing / per_s)))
