"""The end of a worker that is stuck for good, and the news of servers that go and come back."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import Final, NoReturn

from shared.runtime.health import Pulse, Pulses
from shared.runtime.outages import Outages

log = logging.getLogger(__name__)

#: How long a process that was asked to end may take. It is longer than giving up what is in hand and leaving the group.
STOP_LIMIT_S: Final = 8.0
#: The longest wait between two looks at a process that was asked to end, seconds.
_LOOK_S: Final = 0.5


class Watchdog:
    """Ends the process when its loop or its batch is stuck for good: a supervisor restarts it.

    It ends without a word to anybody, so a batch in hand counts as one that a worker died of, and goes to another. A
    process that was asked to end is ended after ``stop_s``, whatever it is doing.
    """

    EXIT_STATUS = 70

    def __init__(self, pulse: Pulse | Pulses, stall_s: float, stop_s: float = STOP_LIMIT_S) -> None:
        self._pulse = pulse
        self._stall_s = stall_s
        self._stop_s = stop_s
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        seen = False
        while not self._closed.wait(min(_LOOK_S, self._stall_s / 4, self._stop_s / 4)):
            if (stopping := self._pulse.seconds_stopping()) > self._stop_s:
                self._end(f"asked to end {stopping:.0f} s ago; ending the process with what does not give way")
            stuck = self._stuck()
            if stuck and seen:
                self._end(f"{stuck}; ending the process to be restarted")
            # Not at once: a process that was paused as a whole, and wakes, first has to get a chance to move.
            seen = stuck is not None

    def _end(self, why: str) -> NoReturn:
        log.critical("%s", why, extra={"stacks": stacks()})
        logging.shutdown()
        os._exit(self.EXIT_STATUS)

    def _stuck(self) -> str | None:
        still = self._pulse.seconds_without_move()
        if still > self._stall_s:
            return f"the loop has not moved for {still:.0f} s"
        batch = self._pulse.seconds_in_batch()
        return f"stuck in one batch for {batch:.0f} s" if batch > self._stall_s else None


def stacks() -> str:
    """What every thread of this process is doing."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


class Attendance:
    """Watches the servers of a worker, also while no record needs them."""

    def __init__(self, pulse: Pulse | Pulses, outages: Outages, look_every_s: float = 1.0) -> None:
        self._pulse = pulse
        self._outages = outages
        self._closed = threading.Event()
        self._look_every_s = look_every_s
        threading.Thread(target=self._watch, name="attendance", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._look_every_s):
            for contact in self._pulse.contacts:
                if contact.away:
                    silent_s = contact.silent_s()
                    self._outages.missed(contact.name, self, f"no answer for {silent_s:.0f} s", silent_s)
                else:
                    self._outages.reached(contact.name, self)
