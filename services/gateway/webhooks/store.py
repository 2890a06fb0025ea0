"""Registrations and what is still to be sent, in an SQLite file of their own.

The view of the results can be deleted and fills again; registrations cannot. So this is another file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from services.gateway.view.database import ViewError, ViewUnavailableError
from services.library.sqlite_mark import Mark, Standing

#: `tonw` in ASCII.
_MARK: Final = Mark(0x746F6E77, schema=1)
_BUSY_S: Final = 5.0
_LONGEST_NOTE: Final = 300
#: How far the clock of the topic may be behind ours, in milliseconds.
_CLOCKS_MS: Final = 60_000

#: ``messages`` hold each body once, whatever the number of hooks that it goes to. ``positions``: the records before
#: these offsets were taken.
_TABLES: Final = """
CREATE TABLE hooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    disabled_because TEXT,
    failures INTEGER NOT NULL DEFAULT 0,
    failing_since_ms INTEGER,
    resumes_ms INTEGER NOT NULL DEFAULT 0,
    last_attempt_ms INTEGER,
    last_status INTEGER,
    last_fault TEXT,
    delivered INTEGER NOT NULL DEFAULT 0,
    given_up INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    queued_ms INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE deliveries (
    hook TEXT NOT NULL REFERENCES hooks(id) ON DELETE CASCADE,
    message INTEGER NOT NULL REFERENCES messages(number),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    PRIMARY KEY (hook, message)
) WITHOUT ROWID;
CREATE INDEX deliveries_by_time ON deliveries(hook, due_ms);
CREATE INDEX deliveries_by_message ON deliveries(message);
CREATE TABLE positions (topic TEXT, part INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, part));
"""

#: A partition of a topic.
Slot = tuple[str, int]
State = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: ``body`` to every hook, under one ``id``. ``created_ms`` is the time of the event, Unix epoch."""

    id: str
    created_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Hook:
    """A registration and how it fares. Times are milliseconds of the Unix epoch. ``pending`` deliveries wait."""

    id: str
    url: str
    secret: str
    created_ms: int
    disabled_because: str | None
    failures: int
    failing_since_ms: int | None
    resumes_ms: int
    last_attempt_ms: int | None
    last_status: int | None
    last_fault: str | None
    delivered: int
    given_up: int
    pending: int

    @property
    def state(self) -> State:
        """Whether anything is sent to it."""
        return "active" if self.disabled_because is None else "disabled"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to a hook, after ``attempts`` that failed. It waits since ``queued_ms``, Unix epoch."""

    hook: str
    number: int
    message_id: str
    body: bytes
    queued_ms: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Failure:
    """How a failed attempt is noted: the next is at ``due_ms``, or never (None); until ``resumes_ms`` the hook gets
    nothing."""

    status: int | None
    fault: str
    due_ms: int | None
    resumes_ms: int


class Store:
    """The file at ``path``. Safe from many threads; one process has it.

    Raises ViewError for a file that cannot be used, ViewUnavailableError from every method if SQLite cannot read or
    write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = _opened(path)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    # Registrations

    def add(self, url: str, secret: str) -> Hook:
        """Register a URL."""
        hook_id = f"wh_{uuid.uuid4().hex}"
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO hooks (id, url, secret, created_ms) VALUES (?, ?, ?, ?)",
                (hook_id, url, secret, _now_ms()),
            )
            (hook,) = _hooks(connection, hook_id)
        return hook

    def hooks(self) -> list[Hook]:
        """All registrations, the oldest first."""
        with self._transaction() as connection:
            return _hooks(connection)

    def hook(self, hook_id: str) -> Hook | None:
        """The registration of that ID."""
        with self._transaction() as connection:
            return next(iter(_hooks(connection, hook_id)), None)

    def remove(self, hook_id: str) -> bool:
        """Forget a registration and what waits for it. False if there is none."""
        with self._transaction() as connection:
            found = connection.execute("DELETE FROM hooks WHERE id = ?", (hook_id,)).rowcount
            _forget_messages(connection)
        return found > 0

    def disable(self, hook_id: str, reason: str) -> None:
        """Send nothing more to a hook, and forget what waits for it."""
        with self._transaction() as connection:
            connection.execute("UPDATE hooks SET disabled_because = ? WHERE id = ?", (reason[:_LONGEST_NOTE], hook_id))
            given_up = connection.execute("DELETE FROM deliveries WHERE hook = ?", (hook_id,)).rowcount
            connection.execute("UPDATE hooks SET given_up = given_up + ? WHERE id = ?", (given_up, hook_id))
            _forget_messages(connection)

    # What is to be sent

    def positions(self) -> dict[Slot, int]:
        """The first offset of each partition that was not taken yet."""
        with self._transaction() as connection:
            return {(topic, part): after for topic, part, after in connection.execute("SELECT * FROM positions")}

    def take(self, messages: Sequence[Message], positions: Mapping[Slot, int]) -> int:
        """Queue the messages for every active hook that is not younger than they are, and note the positions, as one.
        Returns how many deliveries were added. Messages that wait already are not added again."""
        added = 0
        with self._transaction() as connection:
            active = connection.execute("SELECT id, created_ms FROM hooks WHERE disabled_because IS NULL").fetchall()
            for message in messages:
                wanting = [hook_id for hook_id, created_ms in active if created_ms <= message.created_ms + _CLOCKS_MS]
                if not wanting:
                    continue
                found = connection.execute(
                    "INSERT OR IGNORE INTO messages (id, queued_ms, body) VALUES (?, ?, ?)",
                    (message.id, _now_ms(), zlib.compress(message.body, 6)),
                )
                if not found.rowcount:
                    continue
                rows = [(hook_id, found.lastrowid, 0) for hook_id in wanting]
                connection.executemany("INSERT INTO deliveries (hook, message, due_ms) VALUES (?, ?, ?)", rows)
                added += len(rows)
            connection.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                [(*slot, offset) for slot, offset in positions.items()],
            )
        return added

    def next_delivery(self, hook_id: str, under_way: Iterable[int]) -> tuple[int, Delivery] | None:
        """The delivery that is due next, and when (ms); those ``under_way``, by number, are left out."""
        left_out = ", ".join(str(int(number)) for number in under_way)
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT max(due_ms, resumes_ms), message, messages.id, body, queued_ms, attempts"
                " FROM deliveries JOIN messages ON number = message JOIN hooks ON hooks.id = hook"
                f" WHERE hook = ? AND disabled_because IS NULL AND message NOT IN ({left_out})"
                " ORDER BY due_ms, message LIMIT 1",
                (hook_id,),
            ).fetchone()
        if found is None:
            return None
        due_ms, number, message_id, body, queued_ms, attempts = found
        return due_ms, Delivery(hook_id, number, message_id, zlib.decompress(body), queued_ms, attempts)

    def succeeded(self, delivery: Delivery, status: int, release_after_ms: int) -> None:
        """The message arrived. If the hook had been failing for longer than ``release_after_ms``, all that waits for it
        is due now."""
        now = _now_ms()
        with self._transaction() as connection:
            _remove(connection, delivery)
            before = connection.execute("SELECT failing_since_ms FROM hooks WHERE id = ?", (delivery.hook,)).fetchone()
            connection.execute(
                "UPDATE hooks SET delivered = delivered + 1, failures = 0, failing_since_ms = NULL, resumes_ms = 0,"
                " last_attempt_ms = ?, last_status = ?, last_fault = NULL WHERE id = ?",
                (now, status, delivery.hook),
            )
            if before is not None and before[0] is not None and now - before[0] > release_after_ms:
                connection.execute("UPDATE deliveries SET due_ms = min(due_ms, ?) WHERE hook = ?", (now, delivery.hook))

    def failed(self, delivery: Delivery, failure: Failure) -> None:
        """The message did not arrive."""
        now = _now_ms()
        with self._transaction() as connection:
            if failure.due_ms is None:
                _remove(connection, delivery)
            else:
                connection.execute(
                    "UPDATE deliveries SET attempts = attempts + 1, due_ms = ? WHERE hook = ? AND message = ?",
                    (failure.due_ms, delivery.hook, delivery.number),
                )
            connection.execute(
                "UPDATE hooks SET failures = failures + 1, failing_since_ms = coalesce(failing_since_ms, ?),"
                " resumes_ms = max(resumes_ms, ?), last_attempt_ms = ?, last_status = ?, last_fault = ?,"
                " given_up = given_up + ? WHERE id = ?",
                (
                    now,
                    failure.resumes_ms,
                    now,
                    failure.status,
                    failure.fault[:_LONGEST_NOTE],
                    int(failure.due_ms is None),
                    delivery.hook,
                ),
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise ViewUnavailableError(f"{self._path} cannot be used: {error}") from error


def _opened(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it holds secrets
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise ViewError(f"{path} cannot be used: {error}") from error
    try:
        _make_ready(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise ViewError(
            f"{path}, which holds the webhooks, cannot be used ({error}); move it away to begin without any"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _make_ready(connection: sqlite3.Connection, path: Path) -> None:
    standing = _MARK.standing(connection)
    if standing is Standing.FOREIGN:
        raise ViewError(f"{path} is a database of another program; move it away, or choose another folder")
    if standing is Standing.NEWER:
        raise ViewError(f"{path} was written by a newer version of Tonestream; upgrade this one")
    connection.execute("PRAGMA journal_mode = WAL")
    # What was taken from the topic is not taken again, so it is on the disk by then.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if standing is Standing.EMPTY:
        connection.executescript(f"BEGIN; {_TABLES} {_MARK.statements} COMMIT;")


def _hooks(connection: sqlite3.Connection, hook_id: str | None = None) -> list[Hook]:
    found = connection.execute(
        "SELECT id, url, secret, created_ms, disabled_because, failures, failing_since_ms, resumes_ms, last_attempt_ms,"
        " last_status, last_fault, delivered, given_up, (SELECT count(*) FROM deliveries WHERE hook = hooks.id)"
        " FROM hooks WHERE ? IS NULL OR id = ? ORDER BY created_ms, id",
        (hook_id, hook_id),
    )
    return [Hook(*row) for row in found]


def _remove(connection: sqlite3.Connection, delivery: Delivery) -> None:
    connection.execute("DELETE FROM deliveries WHERE hook = ? AND message = ?", (delivery.hook, delivery.number))
    connection.execute(
        "DELETE FROM messages WHERE number = ? AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message = number)",
        (delivery.number,),
    )


def _forget_messages(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM messages WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE message = number)")


def _now_ms() -> int:
    return int(time.time() * 1000)
