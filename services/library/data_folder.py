"""The user's folder for data, after the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """``$XDG_DATA_HOME/tonestream``, or ``~/.local/share/tonestream``. A relative path in the variable is invalid."""
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".local" / "share") / "tonestream"
