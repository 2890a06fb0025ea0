"""The bundled samples: six short tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: The repository.
ROOT: Final = Path(__file__).resolve().parents[2]
#: All of them, in order of their names.
SAMPLES: Final = sorted((ROOT / "samples").glob("*.mp3"))
#: One of them.
SAMPLE: Final = SAMPLES[0]
