"""The names of unfinished copies, which are no music."""

from __future__ import annotations

from typing import Final

#: A copy in the making: this, 32 hexadecimal digits, and the suffix.
TEMPORARY_PREFIX: Final = ".tonestream-tags-"
TEMPORARY_SUFFIX: Final = ".tmp"


def is_unfinished_copy(name: str) -> bool:
    """Whether a file of this name is a copy that a run is making, or has left behind."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)
