"""Reads the data sets: audio files, and clips with a genre. The repository contains no data."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.contracts.labels import GENRES
from training.data.splits import merge_artists

_AUDIO_SUFFIXES: Final = frozenset(
    {".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}
)
_CONTENT_DIGITS: Final = 16


class DataError(ValueError):
    """The data cannot be used for training or evaluation; the message says why."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of audio with its genre.

    ``group`` (artist and genre) must never be split between training and test. ``native_rate`` in Hz is the original
    sample rate of the recording, which has no content above half of it; None if unknown.
    """

    name: str
    path: Path
    label: str
    group: str
    native_rate: int | None = None


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a folder laid out as ``genre/track.ext``, sorted by name.

    An ``index.csv`` (columns track, genre, and optionally artist, group, native_rate) takes precedence. It provides the
    groups; groups of a genre that share an artist are merged (`merge_artists`). Without artists every file is a group
    of its own. Then songs of one artist may be split, and figures come out too high. Raises DataError if there are no
    clips, if a folder is not named after a genre, or if a file is missing.
    """
    index = folder / "index.csv"
    clips = _from_index(folder, index) if index.exists() else _from_folders(folder)
    if not clips:
        raise DataError(f"no clips in {folder}: genre/track.ext is expected, with the genres {', '.join(GENRES)}")
    return sorted(clips, key=lambda clip: clip.name)


def content_id(path: Path) -> str:
    """The content ID of a file: the first 16 hexadecimal digits of the SHA-256 of its bytes."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:_CONTENT_DIGITS]


def _from_index(folder: Path, index: Path) -> list[Clip]:
    files = {(file.parent.name, name): file for file in audio_files(folder) for name in (file.stem, file.name)}
    with index.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    lacking = {"track", "genre"} - set(rows[0] if rows else ("track", "genre"))
    if lacking:
        raise DataError(f"{index} lacks the column {', '.join(sorted(lacking))}")
    _check_genres({row["genre"] for row in rows}, index)
    missing = [row["track"] for row in rows if (row["genre"], row["track"]) not in files]
    if missing:
        raise DataError(f"{index} names tracks without a file: {', '.join(missing[:5])}")
    groups = [_group(row) for row in rows]
    artists = [_artist(row) for row in rows]
    return [
        Clip(
            row["track"],
            files[row["genre"], row["track"]],
            row["genre"],
            group,
            int(row["native_rate"]) if row.get("native_rate") else None,
        )
        for row, group in zip(rows, merge_artists([row["genre"] for row in rows], groups, artists), strict=True)
    ]


def _group(row: dict[str, str]) -> str:
    return row.get("group") or f"{row.get('artist', row['track'])}|{row['genre']}"


def _artist(row: dict[str, str]) -> str | None:
    """The artist credit of a row; None if the index has no artists."""
    if "artist" in row:
        return row["artist"]
    name, bar, _ = row.get("group", "").rpartition("|")
    return name if bar else None


def _from_folders(folder: Path) -> list[Clip]:
    files = audio_files(folder)
    _check_genres({file.parent.name for file in files}, folder)
    return [Clip(file.stem, file, file.parent.name, f"{file.stem}|{file.parent.name}") for file in files]


def _check_genres(found: set[str], where: Path) -> None:
    if unknown := sorted(found - set(GENRES)):
        raise DataError(f"{where} holds genres that are none: {', '.join(unknown[:5])}; known are {', '.join(GENRES)}")


def audio_files(folder: Path) -> list[Path]:
    """Every audio file in ``folder`` and below, by name, without the attribute files of macOS (``._*``)."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _AUDIO_SUFFIXES and not file.name.startswith("._") and file.is_file()
    )
