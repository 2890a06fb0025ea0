"""How a command ends: its exit status, and the error that means wrong usage."""

from __future__ import annotations

import signal
from typing import Final

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130


class UsageError(Exception):
    """Wrong usage: the arguments ask for something impossible."""


class EndedError(KeyboardInterrupt):
    """The process was asked to end by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
