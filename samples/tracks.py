"""The sample tracks: what they are, who made them, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Excerpt:
    """An excerpt of a recording in a package of Debian: ``file`` as `debian-audio.sh music` stores it."""

    name: str
    title: str
    artist: str
    genre: str
    licence: str
    file: str
    start_s: float


@dataclass(frozen=True, slots=True)
class Score:
    """A track that is rendered from ``scores/<name>.mma``."""

    name: str
    title: str
    genre: str
    artist: str = "Tonestream"
    licence: str = "CC0-1.0"


EXCERPTS: Final = (
    Excerpt(
        "bay",
        "Bay",
        "0zone0ne",
        "rock",
        "CC-BY-SA-3.0",
        "supertuxkart-data/music-bay.ogg",
        30.0,
    ),
    Excerpt(
        "cave-at-night",
        "CaveExpress, second track",
        "Martin Gerhardy",
        "jazz",
        "CC-BY-SA-4.0",
        "caveexpress-data/sounds-music-2.ogg",
        20.0,
    ),
    Excerpt(
        "golden-valley",
        "Golden Valley",
        "Unknown Horizons Team",
        "classical",
        "CC-BY-SA-3.0",
        "unknown-horizons/music-goldenvalley.ogg",
        40.0,
    ),
    Excerpt(
        "high-frequency",
        "Sky Vibe - High Frequency",
        "Speedsound, modified by Constantin Pelikan",
        "electronic",
        "CC-BY-SA-3.0",
        "supertuxkart-data/music-SkyVibe-HighFrequency.ogg",
        40.0,
    ),
    Excerpt(
        "internal-degeneration",
        "Internal Degeneration",
        "Muldjord",
        "metal",
        "CC-BY-SA-3.0",
        "fretsonfire-songs-muldjord/internal_degeneration-song.ogg",
        60.0,
    ),
)
SCORES: Final = (Score("gravel-road", "Gravel Road", "country"),)
