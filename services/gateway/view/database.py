"""The SQLite file: opening it in whatever state it is, one thread that writes, and connections that read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final, TypeVar

import numpy as np

from services.gateway.view.requests import UNDER_WAY
from services.library import where
from services.library.data_folder import data_folder
from services.library.row import COLUMNS, Row
from services.library.sqlite_mark import Mark, Standing
from shared.contracts.messages import TrackResult
from shared.settings import Settings

log = logging.getLogger(__name__)

Returned = TypeVar("Returned")
#: A piece of work for the writer. All that it does becomes visible together, or not at all.
Job = Callable[[sqlite3.Connection], Returned]

#: `tone` in ASCII.
_MARK: Final = Mark(0x746F6E65, schema=1)
_BUSY_S: Final = 5.0
_MOST_IDLE_READERS: Final = 8
_REDERIVED_AT_ONCE: Final = 500
#: Bytes that the write-ahead log may keep on the disk once it is copied into the file.
_LARGEST_IDLE_LOG: Final = 16 * 1024 * 1024
#: Pages of 4 KiB that are given back to the disk at once; fewer free ones are kept for what comes next.
_GIVEN_BACK_AT_ONCE: Final = 256

#: What is kept for good. ``published``: see ``Published`` in requests.py. ``positions``: where the reader of each
#: partition goes on.
_KEPT: Final = f"""
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    track_key TEXT NOT NULL,
    source TEXT NOT NULL,
    spec TEXT,
    fingerprint TEXT,
    submitted_at REAL NOT NULL,
    stage TEXT NOT NULL,
    published INTEGER NOT NULL,
    sha256 TEXT,
    follows TEXT
);
CREATE INDEX requests_by_track ON requests(track_key) WHERE sha256 IS NOT NULL;
CREATE INDEX requests_unfinished ON requests(submitted_at) WHERE {UNDER_WAY};
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    finished_at REAL NOT NULL,
    document BLOB NOT NULL
);
CREATE TABLE positions (topic TEXT, part INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, part));
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

#: What is kept for good, and was not in the files of earlier versions. ``removed`` has the marks of removed tracks,
#: ``unneeded_audio`` what is to be deleted from the blob store; see removal.py.
_KEPT_SINCE: Final = f"""
CREATE TABLE IF NOT EXISTS removed (request_id TEXT PRIMARY KEY, removed_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unneeded_audio (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS removed_by_time ON removed(removed_at);
CREATE INDEX IF NOT EXISTS requests_by_audio ON requests(sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX IF NOT EXISTS requests_without_audio ON requests(track_key) WHERE sha256 IS NULL;
CREATE INDEX IF NOT EXISTS requests_awaited ON requests(track_key) WHERE {UNDER_WAY};
CREATE INDEX IF NOT EXISTS requests_by_leader ON requests(follows) WHERE follows IS NOT NULL;
"""

#: The columns of numbers, flags and words of our own, and the index that has them all.
NUMBERS: Final = frozenset(column.name for column in COLUMNS if column.kind not in {"text", "words"} or column.choices)
NUMBERS_INDEX: Final = "tracks_by_numbers"

#: What follows from the answers: made again where ``Row`` has other columns than when it was made.
_DERIVED: Final = f"""
DROP TABLE IF EXISTS tracks;
DROP TABLE IF EXISTS words;
DROP TABLE IF EXISTS embeddings;
CREATE TABLE tracks (seq INTEGER PRIMARY KEY, {", ".join(column.sqlite for column in COLUMNS)});
CREATE UNIQUE INDEX tracks_by_id ON tracks(id);
CREATE INDEX tracks_by_finished_at ON tracks(finished_at, seq);
CREATE INDEX tracks_by_title ON tracks(title COLLATE NOCASE, seq);
CREATE INDEX tracks_by_artist ON tracks(artist COLLATE NOCASE, seq);
CREATE INDEX tracks_by_bpm ON tracks(bpm, seq);
CREATE INDEX tracks_by_energy ON tracks(energy, seq);
CREATE INDEX tracks_by_valence ON tracks(valence, seq);
CREATE INDEX tracks_by_genre_confidence ON tracks(genre_confidence, seq);
CREATE INDEX tracks_by_genre ON tracks(genre, mood, status);
CREATE INDEX tracks_by_mood ON tracks(mood);
CREATE INDEX {NUMBERS_INDEX} ON tracks({", ".join(f'"{name}"' for name in sorted(NUMBERS))});
CREATE INDEX tracks_by_status ON tracks(status);
CREATE INDEX tracks_by_error ON tracks(error) WHERE error IS NOT NULL;
CREATE VIRTUAL TABLE words USING fts5(title, artist, source, tags, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE embeddings (seq INTEGER PRIMARY KEY, vector BLOB NOT NULL);
"""
_FINGERPRINT: Final = hashlib.sha256(f"{_DERIVED}{COLUMNS!r}".encode()).hexdigest()
_PLACES: Final = ", ".join("?" * (len(COLUMNS) + 1))


