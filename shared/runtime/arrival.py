"""Waiting at the start for the servers that a worker needs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from shared.bus.base import BusUnavailableError
from shared.runtime.health import Pulse
from shared.runtime.stopping import StopRequest

log = logging.getLogger(__name__)

Reached = TypeVar("Reached")

_PAUSE_S: Final = 1.0


class AwayError(Exception):
    """The server gives no answer, and may give one later."""


class StoppedEarlyError(Exception):
    """The process was asked to end while it waited."""


class _Attempt(Generic[Reached]):
    """One attempt, in a thread that is left behind when the process ends: an attempt cannot be interrupted."""

    def __init__(self, reach: Callable[[], Reached]) -> None:
        self._reach = reach
        self._result: list[Reached] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="arrival", daemon=True).start()

    def result(self, stopping: StopRequest) -> Reached:
        """What ``reach`` returned or raised. Raises StoppedEarlyError."""
        while not self._done.wait(0.05):
            if stopping.is_set():
                raise StoppedEarlyError
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._reach())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()


def wait_for(name: str, reach: Callable[[], Reached], pulse: Pulse, stopping: StopRequest) -> Reached:
    """What ``reach`` returns, once the server ``name`` answers. One line of log says that it is away, one that it came.

    Raises StoppedEarlyError, and errors of ``reach`` that waiting cannot mend.
    """
    away = False
    pulse.waiting(f"{name} has not answered yet")
    while not stopping.is_set():
        try:
            reached = _Attempt(reach).result(stopping)
        except (AwayError, BusUnavailableError) as error:
            pulse.waiting(f"{name} is away: {error}")
            if not away:
                log.warning("%s is away; waiting for it: %s", name, error)
            away = True
            stopping.wait(_PAUSE_S)
            continue
        pulse.waiting(None)
        if away:
            log.info("%s is there", name)
        return reached
    raise StoppedEarlyError
