"""Finding tracks in the view: filters, pages with stable cursors, counts."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from services.gateway.view.database import NUMBERS, NUMBERS_INDEX, unpacked
from services.gateway.view.requests import UNDER_WAY
from services.library import where as language
from services.library.row import COLUMNS, Row, Stored
from services.library.where import Condition
from shared.contracts.messages import TrackResult

MOST_AT_ONCE: Final = 1000
#: What pages can be sorted by: the column, and how text compares.
SORTS: Final = {
    "finished": "finished_at",
    "title": "title COLLATE NOCASE",
    "artist": "artist COLLATE NOCASE",
    "source": "source COLLATE NOCASE",
    "duration": "duration_s",
    "genre": "genre",
    "mood": "mood",
    "bpm": "bpm",
    "key": "key",
    "confidence": "genre_confidence",
    "mood_confidence": "mood_confidence",
    "energy": "energy",
    "valence": "valence",
    "danceability": "danceability",
    "loudness": "loudness",
    "status": "status",
}
_FIELDS: Final = ", ".join(f'tracks."{column.name}"' for column in COLUMNS)
_BPM: Final = re.compile(r"(\d+(?:\.\d+)?)?\s*(-)?\s*(\d+(?:\.\d+)?)?")
#: A tempo without a range means this much around it, in beats per minute.
_BPM_AROUND: Final = 0.5
_WORD: Final = re.compile(r"\w+")
_NAMED: Final = re.compile(r'\btracks\."?(\w+)')
#: The columns of the map, by their names there.
MAPPED: Final = {
    "id": "id",
    "energy": "energy",
    "valence": "valence",
    "genre": "genre",
    "confidence": "genre_confidence",
    "title": "coalesce(title, source)",
}
_EXPORTED_AT_ONCE: Final = 500
#: Of more rows, a page is soon found by reading in the order of the sort.
_FEW: Final = 25_000


ON_THE_MAP: Final = Condition("tracks.energy IS NOT NULL AND tracks.valence IS NOT NULL", ())


class SearchError(ValueError):
    """A filter, a sort or a cursor that is none. The message names it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tracks: all conditions together. Several values of one field are alternatives."""

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        ids: Sequence[str] = (),
        genres: Sequence[str] = (),
        moods: Sequence[str] = (),
        statuses: Sequence[str] = (),
        min_confidence: float | None = None,
        bpm: str | None = None,
        key: str | None = None,
        text: str | None = None,
        where: str | None = None,
    ) -> Self:
        """Raises SearchError."""
        found = [
            _one_of(column, values)
            for column, values in (("id", ids), ("genre", genres), ("mood", moods), ("status", statuses))
            if values
        ]
        if min_confidence is not None:
            found.append(Condition("tracks.genre_confidence >= ?", (min_confidence,)))
        if bpm is not None:
            found.append(_tempo(bpm))
        if key is not None:
            found.append(Condition("tracks.key = ? COLLATE NOCASE", (key.strip(),)))
        if text is not None and (words := _words(text)):
            found.append(Condition("tracks.seq IN (SELECT rowid FROM words WHERE words MATCH ?)", (words,)))
        if where is not None:
            try:
                found.append(language.condition(language.parse(where), "tracks"))
            except language.WhereError as error:
                raise SearchError(f"where: {error}") from None
        return cls(tuple(found))

    def and_(self, *conditions: Condition) -> Condition:
        """All of it as one condition."""
        every = (*self.conditions, *conditions)
        sql = " AND ".join(f"({one.sql})" for one in every) or "1"
        return Condition(sql, tuple(value for one in every for value in one.values))


@dataclass(frozen=True, slots=True)
class Page:
    """``total`` counts all pages. ``after`` continues behind the last row; None at the end."""

    rows: tuple[Row, ...]
    total: int
    after: str | None


def page(connection: sqlite3.Connection, wanted: Wanted, sort: str, limit: int, after: str | None) -> Page:
    """At most ``limit`` rows. New tracks between two pages neither repeat nor hide others. Raises SearchError."""
    order = _Order.parse(sort)
    every = wanted.and_()
    total = connection.execute(
        f"SELECT count(*) FROM tracks {_by_numbers(every.sql)} WHERE {every.sql}", every.values
    ).fetchone()[0]
    found = order.select(
        connection, wanted, None if after is None else _Cursor.parse(after, sort), limit + 1, total < _FEW
    )
    more = len(found) > limit
    found = found[:limit]
    cursor = _Cursor(sort, found[-1][1], int(str(found[-1][0]))).text() if more else None
    return Page(tuple(Row.from_sqlite(values[2:]) for values in found), total, cursor)


def rows(connection: sqlite3.Connection, wanted: Wanted, sort: str = "finished") -> Iterator[Row]:
    """All rows. Raises SearchError."""
    order = _Order.parse(sort)
    cursor: _Cursor | None = None
    while found := order.select(connection, wanted, cursor, _EXPORTED_AT_ONCE):
        yield from (Row.from_sqlite(values[2:]) for values in found)
        cursor = _Cursor(sort, found[-1][1], int(str(found[-1][0])))


def answers(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[TrackResult]:
    """All results as they were published, in the order they came."""
    every = wanted.and_()
    for (document,) in connection.execute(
        f"SELECT document FROM answers JOIN tracks USING (seq) WHERE {every.sql} ORDER BY seq", every.values
    ):
        yield unpacked(document)


def rows_since(connection: sqlite3.Connection, seq: int, limit: int) -> list[tuple[int, Row]]:
    """The first ``limit`` rows after the answer of that number, with theirs."""
    found = connection.execute(
        f"SELECT tracks.seq, {_FIELDS} FROM tracks WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
    )
    return [(values[0], Row.from_sqlite(values[1:])) for values in found]


def check_sort(sort: str) -> None:
    """Raises SearchError for what is no sort."""
    _Order.parse(sort)


def columns(connection: sqlite3.Connection, wanted: Wanted) -> str:
    """A JSON object of columns for a map: one entry in each for every track that has energy and valence."""
    every = wanted.and_(ON_THE_MAP)
    listed = ", ".join(f"'{name}', json_group_array({column})" for name, column in MAPPED.items())
    found = connection.execute(f"SELECT json_object({listed}) FROM tracks WHERE {every.sql}", every.values).fetchone()
    return str(found[0])


def rows_by_seq(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, Row]:
    """The rows of these answers, by their numbers."""
    found = connection.execute(
        f"SELECT tracks.seq, {_FIELDS} FROM tracks WHERE seq IN (SELECT value FROM json_each(?))",
        (json.dumps(list(seqs)),),
    )
    return {values[0]: Row.from_sqlite(values[1:]) for values in found}


def answer(connection: sqlite3.Connection, request_id: str) -> tuple[float, TrackResult] | None:
    """When the request was answered, in seconds since 1970, and the result; None if it was not."""
    found = connection.execute(
        "SELECT finished_at, document FROM answers WHERE request_id = ?", (request_id,)
    ).fetchone()
    return None if found is None else (found[0], unpacked(found[1]))


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tracks have each value."""

    total: int
    genres: dict[str, int]
    moods: dict[str, int]
    statuses: dict[str, int]
    errors: dict[str, int]
    unfinished: int
    last_minute: int


