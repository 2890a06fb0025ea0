"""From records of the topics to the view: one batch, one transaction, with the positions behind it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.gateway.view import removal, requests
from services.gateway.view.database import add_derived, packed, remove_derived
from services.gateway.view.requests import Asked, Published, TrackStage
from services.library.row import Row
from shared.bus.base import Record
from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.messages import IngestedTrack, TrackRequest, TrackResult
from shared.contracts.topics import Channel, Topics
from shared.contracts.tracks import track_key

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A request is at another stage. ``row`` and ``seq`` are those of its answer, if that is what came; ``upload``
    is then the blob that was heard, if no other request waits for it."""

    request_id: str
    stage: TrackStage
    source: str
    at: float
    row: Row | None = None
    seq: int | None = None
    upload: str | None = None

    @property
    def error(self) -> str | None:
        """The code of the answer's first error."""
        return None if self.row is None else self.row.error


def fingerprint(request: TrackRequest) -> str:
    """What a request asks for, without its ID."""
    return request.model_dump_json(exclude={"request_id", "schema_version"}, exclude_defaults=True)


class Absorber:
    """Writes records into the view. Every record may come twice."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def absorb(self, connection: sqlite3.Connection, records: Sequence[Record]) -> list[Change]:
        """A job for the writer: returns what changed, in order."""
        changes = [change for record in records for change in self._absorbed(connection, record)]
        positions = {(record.topic, record.partition): record.offset + 1 for record in records}
        connection.executemany(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", [(*slot, offset) for slot, offset in positions.items()]
        )
        return changes

    def _absorbed(self, connection: sqlite3.Connection, record: Record) -> Sequence[Change]:
        """A record that meets a defect is left out: it would be met again at every start."""
        connection.execute("SAVEPOINT record")
        try:
            return tuple(self._absorb(connection, record))
        except sqlite3.Error:
            raise
        except Exception:
            log.exception("%s is left out of the view", record.coordinates)
            connection.execute("ROLLBACK TO record")
            return ()
        finally:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("RELEASE record")

    def _absorb(self, connection: sqlite3.Connection, record: Record) -> Iterable[Change]:
        channel = self._topics.channel(record.topic)
        try:
            message = decode_message(channel, record.value)
        except MalformedMessageError as error:
            # An invalid request is answered like any other; its result comes.
            log.debug("%s is left out: %s", record.coordinates, error.reason)
            return ()
        at = record.timestamp_ms / 1000 or time.time()
        if removal.is_removed(connection, message.request_id):
            return ()
        match message:
            case TrackRequest() if channel is Channel.REQUESTS:
                return _requested(connection, message, at)
            case TrackRequest():
                return _moved(connection, message.request_id, TrackStage.FETCHING, at)
            case IngestedTrack():
                return _ingested(connection, message, at)
            case TrackResult():
                return _answered(connection, message, at)
            case _:
                return ()


def positions(connection: sqlite3.Connection) -> dict[tuple[str, int], int]:
    """Where to go on reading, by (topic, partition)."""
    return {(topic, part): after for topic, part, after in connection.execute("SELECT * FROM positions")}


def last_seq(connection: sqlite3.Connection) -> int:
    """The number of the newest answer, which may have been removed since; 0 without any."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'answers'").fetchone()
    return 0 if found is None else int(found[0])


def _requested(connection: sqlite3.Connection, request: TrackRequest, at: float) -> Iterable[Change]:
    (known,) = requests.enter(connection, [Asked(request, fingerprint(request), at)], Published.SEEN)
    if known is not None:
        requests.confirm(connection, [request.request_id], Published.SEEN)
        if known.published is Published.SEEN or known.stage is not TrackStage.QUEUED:
            return ()
    return (Change(request.request_id, TrackStage.QUEUED, request.shown_source, at),)


def _ingested(connection: sqlite3.Connection, track: IngestedTrack, at: float) -> Iterable[Change]:
    _enter_unseen(connection, track.request_id, track.track_key, track.source, at)
    connection.execute(
        "UPDATE requests SET sha256 = coalesce(?, sha256), follows = ? WHERE request_id = ?",
        (None if track.audio is None else track.audio.sha256, track.follows, track.request_id),
    )
    if track.audio is None and track.follows is None:
        return ()  # its answer is known, and comes next
    return _moved(connection, track.request_id, TrackStage.LISTENING, at)


def _answered(connection: sqlite3.Connection, result: TrackResult, at: float) -> Iterable[Change]:
    _enter_unseen(connection, result.request_id, result.track.key, result.track.source, at)
    before = connection.execute(
        "SELECT seq, finished_at FROM answers WHERE request_id = ?", (result.request_id,)
    ).fetchone()
    if before is not None:
        if at <= before[1]:
            return ()  # read before
        remove_derived(connection, before[0])
        connection.execute("DELETE FROM answers WHERE seq = ?", (before[0],))
    seq = connection.execute(
        "INSERT INTO answers (request_id, finished_at, document) VALUES (?, ?, ?)",
        (result.request_id, at, packed(result)),
    ).lastrowid
    assert seq is not None
    row = add_derived(connection, seq, result, at)
    stage = TrackStage(result.status.value)
    connection.execute(
        "UPDATE requests SET stage = ?, source = ?, published = ? WHERE request_id = ?",
        (stage.value, result.track.source, Published.SEEN.value, result.request_id),
    )
    upload = requests.upload_of(connection, result.request_id)
    if upload is not None and requests.awaited(connection, track_key(None, upload)):
        upload = None
    return (Change(result.request_id, stage, result.track.source, at, row, seq, upload),)


def _moved(connection: sqlite3.Connection, request_id: str, stage: TrackStage, at: float) -> Iterable[Change]:
    known = requests.find(connection, request_id)
    if known is None or not stage.follows(known.stage):
        return ()
    connection.execute("UPDATE requests SET stage = ? WHERE request_id = ?", (stage.value, request_id))
    return (Change(request_id, stage, known.source, at),)


def _enter_unseen(connection: sqlite3.Connection, request_id: str, track_key: str, source: str, at: float) -> None:
    """Enter a request that was never seen on its topic, which has forgotten it, or that no one could read."""
    connection.execute(
        "INSERT OR IGNORE INTO requests (request_id, track_key, source, submitted_at, stage, published)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (request_id, track_key, source, at, TrackStage.QUEUED.value, Published.SEEN.value),
    )
