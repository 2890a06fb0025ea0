"""The classes: genres, moods and contents, in the order of every model and every array."""

from __future__ import annotations

from typing import Final

GENRES: Final = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip

MOODS: Final = ("calm", "energetic", "happy", "sad")

#: What a recording holds.
CONTENTS: Final = ("music", "speech", "other")