class ViewError(RuntimeError):
    """The file cannot be used. The message says why, and what to do."""


class ViewUnavailableError(RuntimeError):
    """The view cannot be read or written at the moment: the disk is full, or its thread has ended."""


def default_path(settings: Settings) -> Path:
    """Where the file is: the setting, else the user's folder for data."""
    if settings.library_db is not None:
        return settings.library_db.absolute()
    return data_folder() / "library.sqlite"


class Database:
    """The file at ``path``, open for as long as this object is.

    A damaged file is put aside under another name and a new one begun. Raises ViewError for a file that is not ours,
    was written by a newer version, or is in use by another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _locked(path)
        try:
            self._connection = self._opened()
        except BaseException:
            self._lock.close()
            raise
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._jobs: queue.SimpleQueue[tuple[Job[object], Future[object]] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._write, name="view-writer", daemon=True)
        self._thread.start()

    # Writing

    def submit(self, job: Job[Returned]) -> Future[Returned]:
        """Have the writer do ``job`` in a transaction of its own. The future raises what the job raised, and
        ViewUnavailableError if SQLite cannot write."""
        done: Future[Returned] = Future()
        with self._closing:
            if self._closed.is_set():
                done.set_exception(ViewUnavailableError("the view is closed"))
            else:
                self._jobs.put((job, done))  # type: ignore[arg-type]
        return done

    def write(self, job: Job[Returned]) -> Returned:
        """The same, and wait for it."""
        return self.submit(job).result()

    def shrink(self) -> bool:
        """Give some of the room that removed tracks took back to the disk. Whether there is more to give back."""
        return self.write(_given_back)

    def _write(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, done = task
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(self._transaction(job))
            except sqlite3.Error as error:
                done.set_exception(ViewUnavailableError(f"{self.path} cannot be written: {error}"))
            except BaseException as error:
                done.set_exception(error)

    def _transaction(self, job: Job[Returned]) -> Returned:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            returned = job(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        return returned

    # Reading

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the file during the block. Raises ViewUnavailableError."""
        if self._closed.is_set():
            raise ViewUnavailableError("the view is closed")
        try:
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = _connect(self.path)
                connection.execute("PRAGMA query_only = ON")
                where.prepare(connection)
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
                if self._readers.qsize() < _MOST_IDLE_READERS and not self._closed.is_set():
                    self._readers.put(connection)
                else:
                    connection.close()
        except sqlite3.Error as error:
            raise ViewUnavailableError(f"{self.path} cannot be read: {error}") from error

    @property
    def alive(self) -> bool:
        """Whether the writer can take work."""
        return self._thread.is_alive() and not self._closed.is_set()

    def close(self) -> None:
        """Finish the work that was submitted, and release the file."""
        with self._closing:
            if self._closed.is_set():
                return
            self._closed.set()
            self._jobs.put(None)
        self._thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()
        self._connection.close()
        self._lock.close()

    # Opening

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._made_ready()
        except sqlite3.OperationalError as error:
            if "fts5" in str(error):
                raise ViewError("the SQLite of this Python has no FTS5; use a Python whose SQLite has it") from error
            raise ViewError(f"{self.path} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self._put_aside()
            log.warning("%s is damaged (%s): it is now %s, and a new one is begun", self.path, error, aside)
        return self._made_ready()

    def _made_ready(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)  # sources may be private
        connection = _connect(self.path)
        try:
            standing = self._require_ours(connection)
            _let_shrink(connection, standing)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_IDLE_LOG}")
            if standing is Standing.EMPTY:
                connection.executescript(f"BEGIN; {_KEPT} {_MARK.statements} COMMIT;")
            connection.executescript(_KEPT_SINCE)
            found = connection.execute("SELECT value FROM facts WHERE name = 'derived'").fetchone()
            if found is None or found[0] != _FINGERPRINT:
                derive(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_ours(self, connection: sqlite3.Connection) -> Standing:
        """Raises ViewError for another program's file, and for a newer version's; DatabaseError for a damaged one."""
        standing = _MARK.standing(connection)
        if standing is Standing.FOREIGN:
            raise ViewError(
                f"{self.path} is a database of another program; TONESTREAM_LIBRARY_DB names the file to use"
            )
        if standing is Standing.NEWER:
            raise ViewError(
                f"{self.path} was written by a newer version of Tonestream; upgrade this one, or let"
                " TONESTREAM_LIBRARY_DB name another file"
            )
        if standing is Standing.OURS:
            check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if check != "ok":
                raise sqlite3.DatabaseError(check)
        return standing

    def _put_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        self.path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return aside


def derive(connection: sqlite3.Connection) -> None:
    """Make rows, words and embeddings of all answers anew."""
    count = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
    if count:
        log.warning("this version keeps other columns: %d tracks of the library are prepared anew", count)
    connection.executescript(f"BEGIN IMMEDIATE; {_DERIVED}")
    try:
        last = 0
        while answers := connection.execute(
            "SELECT seq, finished_at, document FROM answers WHERE seq > ? ORDER BY seq LIMIT ?",
            (last, _REDERIVED_AT_ONCE),
        ).fetchall():
            for seq, finished_at, document in answers:
                add_derived(connection, seq, unpacked(document), finished_at)
            last = answers[-1][0]
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('derived', ?)", (_FINGERPRINT,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def add_derived(connection: sqlite3.Connection, seq: int, result: TrackResult, finished_at: float) -> Row:
    """Add what follows from one answer; returns its row."""
    row = Row.of(result, finished_at)
    connection.execute(f"INSERT INTO tracks VALUES ({_PLACES})", (seq, *row.stored()))
    connection.execute(
        "INSERT INTO words (rowid, title, artist, source, tags) VALUES (?, ?, ?, ?, ?)",
        (seq, row.title, row.artist, row.source, " ".join(row.tags)),
    )
    if result.embedding:
        connection.execute("INSERT INTO embeddings VALUES (?, ?)", (seq, stored_vector(result.embedding)))
    return row


def remove_derived(connection: sqlite3.Connection, seq: int) -> None:
    """Remove what followed from an answer."""
    connection.execute("DELETE FROM tracks WHERE seq = ?", (seq,))
    connection.execute("DELETE FROM words WHERE rowid = ?", (seq,))
    connection.execute("DELETE FROM embeddings WHERE seq = ?", (seq,))


def stored_vector(embedding: Sequence[float]) -> bytes:
    """An embedding as the file keeps it: of length 1, float32 little-endian."""
    vector = np.asarray(embedding, dtype="<f4")
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).tobytes()


