"""Removing tracks from the view, so that no record brings them back.

A removed track leaves a mark with its request ID. While the mark stands, every record of that request is passed over:
the topics may hold it for days, and a track that was under way is still to be answered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.gateway.view import requests
from services.gateway.view.database import remove_derived
from services.gateway.view.requests import Known
from services.gateway.view.search import Wanted
from services.library.where import Condition
from shared.contracts.topics import RETENTION_MS, Channel

#: How long a mark stands at least, in seconds: a request that is as old as its topic keeps it may be answered today,
#: and that answer is on its topic for as long again.
REMEMBERED_S: Final = (RETENTION_MS[Channel.REQUESTS] + RETENTION_MS[Channel.RESULTS]) / 1000


@dataclass(frozen=True, slots=True)
class Removed:
    """``ids`` are the requests that were there; ``uploads`` the files that were to be read for them, and that nobody
    else waits for."""

    ids: tuple[str, ...]
    uploads: tuple[str, ...]


def remove(connection: sqlite3.Connection, request_ids: Sequence[str], now: float) -> Removed:
    """A job for the writer: forget these requests and all that is known of them. ``now``: seconds since 1970."""
    removed, uploads = [], []
    for request_id in request_ids:
        known = requests.find(connection, request_id)
        if known is None:
            continue
        removed.append(request_id)
        upload = requests.upload_of(connection, request_id)
        connection.execute("INSERT OR REPLACE INTO removed VALUES (?, ?)", (request_id, now))
        connection.execute("DELETE FROM requests WHERE request_id = ?", (request_id,))
        answer = connection.execute("DELETE FROM answers WHERE request_id = ? RETURNING seq", (request_id,)).fetchall()
        for (seq,) in answer:
            remove_derived(connection, seq)
        if known.sha256 is not None:
            _pass_on(connection, known, known.sha256)
        if upload is not None and not known.stage.finished and not requests.awaited(connection, known.track_key):
            uploads.append(upload)
    return Removed(tuple(removed), tuple(uploads))


def _pass_on(connection: sqlite3.Connection, known: Known, sha256: str) -> None:
    """Let the requests that lean on this one know what was heard; if there are none, let it be forgotten."""
    for column, value in (("follows", known.request_id), ("track_key", known.track_key)):
        connection.execute(f"UPDATE requests SET sha256 = ? WHERE sha256 IS NULL AND {column} = ?", (sha256, value))
    if not needed(connection, sha256):
        connection.execute("INSERT OR IGNORE INTO unneeded_audio VALUES (?)", (sha256,))


def needed(connection: sqlite3.Connection, sha256: str) -> bool:
    """Whether that audio was heard for any request of the view."""
    return connection.execute("SELECT 1 FROM requests WHERE sha256 = ? LIMIT 1", (sha256,)).fetchone() is not None


def is_removed(connection: sqlite3.Connection, request_id: str) -> bool:
    """Whether the request was removed, and its mark stands."""
    found = connection.execute("SELECT 1 FROM removed WHERE request_id = ?", (request_id,))
    return found.fetchone() is not None


def expire_marks(connection: sqlite3.Connection, before: float) -> None:
    """A job for the writer: forget the marks that were made before that time, seconds since 1970."""
    connection.execute("DELETE FROM removed WHERE removed_at < ?", (before,))


def found_ids(connection: sqlite3.Connection, wanted: Wanted) -> list[str]:
    """The request IDs of all finished tracks that are wanted."""
    every = wanted.and_()
    found = connection.execute(f"SELECT tracks.id FROM tracks WHERE {every.sql} ORDER BY seq", every.values)
    return [request_id for (request_id,) in found]


@dataclass(frozen=True, slots=True)
class Retention:
    """Which finished tracks stay: those of the last ``seconds``, and the newest ``rows``; 0 for all."""

    seconds: float = 0.0
    rows: int = 0

    def surplus(self, connection: sqlite3.Connection, now: float, limit: int) -> list[str]:
        """At most ``limit`` request IDs of tracks that do not stay, the oldest first."""
        found: list[str] = []
        if self.seconds:
            found = _oldest(connection, limit, Condition("finished_at < ?", (now - self.seconds,)))
        if self.rows and not found:
            count = int(connection.execute("SELECT count(*) FROM tracks").fetchone()[0])
            found = _oldest(connection, min(limit, max(0, count - self.rows)), Condition("1", ()))
        return found


def _oldest(connection: sqlite3.Connection, limit: int, condition: Condition) -> list[str]:
    found = connection.execute(
        f"SELECT id FROM tracks WHERE {condition.sql} ORDER BY finished_at, seq LIMIT ?", (*condition.values, limit)
    )
    return [request_id for (request_id,) in found]


def unneeded_audio(connection: sqlite3.Connection) -> list[str]:
    """The hashes of audio that was heard for removed tracks only."""
    return [sha256 for (sha256,) in connection.execute("SELECT sha256 FROM unneeded_audio")]


def settle_audio(connection: sqlite3.Connection, sha256: str) -> None:
    """A job for the writer: that audio is gone, or is needed again."""
    connection.execute("DELETE FROM unneeded_audio WHERE sha256 = ?", (sha256,))
