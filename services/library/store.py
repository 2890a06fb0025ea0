"""What is classified already, in one SQLite file: answers by the content of a file and by the models.

An answer belongs to the SHA-256 of the file's bytes and to the answer key, so a renamed or copied file has it, too, and
another model has answers of its own. Hashing reads the whole file. So the file's path is noted with its size,
modification time and inode: while these are the same, the noted hash counts.

Each answer is one transaction. Several processes may use the file at once; they wait for each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from services.library.data_folder import data_folder
from services.library.sqlite_mark import Mark, Standing
from shared.contracts.errors import PERMANENT_FOR_AUDIO
from shared.contracts.messages import AnswerKey, Status, TrackResult
from shared.models.answer_key import result_key

#: `tonc` in ASCII.
_MARK: Final = Mark(0x746F6E63, schema=1)
#: How long to wait for another process that writes, in seconds.
_BUSY_S: Final = 60.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    finished_at REAL NOT NULL,
    result BLOB NOT NULL
) WITHOUT ROWID;
"""


class StoreError(RuntimeError):
    """The file cannot be used. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Print:
    """The content of a file, and how it looked when it was read. ``size`` in bytes, ``mtime_ns`` since 1970."""

    path: Path
    size: int
    mtime_ns: int
    inode: int
    sha256: str

    def still_fits(self) -> bool:
        """Whether the file has not been written since. False if it is gone."""
        try:
            return _look(self.path) == (self.size, self.mtime_ns, self.inode)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that is there. ``finished_at`` in seconds since 1970."""

    result: TrackResult
    finished_at: float

    @property
    def is_failure(self) -> bool:
        """Whether a part of the answer is missing; the same bytes would fail again."""
        return self.result.status is not Status.OK


def default_path() -> Path:
    """The file in the user's folder for data."""
    return data_folder() / "classified.sqlite"


class Store:
    """The open file, for answers by one answer key. A context manager; its methods raise StoreError."""

    def __init__(self, path: Path, answer_key: AnswerKey) -> None:
        self._path = path
        self._answer_key = answer_key
        with self._said("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            with self._said("opened"):
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def read(self, file: Path) -> Print:
        """The print of a file; its bytes are read only if it looks new. Raises OSError."""
        path = Path(os.path.abspath(file))  # noqa: PTH100 (links stay links)
        size, mtime_ns, inode = _look(path)
        with self._said("read"):
            noted = self._connection.execute(
                "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
                (os.fsencode(path), size, mtime_ns, inode),
            ).fetchone()
        if noted is not None:
            return Print(path, size, mtime_ns, inode, noted[0])
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return Print(path, size, mtime_ns, inode, sha256)

    def known(self, file: Print, embedding: bool = False) -> Known | None:
        """The answer for a file with this content, if there is one; with ``embedding`` only one that holds it.

        The path is noted, so that the file's bytes need not be read again.
        """
        with self._said("read"):
            found = self._connection.execute(
                "SELECT result, finished_at FROM answers WHERE key = ?", (self._key(file),)
            ).fetchone()
        if found is None:
            return None
        try:
            result = TrackResult.model_validate_json(zlib.decompress(found[0]))
        except (ValidationError, zlib.error):  # of a version that is not understood any more
            return None
        if embedding and result.embedding is None and result.status is Status.OK:
            return None
        with self._said("written"):
            self._note(file)
        return Known(result if embedding else result.model_copy(update={"embedding": None}), found[1])

    def keep(self, file: Print, result: TrackResult, finished_at: float) -> bool:
        """Keep an answer for good. Returns False for one that may be another next time: the file was written
        meanwhile, or an error may heal."""
        if not lasts(result) or not file.still_fits():
            return False
        document = zlib.compress(result.model_dump_json().encode())
        with self._said("written"), self._transaction():
            self._note(file)
            self._connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (self._key(file), finished_at, document)
            )
        return True

    def rewritten(self, file: Print) -> None:
        """The tags of a file were changed, and its sound was not: its answer is that of its content before."""
        try:
            now = self.read(file.path)
        except OSError:
            return  # it is gone
        with self._said("written"), self._transaction():
            self._note(now)
            self._connection.execute(
                "INSERT OR REPLACE INTO answers SELECT ?, finished_at, result FROM answers WHERE key = ?",
                (self._key(now), self._key(file)),
            )

    def _key(self, file: Print) -> str:
        return result_key(self._answer_key, file.sha256, "file")

    def _note(self, file: Print) -> None:
        known = (os.fsencode(file.path), file.size, file.mtime_ns, file.inode, file.sha256)
        if self._connection.execute(
            "SELECT 1 FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ? AND sha256 = ?", known
        ).fetchone():
            return  # nothing to write
        self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", known)

    def _prepare(self) -> None:
        with self._transaction():  # another process may make the tables at the same time
            self._require_ours()
            for statement in (_TABLES + _MARK.statements).split(";"):
                self._connection.execute(statement)
        # Readers and the writer do not wait for each other. After a power failure the last answers may be missing.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # This one fails at once if another process is at work. That process has changed the mode, or it stays as it is.
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA journal_mode = WAL")

    def _require_ours(self) -> None:
        standing = _MARK.standing(self._connection)
        if standing is Standing.FOREIGN:
            raise StoreError(f"{self._path} belongs to another program; name another file")
        if standing is Standing.NEWER:
            raise StoreError(f"{self._path} was written by a newer version; upgrade Tonestream, or name another file")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _said(self, done: str) -> Iterator[None]:
        """Errors of SQLite in words."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            spoilt = "not a database" in str(error) or "malformed" in str(error)
            advice = "; move it away to begin a new one" if spoilt else ""
            raise StoreError(f"{self._path} cannot be {done}: {error}{advice}") from error
        except OSError as error:
            raise StoreError(f"{self._path} cannot be {done}: {error.strerror or error}") from error


def lasts(result: TrackResult) -> bool:
    """Whether the same file would get the same answer again."""
    return result.status is Status.OK or all(error.code in PERMANENT_FOR_AUDIO for error in result.errors)


def _look(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
