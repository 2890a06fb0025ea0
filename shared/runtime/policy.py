"""How patient a loop is."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """How patient the loop is. Times in seconds.

    ``retry_budget_s`` bounds the waiting of one batch; together with a batch's work it should stay below the bus's
    poll interval, though ``keep_alive_s`` keeps a slower worker in its group. ``keep_alive_s`` None: the bus knows no
    poll interval, and the batch is handled in the loop's own thread. ``dead_letter_limit`` is the most dead letters
    of a minute; 0 for any number. ``longest_wait_s`` is how soon a server that came back is noticed.
    Messages of a newer version wait ``newer_wait_s`` for an upgraded worker before they go to the dead letters.
    At a stop, work under way has ``stop_grace_s`` to finish. Then it is left to another worker.

    ``pack`` halves features on the bus, which is worth its cost where they cross a network and are stored.
    """

    batch_records: int
    poll_s: float = 1.0
    tick_s: float = 5.0
    pause_s: float = 0.5
    retry_attempts: int = 3
    retry_budget_s: float = 30.0
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 20.0
    longest_wait_s: float = 5.0
    keep_alive_s: float | None = 1.0
    dead_letter_limit: int = 0
    stop_grace_s: float = 3.0
    pack: bool = False
    newer_wait_s: float = 0.0

    def backoff_s(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return backoff_s(failures, self.first_backoff_s, self.longest_backoff_s)

    def wait_s(self, failures: int) -> float:
        """How long to wait before a server that is away is asked again."""
        return min(self.backoff_s(failures), self.longest_wait_s)


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """Exponential backoff with jitter of up to half a step, so that many workers do not come back at once."""
    step = min(longest_s, first_s * 2.0 ** min(failures - 1, 16))
    return random.uniform(step / 2, step)
