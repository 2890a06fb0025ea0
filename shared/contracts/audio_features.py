"""The ten audio features that determine the mood: names, order and units, as Spotify's Web API defines them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Final


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """``duration_ms`` in ms, ``tempo`` in BPM, ``loudness`` in dB (LUFS-like, about -60 to 0), the others 0 to 1."""

    duration_ms: float
    tempo: float
    loudness: float
    energy: float
    danceability: float
    acousticness: float
    instrumentalness: float
    liveness: float
    speechiness: float
    valence: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


#: The names, in the order of every array.
AUDIO_FEATURES: Final[tuple[str, ...]] = tuple(field.name for field in fields(AudioFeatures))
