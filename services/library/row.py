"""A result as a flat row: what tables, filters, exports and the gateway's database show of a track.

``COLUMNS`` describes every field once. The header of CSV files, the fields of filters, the columns of SQLite tables and
the documents follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal, Self, TypeAlias, get_args

from shared.contracts.errors import ErrorCode
from shared.contracts.labels import CONTENTS, GENRES, MOODS
from shared.contracts.messages import Status, TrackResult

#: ``time`` is a number of seconds since 1970 that people read and write as a date. ``words`` is a list of short texts.
Kind: TypeAlias = Literal["text", "number", "flag", "time", "words"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: What a field of a row holds.
Cell: TypeAlias = str | float | bool | tuple[str, ...] | None
#: What SQLite keeps of it.
Stored: TypeAlias = str | float | int | None

_SQLITE_TYPES: Final[dict[Kind, str]] = {
    "text": "TEXT",
    "number": "REAL",
    "flag": "INTEGER",
    "time": "REAL",
    "words": "TEXT",  # a JSON array
}


@dataclass(frozen=True, slots=True)
class Row:
    """One track. A field without a value is None: a failed track has no genre, a track without a beat no BPM.

    ``COLUMNS`` has the unit and the meaning of each field.
    """

    id: str
    source: str
    title: str | None
    artist: str | None
    duration_s: float | None
    status: str
    finished_at: float
    genre: str | None
    genre_confidence: float | None
    genre_uncertain: bool | None
    fit: float | None
    outside: bool | None
    mood: str | None
    mood_confidence: float | None
    mood_uncertain: bool | None
    bpm: float | None
    key: str | None
    key_confidence: float | None
    loudness: float | None
    energy: float | None
    valence: float | None
    danceability: float | None
    acousticness: float | None
    instrumentalness: float | None
    liveness: float | None
    speechiness: float | None
    content: str | None
    tags: tuple[str, ...]
    error: str | None
    error_message: str | None

    @classmethod
    def of(cls, result: TrackResult, finished_at: float) -> Self:
        """The row of ``result``, which was finished at ``finished_at``, in seconds since 1970."""
        track, genre, mood, heard, key = result.track, result.genre, result.mood, result.audio_features, result.key
        fit = None if genre is None else genre.fit
        error = result.errors[0] if result.errors else None
        return cls(
            id=result.request_id,
            source=track.source,
            title=track.title,
            artist=track.artist,
            duration_s=track.duration_s,
            status=result.status.value,
            finished_at=finished_at,
            genre=None if genre is None else genre.label,
            genre_confidence=None if genre is None else genre.confidence,
            genre_uncertain=None if genre is None else genre.uncertain,
            fit=None if fit is None else fit.probability,
            outside=result.none_of_the_ten,
            mood=None if mood is None else mood.label,
            mood_confidence=None if mood is None else mood.confidence,
            mood_uncertain=None if mood is None else mood.uncertain,
            bpm=None if heard is None else heard.tempo or None,  # 0 means that there is no beat
            key=None if key is None else f"{key.tonic} {key.mode}",
            key_confidence=None if key is None else key.confidence,
            loudness=None if heard is None else heard.loudness,
            energy=None if heard is None else heard.energy,
            valence=None if heard is None else heard.valence,
            danceability=None if heard is None else heard.danceability,
            acousticness=None if heard is None else heard.acousticness,
            instrumentalness=None if heard is None else heard.instrumentalness,
            liveness=None if heard is None else heard.liveness,
            speechiness=None if heard is None else heard.speechiness,
            content=None if result.content is None else result.content.label,
            tags=tuple(tag.label for tag in result.tags),
            error=None if error is None else error.code.value,
            error_message=None if error is None else error.message,
        )

    @classmethod
    def from_sqlite(cls, stored: Sequence[Stored]) -> Self:
        """The row of the values of a table's columns, in the order of ``COLUMNS``."""
        return cls(*(_cell(column, value) for column, value in zip(COLUMNS, stored, strict=True)))  # type: ignore[arg-type]

    def cells(self) -> tuple[Cell, ...]:
        """The values in the order of ``COLUMNS``."""
        return tuple(getattr(self, column.name) for column in COLUMNS)

    def stored(self) -> tuple[Stored, ...]:
        """The values as SQLite keeps them, in the order of ``COLUMNS``."""
        return tuple(_stored(cell) for cell in self.cells())

    def as_json(self) -> str:
        """One JSON object on one line, with all fields in the order of ``COLUMNS``."""
        return json.dumps(
            {column.name: cell for column, cell in zip(COLUMNS, self.cells(), strict=True)},
            ensure_ascii=False,
            separators=(", ", ": "),
        )


