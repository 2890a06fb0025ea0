"""Requests in the view: who asked for what, and how far it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, Self

from shared.contracts.messages import TrackRequest
from shared.contracts.tracks import BLOB_SCHEME


class TrackStage(StrEnum):
    """How far a track is. The last three are the statuses of results."""

    QUEUED = "queued"
    FETCHING = "fetching"
    LISTENING = "listening"
    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in (TrackStage.OK, TrackStage.PARTIAL, TrackStage.FAILED)

    def follows(self, other: TrackStage) -> bool:
        """Whether a track that was at ``other`` may be at this one next. Topics are read in no common order."""
        return _RANK[self] > _RANK[other]


class Published(IntEnum):
    """How far a request is on its way to its topic."""

    ENTERED = 0
    ACKNOWLEDGED = 1  # by the bus
    SEEN = 2  # by the reader


_RANK: Final = {
    TrackStage.QUEUED: 0,
    TrackStage.FETCHING: 1,
    TrackStage.LISTENING: 2,
    TrackStage.OK: 3,
    TrackStage.PARTIAL: 3,
    TrackStage.FAILED: 3,
}


#: The condition, in SQL, for requests without an answer. Partial indexes of the view have it, word for word.
UNDER_WAY: Final = f"stage IN ({', '.join(repr(stage.value) for stage in TrackStage if not stage.finished)})"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to be entered. ``fingerprint`` tells whether a second request under the same ID asks for the same."""

    request: TrackRequest
    fingerprint: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class Known:
    """What the view knows of a request.

    ``spec`` is None for requests that others published and that have left their topic. ``sha256`` names the decoded
    audio. ``follows`` is the request whose answer answers this one.
    """

    request_id: str
    track_key: str
    source: str
    spec: TrackRequest | None
    fingerprint: str | None
    submitted_at: float
    stage: TrackStage
    published: Published
    sha256: str | None
    follows: str | None

    @classmethod
    def of(cls, values: Sequence[object]) -> Self:
        """From the columns of a row."""
        request_id, track_key, source, spec, fingerprint, submitted_at, stage, published, sha256, follows = values
        return cls(
            str(request_id),
            str(track_key),
            str(source),
            None if spec is None else TrackRequest.model_validate_json(str(spec)),
            None if fingerprint is None else str(fingerprint),
            float(str(submitted_at)),
            TrackStage(str(stage)),
            Published(int(str(published))),
            None if sha256 is None else str(sha256),
            None if follows is None else str(follows),
        )

    def asks_for(self, asked: Asked) -> bool:
        """Whether this is the same request."""
        if self.fingerprint is None:
            return self.track_key == asked.request.track_key
        return self.fingerprint == asked.fingerprint


def find(connection: sqlite3.Connection, request_id: str) -> Known | None:
    """The request of that ID."""
    found = connection.execute("SELECT * FROM requests WHERE request_id = ?", (request_id,)).fetchone()
    return None if found is None else Known.of(found)


def enter(connection: sqlite3.Connection, asked: Sequence[Asked], published: Published) -> list[Known | None]:
    """Enter the requests. For each the one that has the ID already, or None if it is entered."""
    before = []
    for one in asked:
        known = find(connection, one.request.request_id)
        before.append(known)
        if known is None:
            connection.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
                (
                    one.request.request_id,
                    one.request.track_key,
                    one.request.shown_source,
                    one.request.model_dump_json(),
                    one.fingerprint,
                    one.submitted_at,
                    TrackStage.QUEUED.value,
                    published.value,
                ),
            )
    return before


def confirm(connection: sqlite3.Connection, request_ids: Sequence[str], published: Published) -> None:
    """The requests are that far on their way, or further."""
    connection.executemany(
        "UPDATE requests SET published = max(published, ?) WHERE request_id = ?",
        [(published.value, one) for one in request_ids],
    )


def withdraw(connection: sqlite3.Connection, request_ids: Sequence[str]) -> None:
    """The requests could not be published: forget those that nobody has seen on their topic all the same."""
    connection.executemany(
        "DELETE FROM requests WHERE request_id = ? AND published = ?",
        [(one, Published.ENTERED.value) for one in request_ids],
    )


def unfinished(connection: sqlite3.Connection) -> list[Known]:
    """The requests without an answer, the oldest first."""
    found = connection.execute(f"SELECT * FROM requests WHERE {UNDER_WAY} ORDER BY submitted_at")
    return [Known.of(values) for values in found]


def awaited(connection: sqlite3.Connection, track_key: str) -> bool:
    """Whether a request for that track is under way."""
    found = connection.execute(
        f"SELECT 1 FROM requests WHERE track_key = ? AND {UNDER_WAY} LIMIT 1",
        (track_key,),
    )
    return found.fetchone() is not None


def upload_of(connection: sqlite3.Connection, request_id: str) -> str | None:
    """The blob that the request wants to have heard; None if it asks for something else."""
    found = connection.execute(
        "SELECT json_extract(spec, '$.audio_url') FROM requests WHERE request_id = ?", (request_id,)
    ).fetchone()
    return found[0] if found is not None and str(found[0]).startswith(BLOB_SCHEME) else None


def uploads_needed(connection: sqlite3.Connection) -> set[str]:
    """The blobs that requests under way want to have heard, and those after whose defect somebody may try again."""
    found = connection.execute(
        "SELECT json_extract(spec, '$.audio_url') FROM requests LEFT JOIN tracks ON tracks.id = request_id"
        f" WHERE track_key LIKE 'blob:%' AND ({UNDER_WAY} OR tracks.error = 'internal')"
    )
    return {str(reference) for (reference,) in found}


def queue_again(connection: sqlite3.Connection) -> None:
    """A job for the writer: all that is unfinished is to be done from its beginning."""
    connection.execute("UPDATE requests SET stage = 'queued' WHERE stage IN ('fetching', 'listening')")


def waiting_uploads(connection: sqlite3.Connection) -> int:
    """How many uploads wait for their answer."""
    found = connection.execute(f"SELECT count(*) FROM requests WHERE {UNDER_WAY} AND track_key LIKE 'blob:%'")
    return int(found.fetchone()[0])


def audio_of(connection: sqlite3.Connection, request_id: str) -> str | None:
    """The hash of the audio that was heard for the request, for the one that it follows, or last for the same track."""
    found = connection.execute(
        "SELECT coalesce(own.sha256, leader.sha256,"
        " (SELECT sha256 FROM requests WHERE track_key = own.track_key AND sha256 IS NOT NULL"
        " ORDER BY submitted_at DESC LIMIT 1))"
        " FROM requests AS own LEFT JOIN requests AS leader ON leader.request_id = own.follows"
        " WHERE own.request_id = ?",
        (request_id,),
    ).fetchone()
    return None if found is None else found[0]
