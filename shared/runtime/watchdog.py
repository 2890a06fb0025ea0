"""The end of a worker that is stuck for good."""

from __future__ import annotations

import logging
import os
import threading

from shared.runtime.health import Pulse, Pulses

log = logging.getLogger(__name__)


class Watchdog:
    """Ends the process when a batch is stuck for good: a supervisor restarts it, and the batch goes to another.

    It ends without a word to anybody, so the batch counts as one that a worker died of.
    """

    EXIT_STATUS = 70

    def __init__(self, pulse: Pulse | Pulses, stall_s: float) -> None:
        self._pulse = pulse
        self._stall_s = stall_s
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(5.0, self._stall_s / 4)):
            stuck = self._pulse.seconds_in_batch()
            if stuck > self._stall_s:
                log.critical("stuck in one batch for %.0f s; ending the process to be restarted", stuck)
                logging.shutdown()
                os._exit(self.EXIT_STATUS)
