"""Changes to a recording that should not change its answer: its volume, its codec, its pitch, where it begins."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.audio.decode import SAMPLE_RATE, find_ffmpeg

_CENT: Final = 2.0 ** (1.0 / 1200.0)


@dataclass(frozen=True, slots=True)
class Variation:
    """``options`` of ffmpeg between input and output; ``suffix`` of the output names its format."""

    name: str
    options: tuple[str, ...]
    suffix: str = ".wav"


def _cents(cents: float) -> tuple[str, ...]:
    return ("-af", f"asetrate={SAMPLE_RATE * _CENT**cents:.4f},aresample={SAMPLE_RATE}")


#: By name in the cards. All at 22.05 kHz, 16 bits.
VARIATIONS: Final = (
    Variation("20 dB quieter", ("-af", "volume=-20dB")),
    Variation("40 dB quieter", ("-af", "volume=-40dB")),
    Variation("MP3 of 64 kb/s", ("-b:a", "64k"), ".mp3"),
    Variation("10 cents higher", _cents(10.0)),
    Variation("10 cents lower", _cents(-10.0)),
    Variation("1 s later", ("-ss", "1")),
)


def varied_file(path: Path, variation: Variation, folder: Path) -> Path:
    """``path`` with that variation, as a file in ``folder``. Raises MissingDependencyError, CalledProcessError."""
    made = folder / f"varied{variation.suffix}"
    command = [find_ffmpeg(), "-nostdin", "-v", "error", "-y", "-i", str(path), "-ac", "1", "-ar", str(SAMPLE_RATE)]
    subprocess.run([*command, *variation.options, str(made)], check=True, capture_output=True)
    return made
