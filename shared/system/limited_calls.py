"""Time limits for calls into code without usable ones, such as the system's resolver or an HTTP client."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Final, TypeVar

from shared.contracts.errors import AbandonedError

Result = TypeVar("Result")

#: An abandoned call returns within this time, seconds.
_SLICE_S: Final = 0.25


class CallTimeoutError(Exception):
    """The call did not end in time."""


class TooBusyError(CallTimeoutError):
    """All slots are occupied by hanging calls."""


class LimitedCalls:
    """Runs calls in threads and waits for each up to a time limit. Safe from many threads.

    A thread whose call hangs cannot be ended, so there are at most ``most_at_once`` of them; further calls wait for a
    slot within their own time limit. The threads do not keep the process alive.
    """

    def __init__(self, name: str, most_at_once: int) -> None:
        self._name = name
        self._places = threading.BoundedSemaphore(most_at_once)

    def call(self, work: Callable[[], Result], timeout_s: float, abandoned: threading.Event | None = None) -> Result:
        """What ``work`` returns or raises.

        Raises CallTimeoutError after ``timeout_s`` seconds, AbandonedError once ``abandoned`` is set.
        """
        deadline = time.monotonic() + timeout_s
        if not self._places.acquire(timeout=max(0.0, timeout_s)):
            raise TooBusyError
        answer: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answer.put((work(), None))
            except BaseException as error:
                answer.put((None, error))
            finally:
                self._places.release()

        try:
            threading.Thread(target=copy_context().run, args=(run,), name=self._name, daemon=True).start()
        except BaseException:
            self._places.release()
            raise
        found, error = _received(answer, deadline, abandoned)
        if error is not None:
            raise error
        return found  # type: ignore[return-value]


def _received(
    answer: queue.SimpleQueue[tuple[Result | None, BaseException | None]],
    deadline: float,
    abandoned: threading.Event | None,
) -> tuple[Result | None, BaseException | None]:
    while True:
        left_s = deadline - time.monotonic()
        try:
            return answer.get(timeout=max(0.0, min(left_s, _SLICE_S)))
        except queue.Empty:
            if abandoned is not None and abandoned.is_set():
                raise AbandonedError from None
            if left_s <= 0:
                raise CallTimeoutError from None
