"""Whose file an SQLite database is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from services.gateway.view.database import ViewError
from services.gateway.webhooks.store import Store
from services.library.sqlite_mark import Mark, Standing

MARK = Mark(0x746F6E78, schema=2)


@pytest.mark.parametrize(
    ("script", "standing"),
    [
        ("", Standing.EMPTY),
        (MARK.statements, Standing.OURS),
        (Mark(MARK.application_id, schema=1).statements, Standing.OURS),
        (Mark(MARK.application_id, schema=3).statements, Standing.NEWER),
        (Mark(1, schema=2).statements, Standing.FOREIGN),
        ("CREATE TABLE songs (title TEXT);", Standing.FOREIGN),
    ],
)
def test_a_file_is_known_by_its_mark_and_by_what_it_holds(script: str, standing: Standing) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(script)
    assert MARK.standing(connection) is standing


def test_no_webhooks_are_written_into_a_database_of_another_program_that_has_no_mark(tmp_path: Path) -> None:
    file = tmp_path / "songs.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(ViewError, match="of another program"):
        Store(file)
    assert [name for (name,) in sqlite3.connect(file).execute("SELECT name FROM sqlite_master")] == ["songs"]
