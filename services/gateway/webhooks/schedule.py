"""When a delivery that failed is tried again, and when it is given up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

#: Waits are longer by up to this share, at random: receivers that went down together are not asked together.
_JITTER: Final = 0.25
#: The longest wait that a receiver may ask for, seconds.
_LONGEST_ASKED_S: Final = 24 * 3600.0
#: While a receiver fails, the waits between two attempts of any kind, seconds.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """``waits_s`` after the first attempt, the second, and so on. Their sum is how long a delivery is tried for."""

    waits_s: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """From seconds separated by commas."""
        return cls(tuple(float(part) for part in text.split(",")))

    def next_wait_s(self, attempts: int, age_s: float, asked_s: float | None) -> float | None:
        """Seconds until the next attempt of a delivery that failed ``attempts`` times and is ``age_s`` old; None if it
        is given up. ``asked_s`` is the wait that the receiver asked for."""
        if age_s >= sum(self.waits_s):
            return None
        wait_s = self.waits_s[min(attempts, len(self.waits_s)) - 1] * (1.0 + _JITTER * random.random())
        return max(wait_s, min(asked_s or 0.0, _LONGEST_ASKED_S))


def pause_s(failures: int, asked_s: float | None) -> float:
    """Seconds for which a receiver that failed ``failures`` times in a row gets nothing at all. Whatever waits for it
    would otherwise be tried at once, again and again."""
    pause: float = min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_S)
    return max(pause * (1.0 + _JITTER * random.random()), min(asked_s or 0.0, _LONGEST_ASKED_S))
