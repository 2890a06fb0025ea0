"""The environment of everything that is measured, whoever runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
#: The command line, of this very checkout.
TONESTREAM: Final = (sys.executable, "-m", "services.cli.main")


def child_environment() -> dict[str, str]:
    """That of this process without its settings; the project's own code comes first. TensorFlow says errors only."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
