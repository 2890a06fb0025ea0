"""Rows: what of a result they hold, and that a database gives them back."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.library.row import COLUMNS, KINDS, Row
from shared.contracts.errors import ErrorCode
from tests.support.rows import failed_result, ok_result, row


def test_a_row_holds_the_answer() -> None:
    found = Row.of(ok_result(), 1_700_000_000.0)
    assert (found.genre, found.genre_confidence, found.mood, found.key) == ("jazz", 0.73, "calm", "F minor")
    assert (found.bpm, found.energy, found.tags, found.content) == (120.0, 0.5, ("guitar", "female vocals"), "music")
    assert (found.error, found.finished_at, found.duration_s) == (None, 1_700_000_000.0, 30.0)


def test_a_failed_track_has_an_error_and_no_answer() -> None:
    found = Row.of(failed_result(code=ErrorCode.TOO_SHORT), 0.0)
    assert (found.status, found.error, found.error_message) == ("failed", "too_short", "why it failed")
    assert (found.genre, found.mood, found.bpm, found.outside, found.tags) == (None, None, None, None, ())


def test_a_track_without_a_beat_has_no_bpm() -> None:
    result = ok_result()
    assert result.audio_features is not None
    silent = result.audio_features.model_copy(update={"tempo": 0.0})
    assert Row.of(result.model_copy(update={"audio_features": silent}), 0.0).bpm is None


def test_every_column_is_described_and_no_name_is_used_twice() -> None:
    names = [name for column in COLUMNS for name in (column.name, *column.aliases)]
    assert len(names) == len(set(names))
    assert all(column.description and column.kind in KINDS for column in COLUMNS)
    assert all(column.unit for column in COLUMNS if column.kind == "number")


@given(
    title=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    tags=st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple),
    outside=st.none() | st.booleans(),
    energy=st.none() | st.floats(0, 1),
)
def test_a_row_comes_back_from_sqlite_and_json_as_it_was(
    title: str | None, tags: tuple[str, ...], outside: bool | None, energy: float | None
) -> None:
    given_row = replace(row(), title=title, tags=tags, outside=outside, energy=energy)
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE t ({', '.join(column.sqlite for column in COLUMNS)})")
    connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(COLUMNS))})", given_row.stored())
    assert Row.from_sqlite(connection.execute("SELECT * FROM t").fetchone()) == given_row
    connection.close()
    line = given_row.as_json()
    loaded = json.loads(line)
    assert "\n" not in line and list(loaded) == [column.name for column in COLUMNS]
    assert Row(**{**loaded, "tags": tuple(loaded["tags"])}) == given_row
