"""How a command ends: its exit status, and the error that means wrong usage."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130


class UsageError(Exception):
    """Wrong usage: the arguments ask for something impossible."""
