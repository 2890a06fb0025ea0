"""SIGTERM and SIGINT: the request that a worker stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

#: How long a signal may go unnoticed, seconds.
_LOOK_S: Final = 0.2


class StopRequest:
    """Whether the process was asked to end.

    Python runs a signal handler in the main thread, between any two of its steps. The main thread may hold any lock at
    that moment, so the handler takes none. A signal that arrives just before a wait of the main thread begins does not
    interrupt that wait, so the main thread waits in short slices.
    """

    def __init__(self, asked: Callable[[], None]) -> None:
        """``asked`` is called by the handler: it must hold no lock either."""
        self._asked = asked
        self._signal: int | None = None

    def listen(self) -> None:
        """Become the handler of the signals. For the main thread only."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self._asked()

    def is_set(self) -> bool:
        return self._signal is not None

    @property
    def name(self) -> str:
        """The name of the signal that came, empty if none did."""
        return "" if self._signal is None else signal.Signals(self._signal).name

    def wait(self, timeout_s: float, ended: Callable[[], bool] = bool) -> None:
        """Return when the process is asked to end, ``ended`` is true, or ``timeout_s`` seconds have passed."""
        deadline = time.monotonic() + timeout_s
        while not self.is_set() and not ended() and (left_s := deadline - time.monotonic()) > 0.0:
            time.sleep(min(_LOOK_S, left_s))