def counts(connection: sqlite3.Connection, now: float) -> Counts:
    """Counts over all tracks. ``now`` is in seconds since 1970."""

    def by(column: str) -> dict[str, int]:
        found = connection.execute(
            f"SELECT {column}, count(*) FROM tracks WHERE {column} IS NOT NULL GROUP BY {column} ORDER BY 2 DESC, 1"
        )
        return dict(found)

    return Counts(
        total=connection.execute("SELECT count(*) FROM tracks").fetchone()[0],
        genres=by("genre"),
        moods=by("mood"),
        statuses=by("status"),
        errors=by("error"),
        unfinished=connection.execute(f"SELECT count(*) FROM requests WHERE {UNDER_WAY}").fetchone()[0],
        last_minute=connection.execute("SELECT count(*) FROM tracks WHERE finished_at > ?", (now - 60.0,)).fetchone()[
            0
        ],
    )


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The place behind a row: its value of the sort, and its number."""

    sort: str
    value: str | float | None
    seq: int

    def text(self) -> str:
        packed = json.dumps([self.sort, self.value, self.seq], separators=(",", ":"), ensure_ascii=False)
        return base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, sort: str) -> Self:
        try:
            sorted_by, value, seq = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            if not (isinstance(value, str | float | None) and isinstance(seq, int) and abs(seq) < 1 << 62):
                raise ValueError
        except (ValueError, TypeError, RecursionError):
            raise SearchError("after: this is no cursor of a page before") from None
        if sorted_by != sort:
            raise SearchError("after: this cursor belongs to another sort")
        return cls(sort, value, seq)


@dataclass(frozen=True, slots=True)
class _Order:
    """Tracks with a value first, in order, then those without. Both halves follow an index."""

    column: str
    descending: bool

    @classmethod
    def parse(cls, sort: str) -> Self:
        column = SORTS.get(sort.removeprefix("-"))
        if column is None:
            raise SearchError(f"sort: one of {', '.join(SORTS)}, with - before it for the other direction")
        return cls(f"tracks.{column}", sort.startswith("-"))

    def select(
        self, connection: sqlite3.Connection, wanted: Wanted, after: _Cursor | None, limit: int, few: bool = False
    ) -> list[tuple[Stored, ...]]:
        """Rows of: number, value of the sort, and the columns of ``Row``. ``few``: not many rows are wanted at all."""
        found: list[tuple[Stored, ...]] = []
        if after is None or after.value is not None:
            found += self._select(connection, wanted, self._behind(after), f"{self.column} {self._way}, ", limit, few)
            after = None
        if len(found) < limit:
            without = [Condition(f"{self.column} IS NULL", ())]
            if after is not None:
                without.append(Condition(f"tracks.seq {self._beyond} ?", (after.seq,)))
            found += self._select(connection, wanted, without, "", limit - len(found), few)
        return found

    def _select(
        self,
        connection: sqlite3.Connection,
        wanted: Wanted,
        conditions: Sequence[Condition],
        order: str,
        limit: int,
        few: bool,
    ) -> list[tuple[Stored, ...]]:
        every = wanted.and_(*conditions)
        column = self.column.removesuffix(" COLLATE NOCASE")
        ordered = f"ORDER BY {order}tracks.seq {self._way}"
        condition, limited = every.sql, "LIMIT ?"
        if few and (hint := _by_numbers(f"{every.sql} {order}")):
            # Which rows they are is read from the index; only those of the page are read from the table.
            condition = f"tracks.seq IN (SELECT tracks.seq FROM tracks {hint} WHERE {every.sql} {ordered} LIMIT ?)"
            limited = ""
        return connection.execute(
            f"SELECT tracks.seq, {column}, {_FIELDS} FROM tracks WHERE {condition} {ordered} {limited}",
            (*every.values, limit),
        ).fetchall()

    def _behind(self, after: _Cursor | None) -> list[Condition]:
        if after is None:
            return [Condition(f"{self.column} IS NOT NULL", ())]
        assert after.value is not None
        return [Condition(f"({self.column}, tracks.seq) {self._beyond} (?, ?)", (after.value, after.seq))]

    @property
    def _way(self) -> str:
        return "DESC" if self.descending else "ASC"

    @property
    def _beyond(self) -> str:
        return "<" if self.descending else ">"


def _by_numbers(sql: str) -> str:
    """The hint to read an index instead of the rows, which are ten times as large, where it has all columns of ``sql``.
    SQLite would look up row after row."""
    named = set(_NAMED.findall(sql))
    return f"INDEXED BY {NUMBERS_INDEX}" if named and named <= NUMBERS else ""


def _one_of(column: str, values: Sequence[str]) -> Condition:
    # As JSON: SQLite limits the number of question marks.
    return Condition(f"tracks.{column} IN (SELECT value FROM json_each(?))", (json.dumps(list(values)),))


def _tempo(text: str) -> Condition:
    found = _BPM.fullmatch(text.strip())
    if found is None or not (found[1] or found[3]):
        raise SearchError("bpm: a range such as 90-120, 90- or -120, or one tempo")
    if found[2] is None:
        if found[3] is not None:  # the two numbers are one, read apart
            raise SearchError("bpm: a range such as 90-120, 90- or -120, or one tempo")
        middle = float(found[1])
        return Condition("tracks.bpm BETWEEN ? AND ?", (middle - _BPM_AROUND, middle + _BPM_AROUND))
    least, most = float(found[1] or 0.0), float(found[3] or 1e9)
    return Condition("tracks.bpm BETWEEN ? AND ?", (least, most))


def _words(text: str) -> str:
    """The words of a search as FTS5 takes them: every one must begin a word of the track."""
    return " ".join(f'"{word}"*' for word in _WORD.findall(text.replace("_", " ")))
