"""Whose file an SQLite database is: our programs mark theirs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum, auto


class Standing(Enum):
    """How a file stands to the program that opened it."""

    EMPTY = auto()
    OURS = auto()
    NEWER = auto()
    FOREIGN = auto()


@dataclass(frozen=True, slots=True)
class Mark:
    """``application_id`` names the kind of file, four bytes of ASCII. ``schema`` is raised when an older program would
    misread the file."""

    application_id: int
    schema: int

    def standing(self, connection: sqlite3.Connection) -> Standing:
        """Whether the file is new and empty, ours, of a newer version, or of another program. Raises sqlite3.Error."""
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if application == self.application_id:
            newer = connection.execute("PRAGMA user_version").fetchone()[0] > self.schema
            return Standing.NEWER if newer else Standing.OURS
        holds_something = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return Standing.FOREIGN if application or holds_something else Standing.EMPTY

    @property
    def statements(self) -> str:
        """The SQL that marks a file."""
        return f"PRAGMA application_id = {self.application_id}; PRAGMA user_version = {self.schema};"
