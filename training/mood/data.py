"""Reading a mood table: tracks with ten audio features and a mood, from one labeller or several."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from training.data.clips import DataError

#: The possible column names of each feature.
_COLUMNS: Final = {name: (name,) for name in AUDIO_FEATURES} | {"duration_ms": ("duration_ms", "length")}
_DAY_MS: Final = 24 * 3600 * 1000.0
#: The possible range of each feature in Spotify's units. Values outside mean that the column holds something else.
_PLAUSIBLE: Final = {
    **dict.fromkeys(AUDIO_FEATURES, (0.0, 1.0)),
    "duration_ms": (1000.0, _DAY_MS),
    "tempo": (0.0, 400.0),
    "loudness": (-100.0, 10.0),
}
_ONLY_SOURCE: Final = "table"
_HASH_DIGITS: Final = 16
_FAULTS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class MoodRow:
    """A track with its ten features (``AUDIO_FEATURES`` order, Spotify's units), its mood, artist and labeller.

    ``group`` is the artist; a track without one is a group of its own, shared only with its exact copies.
    """

    features: tuple[float, ...]
    mood: str
    group: str
    source: str

    @property
    def content(self) -> str:
        """The content ID of the track: a hash of its features, 16 hexadecimal digits."""
        return _content(self.features)


@dataclass(frozen=True, slots=True)
class MoodTable:
    """All rows of a mood table. ``artists_known`` is False where it has no artists at all."""

    rows: tuple[MoodRow, ...]
    artists_known: bool

    @property
    def features(self) -> npt.NDArray[np.float64]:
        """[n, 10], ``AUDIO_FEATURES`` order, Spotify's units."""
        return np.array([row.features for row in self.rows])

    @property
    def labels(self) -> npt.NDArray[np.intp]:
        """The number of each row's mood in ``MOODS``, [n]."""
        return np.array([MOODS.index(row.mood) for row in self.rows], np.intp)

    @property
    def moods(self) -> list[str]:
        """The mood of each row."""
        return [row.mood for row in self.rows]

    @property
    def groups(self) -> list[str]:
        """The group of each row."""
        return [row.group for row in self.rows]

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the labellers, sorted."""
        return tuple(sorted({row.source for row in self.rows}))

    @property
    def source_of(self) -> npt.NDArray[np.intp]:
        """The number of each row's labeller in ``sources``, [n]."""
        return np.array([self.sources.index(row.source) for row in self.rows], np.intp)


def read_mood_table(path: Path) -> MoodTable:
    """The rows of a CSV with the columns of ``AUDIO_FEATURES`` (``length`` will do for ``duration_ms``) and ``mood``.

    ``artist`` and ``source`` (who gave the mood) are optional; other columns are ignored. Raises DataError for a file
    that cannot be read, a missing column, an unknown mood, and a value that is not a number or is out of range. The
    message numbers the rows, from 1 for the first below the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            columns = _columns(path, reader.fieldnames or ())
            parsed = [_row(line, columns) for line in reader]
            artists_known = "artist" in (reader.fieldnames or ())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV in UTF-8: {error}") from error
    faults = [f"row {number}: {row}" for number, row in enumerate(parsed, 1) if isinstance(row, str)]
    if faults:
        more = f" and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise DataError(f"{path}: {'; '.join(faults[:_FAULTS_SHOWN])}{more}")
    rows = tuple(row for row in parsed if isinstance(row, MoodRow))
    if not rows:
        raise DataError(f"{path} holds no rows")
    return MoodTable(rows, artists_known)


def check_enough(table: MoodTable, folds: int) -> None:
    """Raises DataError if ``table`` cannot be cross-validated by artist in ``folds`` parts."""
    missing = [mood for mood in MOODS if mood not in table.moods]
    if missing:
        raise DataError(f"there is no track of {', '.join(missing)}: all of {', '.join(MOODS)} are needed")
    groups = len(set(table.groups))
    if folds < 2 or groups < folds:
        raise DataError(f"{folds} folds by artist take 2 folds and as many artists at least; there are {groups}")
    artists = Counter(mood for mood, _ in {(row.mood, row.group) for row in table.rows})
    single = [mood for mood, count in artists.items() if count < 2]
    if single:
        raise DataError(f"two artists of each mood are needed; there is one of {', '.join(sorted(single))}")


def _columns(path: Path, present: Sequence[str]) -> dict[str, str]:
    """The column of each feature."""
    found = {
        name: column for name, columns in _COLUMNS.items() if (column := next((c for c in columns if c in present), ""))
    }
    missing = [" or ".join(columns) for name, columns in _COLUMNS.items() if name not in found]
    missing += ["mood"] if "mood" not in present else []
    if missing:
        raise DataError(f"{path} lacks the column {', '.join(missing)}")
    return found


def _row(line: Mapping[str, str | None], columns: Mapping[str, str]) -> MoodRow | str:
    """The row, or its fault."""
    values = []
    for name in AUDIO_FEATURES:
        given = (line[columns[name]] or "").strip()
        try:
            value = float(given)
        except ValueError:
            return f"{columns[name]} is no number: {given!r}"
        low, high = _PLAUSIBLE[name]
        if not math.isfinite(value) or not low <= value <= high:
            return f"{columns[name]} is {given}, outside {low:g} to {high:g}"
        values.append(value)
    mood = (line["mood"] or "").strip().lower()
    if mood not in MOODS:
        return f"mood {mood!r} is none of {', '.join(MOODS)}"
    features = tuple(values)
    artist = (line.get("artist") or "").strip().casefold()
    source = (line.get("source") or "").strip() or _ONLY_SOURCE
    return MoodRow(features, mood, f"artist {artist}" if artist else f"track {_content(features)}", source)


def _content(features: Sequence[float]) -> str:
    shown = "|".join(f"{value:.6g}" for value in features)
    return hashlib.sha256(shown.encode()).hexdigest()[:_HASH_DIGITS]
