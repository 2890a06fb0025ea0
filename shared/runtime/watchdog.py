"""The end of a worker that is stuck for good, and the news of servers that go and come back."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import traceback
from typing import Final, NoReturn

from shared.runtime.health import Contact, Pulse, Pulses

log = logging.getLogger(__name__)

#: How long a process that was asked to end may take. It is longer than giving up what is in hand and leaving the group.
STOP_LIMIT_S: Final = 8.0
#: How long the last line of log may take, seconds.
_LAST_WORDS_S: Final = 2.0
#: How much longer than a stall the watchdog itself may be kept from running, before its stacks are written, seconds.
_NATIVE_S: Final = 10.0
_STDERR: Final = 2
#: The longest wait between two looks at a process that was asked to end, seconds.
_LOOK_S: Final = 0.5


class Watchdog:
    """Ends the process when its loop or its batch is stuck for good: a supervisor restarts it.

    It ends without notice, so a batch in hand counts as a crash and goes to another worker. A
    process that was asked to end is ended after ``stop_s``, whatever it is doing.

    The stacks of all threads are logged before. Native code that never gives back Python's lock keeps this thread from
    running as well. Then a timer below Python writes the stacks to standard error, and the health checks, which get no
    answer either, have the process ended.
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
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        seen = False
        while not self._closed.wait(min(_LOOK_S, self._stall_s / 4, self._stop_s / 4)):
            faulthandler.dump_traceback_later(self._stall_s + _NATIVE_S, file=_STDERR)
            if (stopping := self._pulse.seconds_stopping()) > self._stop_s:
                self._end(f"asked to end {stopping:.0f} s ago; ending the process with what does not give way")
            stuck = self._stuck()
            if stuck and seen:
                self._end(f"{stuck}; ending the process to be restarted")
            # Not at once: a process that was paused as a whole needs a chance to move after it wakes.
            seen = stuck is not None

    def _end(self, why: str) -> NoReturn:
        last_words = threading.Thread(target=self._log, args=(why,), name="last-words", daemon=True)
        last_words.start()
        last_words.join(_LAST_WORDS_S)
        if last_words.is_alive():  # whoever is stuck holds a lock of the logging
            faulthandler.dump_traceback(file=_STDERR)
        os._exit(self.EXIT_STATUS)

    @staticmethod
    def _log(why: str) -> None:
        log.critical("%s", why, extra={"stacks": stacks()})
        logging.shutdown()

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
    """Logs when a server of a worker is gone and when it is back, once each."""

    def __init__(self, pulse: Pulse | Pulses, look_every_s: float = 1.0) -> None:
        self._pulse = pulse
        self._away: set[Contact] = set()
        self._closed = threading.Event()
        self._look_every_s = look_every_s
        threading.Thread(target=self._watch, name="attendance", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._look_every_s):
            for contact in self._pulse.contacts:
                if contact.away and contact not in self._away:
                    log.warning("%s has not answered for %.0f s; waiting for it", contact.name, contact.silent_s())
                    self._away.add(contact)
                elif not contact.away and contact in self._away:
                    log.info("%s answers again", contact.name)
                    self._away.remove(contact)
