"""Two lanes, so that a slow server delays nobody else: how long a try may take in each, and when there is another.

Every request gets a short try in the first lane. What is slow, or failed for the moment, goes on through the retry
topic into the second lane. There a request may be fetched for ``fetch_s`` seconds in all its tries together, and waits
for ``pauses_s`` seconds at most between them. So fetching one request takes no longer than the first lane's try, these
two, and the wait for a place in the second lane.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.runtime.policy import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, backoff_s
from shared.runtime.retries import RetryNote

#: With less time left than this, seconds, there is no further try.
_SHORTEST_TRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Lane:
    """``fetch_s`` is for one try: names, look-ups, redirects and the download. ``last``: no other lane is behind it."""

    fetch_s: float
    decode_s: float
    last: bool


class CutShortError(TransientError):
    """The first lane has no more time for this. It does not count as a failed try."""


class Try:
    """One try of a request in a lane, and its time for fetching."""

    def __init__(
        self, lane: Lane, note: RetryNote, abandoned: threading.Event, queueing: Callable[[], None] = lambda: None
    ) -> None:
        self.abandoned = abandoned
        self.queueing = queueing
        self._began = time.monotonic()
        self._limit_s = lane.fetch_s - (note.spent_ms / 1000 if lane.last else 0.0)
        self._fetched_s: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds left for fetching."""
        return max(0.0, self._began + self._limit_s - time.monotonic())

    def fetched(self) -> None:
        """The file is here; what follows is no fetching."""
        self._fetched_s = time.monotonic() - self._began

    @property
    def spent_s(self) -> float:
        """Seconds spent on fetching."""
        return time.monotonic() - self._began if self._fetched_s is None else self._fetched_s


@dataclass(frozen=True, slots=True)
class Patience:
    """``attempts`` that may fail; seconds of fetching in the second lane and of pauses, all tries together."""

    attempts: int
    fetch_s: float
    pauses_s: float

    def next_try(self, note: RetryNote, fault: TransientError, tried: Try, lane: Lane, now_ms: int) -> RetryNote | None:
        """The note for the next try; None if the fault is final."""
        first_error = note.first_error or f"{fault.code.value}: {fault.message}"
        slow = fault.code is ErrorCode.FETCH_TIMEOUT or isinstance(fault, CutShortError) or not tried.left_s
        if slow and not lane.last:
            return replace(note, not_before_ms=now_ms, first_error=first_error)
        attempt = note.attempt + 1
        pause_s = max(backoff_s(attempt, FIRST_BACKOFF_S, LONGEST_BACKOFF_S), fault.retry_after_s or 0.0)
        pause_ms = int(pause_s * 1000)
        spent_ms = note.spent_ms + (int(tried.spent_s * 1000) if lane.last else 0)
        if (
            attempt >= self.attempts
            or note.waited_ms + pause_ms > self.pauses_s * 1000
            or spent_ms > (self.fetch_s - _SHORTEST_TRY_S) * 1000
        ):
            return None
        return replace(
            note,
            attempt=attempt,
            not_before_ms=now_ms + pause_ms,
            waited_ms=note.waited_ms + pause_ms,
            spent_ms=spent_ms,
            first_error=first_error,
        )

    def wait_s(self, note: RetryNote, now_ms: int) -> float:
        """Seconds until the next try, at most the sum of all pauses, even if a clock is wrong."""
        return min(max(0.0, (note.not_before_ms - now_ms) / 1000), self.pauses_s)


def final(fault: TransientError, note: RetryNote) -> TonestreamError:
    """The fault as the final answer, with that of the first try if it differed."""
    code, _, first = note.first_error.partition(": ")
    more = f"; the first try failed with: {first}" if first and code != fault.code.value else ""
    return TonestreamError(fault.code, f"{fault.message}{more}")