@dataclass(frozen=True, slots=True)
class Column:
    """What a field of ``Row`` is.

    ``unit`` is empty for text and flags. ``choices`` are all the values that a text can have, if they are known, and
    ``bounds`` the least and the greatest number. ``aliases`` are other names of the field in a filter.
    """

    name: str
    kind: Kind
    description: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def sqlite(self) -> str:
        """The definition of the column in a CREATE TABLE statement."""
        return f'"{self.name}" {_SQLITE_TYPES[self.kind]}'


def _share(name: str, description: str, *aliases: str) -> Column:
    return Column(name, "number", description, "0 to 1", bounds=(0.0, 1.0), aliases=aliases)


#: Every field of ``Row``, in its order.
COLUMNS: Final[tuple[Column, ...]] = (
    Column("id", "text", "request ID", aliases=("request_id",)),
    Column("source", "text", "path, URL or Spotify ID as given", aliases=("path", "url", "file")),
    Column("title", "text", "title in the file's tags, or of Spotify"),
    Column("artist", "text", "artist in the file's tags, or of Spotify"),
    Column("duration_s", "number", "length of the track", "seconds", aliases=("duration", "length")),
    Column(
        "status",
        "text",
        "ok, partial (genre or mood is missing) or failed",
        choices=tuple(status.value for status in Status),
    ),
    Column("finished_at", "time", "when the answer was ready", "seconds since 1970; in filters and CSV a date (UTC)"),
    Column("genre", "text", "the likeliest genre", choices=GENRES),
    _share("genre_confidence", "calibrated probability that the genre is right", "confidence"),
    Column("genre_uncertain", "flag", "the genre is more likely wrong than right", aliases=("uncertain",)),
    _share("fit", "probability that the track is of one of the ten genres at all"),
    Column("outside", "flag", "the track is probably of none of the ten genres"),
    Column("mood", "text", "the likeliest mood", choices=MOODS),
    _share("mood_confidence", "calibrated probability that the mood is right"),
    Column("mood_uncertain", "flag", "the mood is more likely wrong than right"),
    Column("bpm", "number", "tempo", "beats per minute", aliases=("tempo",)),
    Column("key", "text", 'musical key, such as "F minor" or "C# major"'),
    _share("key_confidence", "probability that tonic and mode are both right"),
    Column("loudness", "number", "loudness", "dB relative to full scale, about -60 to 0"),
    _share("energy", "how intense"),
    _share("valence", "how positive"),
    _share("danceability", "how fit for dancing"),
    _share("acousticness", "confidence that the instruments are acoustic"),
    _share("instrumentalness", "confidence that nobody sings"),
    _share("liveness", "confidence that there is an audience"),
    _share("speechiness", "share of spoken words"),
    Column("content", "text", "music, speech or other sounds", choices=CONTENTS),
    Column("tags", "words", "words of listeners that fit, the likeliest first", aliases=("tag",)),
    Column("error", "text", "the code of the first error", choices=tuple(code.value for code in ErrorCode)),
    Column("error_message", "text", "the sentence of the first error", aliases=("message",)),
)
assert [column.name for column in COLUMNS] == [field.name for field in fields(Row)]


def _stored(cell: Cell) -> Stored:
    if isinstance(cell, tuple):
        return json.dumps(cell, ensure_ascii=False)
    return int(cell) if isinstance(cell, bool) else cell


def _cell(column: Column, stored: Stored) -> Cell:
    if column.kind == "words":
        return tuple(json.loads(str(stored)))
    if column.kind == "flag" and stored is not None:
        return bool(stored)
    return stored
