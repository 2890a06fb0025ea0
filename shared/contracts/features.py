"""The ten audio features the mood is read from: names, order and units, as Spotify's Web API defines them."""

from __future__ import annotations

from typing import Final

#: ``duration_ms`` in ms, ``tempo`` in BPM, ``loudness`` in dB (LUFS-like, about -60 to 0), the others 0 to 1.
AUDIO_FEATURES: Final = (
    "duration_ms",
    "tempo",
    "loudness",
    "energy",
    "danceability",
    "acousticness",
    "instrumentalness",
    "liveness",
    "speechiness",
    "valence",
)
