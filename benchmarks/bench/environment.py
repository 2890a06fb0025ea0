"""The environment of everything that is measured, whoever runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
#: The command line, of this very checkout.
TONESTREAM: Final = (sys.executable, "-m", "services.cli.main")


#: The one setting that may be chosen. The others have their defaults.
GENRE_MODEL: Final = "TONESTREAM_GENRE_MODEL"


def choose_genre_model(name: str | None) -> None:
    """Measure with this genre model; None: the default."""
    os.environ.pop(GENRE_MODEL, None)
    if name is not None:
        os.environ[GENRE_MODEL] = name


def chosen_setting() -> dict[str, str]:
    """The setting of the genre model, if one was chosen."""
    return {name: os.environ[name] for name in (GENRE_MODEL,) if name in os.environ}


def child_environment() -> dict[str, str]:
    """That of this process without its settings, but for the genre model; the project's own code comes first.
    TensorFlow says errors only."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")}
    inherited |= chosen_setting()
    return {**inherited, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