def packed(result: TrackResult) -> bytes:
    """A result as the file keeps it."""
    return zlib.compress(result.model_dump_json().encode(), 6)


def unpacked(document: bytes) -> TrackResult:
    """The result that ``packed`` made this of."""
    return TrackResult.model_validate_json(zlib.decompress(document))


def _let_shrink(connection: sqlite3.Connection, standing: Standing) -> None:
    """Have the file keep track of its free pages, so that they can be given back. A file of an earlier version is
    written anew for that, once."""
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if standing is Standing.OURS:
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            log.warning("the library's file does not shrink when tracks are removed: %s", error)


def _given_back(connection: sqlite3.Connection) -> bool:
    # A step of the statement frees one page.
    connection.execute(f"PRAGMA incremental_vacuum({_GIVEN_BACK_AT_ONCE})").fetchall()
    return bool(connection.execute("PRAGMA freelist_count").fetchone()[0] > _GIVEN_BACK_AT_ONCE)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _locked(path: Path) -> IO[str]:
    """The file's lock, which the system releases when this process ends. Raises ViewError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise ViewError(f"{path} cannot be used: {error.strerror}; TONESTREAM_LIBRARY_DB names another file") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ViewError(
            f"{path} is in use by another Tonestream; end that one, or let TONESTREAM_LIBRARY_DB name another file"
        ) from None
    return lock
