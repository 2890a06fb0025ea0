"""Reading the data sets: clips with a genre, tracks with a mood. The data themselves are not in the repository."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.contracts.features import AUDIO_FEATURES
from shared.contracts.labels import GENRES, MOODS

_AUDIO_SUFFIXES: Final = frozenset({".au", ".flac", ".mp3", ".ogg", ".wav"})
#: The one feature that the mood table calls by another name.
_MOOD_COLUMNS: Final = {"duration_ms": "length"}


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of audio with its genre.

    ``group`` names what must never be split between training and test (artist and genre). ``native_rate`` in Hz is
    the rate the recording came in: above half of it there is nothing to hear; None where unknown.
    """

    name: str
    path: Path
    label: str
    group: str
    native_rate: int | None = None


@dataclass(frozen=True, slots=True)
class MoodTrack:
    """A track with its ten Spotify features (``AUDIO_FEATURES`` order and units), its mood, artist and labeller."""

    features: tuple[float, ...]
    label: str
    group: str
    source: str


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a folder laid out as ``genre/track.ext``, sorted by name.

    An ``index.csv`` (columns track, genre, group, and perhaps native_rate) decides where there is one. Without it every
    file of a genre's folder is a clip and a group of its own: then songs of one artist may be split, and figures
    come out too high. Raises ValueError where there are no clips or a file is missing.
    """
    index = folder / "index.csv"
    clips = _from_index(folder, index) if index.exists() else _from_folders(folder)
    if not clips:
        raise ValueError(f"no clips in {folder}: genre/track.ext is expected, with the genres {', '.join(GENRES)}")
    return sorted(clips, key=lambda clip: clip.name)


def _from_index(folder: Path, index: Path) -> list[Clip]:
    files = {(file.parent.name, file.stem): file for file in audio_files(folder)}
    with index.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    missing = [row["track"] for row in rows if (row["genre"], row["track"]) not in files]
    if missing:
        raise ValueError(f"{index} names tracks without a file: {', '.join(missing[:5])}")
    return [
        Clip(
            row["track"],
            files[row["genre"], row["track"]],
            row["genre"],
            row["group"],
            int(row["native_rate"]) if row.get("native_rate") else None,
        )
        for row in rows
    ]


def _from_folders(folder: Path) -> list[Clip]:
    return [
        Clip(file.stem, file, file.parent.name, f"{file.stem}|{file.parent.name}")
        for file in audio_files(folder)
        if file.parent.name in GENRES
    ]


def audio_files(folder: Path) -> list[Path]:
    """Every audio file in ``folder`` and below, in order of name."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _AUDIO_SUFFIXES)


def read_moods(table: Path) -> list[MoodTrack]:
    """The rows of a mood table (CSV: Spotify's features, ``length`` in ms, mood, artist, source)."""
    with table.open(newline="", encoding="utf-8") as opened:
        tracks = [
            MoodTrack(
                tuple(float(row[_MOOD_COLUMNS.get(name, name)]) for name in AUDIO_FEATURES),
                row["mood"].lower(),
                row["artist"],
                row["source"],
            )
            for row in csv.DictReader(opened)
        ]
    unknown = {track.label for track in tracks} - set(MOODS)
    if unknown:
        raise ValueError(f"{table} holds moods that are none: {', '.join(sorted(unknown))}")
    return tracks
