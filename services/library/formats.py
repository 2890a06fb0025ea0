"""Rows as files for other programs: CSV, JSON lines and M3U8 playlists, one row after the other.

CSV follows RFC 4180: UTF-8 without a byte order mark, lines that end with CR LF, quotes where needed. A missing
value is an empty cell; tags are separated by ``; ``; times are ISO 8601 in UTC. Spreadsheets run cells that begin with
``=``, ``+``, ``-`` or ``@`` as formulas, and titles of tracks come from strangers: such a text gets an apostrophe in
front (numbers do not).
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from services.library.row import COLUMNS, Cell, Column, Row
from shared.contracts.messages import Status
from shared.contracts.tracks import looks_like_spotify, spotify_track_id

#: What makes a spreadsheet take a text for a formula. Tab and CR are skipped before it; the wide signs count, too.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: The first line of every playlist.
M3U8_HEADER: Final = "#EXTM3U\n"
_LINE_ENDS: Final = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0")


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """The header and a line a row, each with its line end."""
    yield csv_header()
    for row in rows:
        yield csv_line(row)


def csv_header() -> str:
    """The names of the columns."""
    return _csv_line([column.name for column in COLUMNS])


def csv_line(row: Row) -> str:
    """One row."""
    return _csv_line([_csv_cell(column, cell) for column, cell in zip(COLUMNS, row.cells(), strict=True)])


def jsonl_lines(rows: Iterable[Row]) -> Iterator[str]:
    """A line a row: a JSON object with every field of ``Row``."""
    for row in rows:
        yield f"{row.as_json()}\n"


def m3u8_lines(tracks: Iterable[tuple[Row, str]], folder: Path | None = None) -> Iterator[str]:
    """A playlist of ``tracks``, each with the path or address where it is played from. Failed tracks are left out.

    ``folder`` is the absolute folder that the playlist will lie in. Paths of files are made relative to it, unless
    they have nothing in common with it. Without a folder they stay as they are.
    """
    yield M3U8_HEADER
    for row, place in tracks:
        yield m3u8_entry(row, place, folder)


def m3u8_entry(row: Row, place: str, folder: Path | None = None) -> str:
    """The two lines of one track of a playlist; empty for a failed one. See ``m3u8_lines``."""
    if row.status == Status.FAILED:
        return ""
    length = -1 if row.duration_s is None else round(row.duration_s)
    return f"#EXTINF:{length},{_playlist_name(row)}\n{playlist_place(place, folder)}\n"


def playlist_place(place: str, folder: Path | None = None) -> str:
    """``place`` as a line of a playlist that lies in ``folder``; see ``m3u8_lines``."""
    if looks_like_spotify(place):
        try:
            return f"https://open.spotify.com/track/{spotify_track_id(place)}"
        except ValueError:
            pass  # a file that is only named like it
    if "://" in place:
        return quote(place, safe="".join(chr(code) for code in range(0x21, 0x7F)))
    path = place if folder is None else _beside(place, folder)
    if _is_awkward(path):
        # As an address, every name can be written. It has to be absolute.
        return f"file://{quote(os.fsencode(os.path.abspath(place)))}"  # noqa: PTH100 (the name stays as it is)
    return f"./{path}" if path.startswith("#") else path


def _beside(place: str, folder: Path) -> str:
    """The path relative to the folder; absolute if they have only the root in common."""
    path = os.path.abspath(place)  # noqa: PTH100 (links stay links)
    root = os.path.splitdrive(path)[0] + os.sep
    try:
        common = os.path.commonpath([path, folder])
    except ValueError:  # another drive
        return path
    return path if common == root and str(folder) != root else os.path.relpath(path, folder)


def _is_awkward(path: str) -> bool:
    """Whether a player would read the line as another path: it strips spaces, ends at a line end, reads UTF-8."""
    if path != path.strip() or not _LINE_ENDS.isdisjoint(path):
        return True
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes that are no text
        return True
    return False


def _playlist_name(row: Row) -> str:
    """``artist - title``, or the name of the file."""
    name = f"{row.artist} - {row.title}" if row.artist and row.title else row.title or Path(row.source).name
    return " ".join("".join(sign if sign.isprintable() else " " for sign in name or row.source).split())


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _csv_cell(column: Column, cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case tuple():
            return _guarded("; ".join(cell))
        case str():
            return _guarded(cell)
    if column.kind == "time":
        return datetime.fromtimestamp(cell, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"{cell:.10g}"


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
