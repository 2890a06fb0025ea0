"""The map of the whole library as text, kept from one look to the next: only new tracks are written down."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
from typing import Final

from services.gateway.view.search import MAPPED, ON_THE_MAP

_LEVEL: Final = 3


class LibraryMap:
    """Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total, self._last = 0, 0
        self._columns: list[list[str]] = []
        self._text = b""
        self._compressed: bytes | None = None
        self._forget()

    def text(self, connection: sqlite3.Connection) -> bytes:
        """A JSON object of columns, as `search.columns` makes it of all tracks."""
        with self._lock:
            self._read(connection)
            return self._text

    def compressed(self, connection: sqlite3.Connection) -> bytes:
        """The same, compressed by gzip."""
        with self._lock:
            self._read(connection)
            if self._compressed is None:
                self._compressed = gzip.compress(self._text, _LEVEL, mtime=0)
            return self._compressed

    def _read(self, connection: sqlite3.Connection) -> None:
        """Numbers of answers only grow. So the tracks that are known are all there still if they and the newer ones are
        as many as the view has."""
        total, last = connection.execute(
            "SELECT count(*), coalesce((SELECT max(seq) FROM tracks), 0) FROM tracks"
        ).fetchone()
        if total == self._total and last == self._last:
            return
        newer = connection.execute("SELECT count(*) FROM tracks WHERE seq > ?", (self._last,)).fetchone()[0]
        if self._total + newer != total:
            self._forget()
        columns = ", ".join(f"json_group_array({column})" for column in MAPPED.values())
        found = connection.execute(
            f"SELECT {columns} FROM tracks WHERE {ON_THE_MAP.sql} AND seq > ?", (self._last,)
        ).fetchone()
        for pieces, values in zip(self._columns, found, strict=True):
            if values != "[]":
                pieces.append(values[1:-1])
        self._total, self._last = total, last
        listed = (f'"{name}":[{",".join(pieces)}]' for name, pieces in zip(MAPPED, self._columns, strict=True))
        self._text = f"{{{','.join(listed)}}}".encode()
        self._compressed = None

    def _forget(self) -> None:
        self._total = self._last = 0
        self._columns = [[] for _ in MAPPED]
        self._text = json.dumps({name: [] for name in MAPPED}).encode()
        self._compressed = None
