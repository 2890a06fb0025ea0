"""How fast work goes, and how long the rest takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: The rate is that of so many last pieces of work.
_LAST: Final = 100
#: Fewer say nothing yet.
_FEWEST: Final = 3


class Pace:
    """Pieces of work per second, over the last hundred."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times = deque([clock()], maxlen=_LAST + 1)

    def add(self) -> None:
        """One more piece is done."""
        self._times.append(self._clock())

    @property
    def rate(self) -> float | None:
        """Pieces per second, until now: it falls while nothing is done. None before there is something to say."""
        done = len(self._times) - 1
        passed = self._clock() - self._times[0]
        return done / passed if done >= _FEWEST and passed > 0 else None

    def left_s(self, pieces: int) -> float | None:
        """How long so many further pieces take, in seconds."""
        rate = self.rate
        return pieces / rate if rate else None


def span(seconds: float) -> str:
    """``4 s``, ``3:05 min``, ``2:14 h``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d} h"
    return f"{whole // 86400} d {whole // 3600 % 24} h"


def shown_rate(per_second: float) -> str:
    """``2.4/s``, ``12/min``."""
    return f"{per_second:.1f}/s" if per_second >= 0.95 else f"{60 * per_second:.0f}/min"
