"""What was written into which file, and what was there before. It is on the disk before the file is replaced.

A run has a file of its own, with one JSON object a line: *entries* (a file is about to be replaced) and *marks* (values
of an entry were restored). A line that a crash has cut is left out by readers, and the next line begins afresh.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.library.data_folder import data_folder
from services.library.tagging.errors import Refusal, TagRefusedError
from services.library.tagging.folders import sync_folder
from services.library.tagging.rules import Field as TagField

_SUFFIX: Final = ".jsonl"


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Written(_Line):
    """One value: raw forms of what was there and what is written, None for nothing (``formats.TagFile.raw``)."""

    field: TagField
    key: str
    old: str | None
    new: str | None


class Entry(_Line):
    """A file that is about to be replaced.

    ``path`` is for people; ``path_hex`` holds the bytes of a path that is no text. Hashes are SHA-256 of the whole
    file; ``mtime_ns`` is its modification time, which stays. ``created``: it had no such tags before. ``rest`` is a
    hash of all other tags.
    """

    type: Literal["entry"] = "entry"
    version: Literal[1] = 1
    id: str
    run: str
    time: datetime
    path: str
    path_hex: str | None = None
    system: str
    created: bool
    rest: str
    before_sha256: str
    after_sha256: str
    mtime_ns: int
    values: tuple[Written, ...]

    @property
    def file(self) -> Path:
        """Where the file was."""
        return Path(self.path if self.path_hex is None else os.fsdecode(bytes.fromhex(self.path_hex)))


class Mark(_Line):
    """The values of these keys of an entry are as they were before it."""

    type: Literal["mark"] = "mark"
    entry: str
    time: datetime
    keys: tuple[str, ...]


_LINE: Final[TypeAdapter[Entry | Mark]] = TypeAdapter(Annotated[Entry | Mark, Field(discriminator="type")])


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry as it stands in ``journal``, and the keys that are restored already."""

    journal: Path
    entry: Entry
    restored: frozenset[str] = frozenset()

    @property
    def undone(self) -> bool:
        """Whether nothing of it is left to restore."""
        return all(value.key in self.restored for value in self.entry.values)


@dataclass(frozen=True, slots=True)
class Journals:
    """Everything that journals hold, oldest first. ``unreadable`` counts lines that are none, by file."""

    entries: tuple[Recorded, ...]
    unreadable: Mapping[Path, int] = field(default_factory=dict)


def default_folder() -> Path:
    """The folder of the journals."""
    return data_folder() / "journal"


class Journal:
    """The journal of one run. Its file is made with the first entry."""

    def __init__(self, file: Path | None = None) -> None:
        now = datetime.now(UTC)
        self.run = f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
        self.file = file if file is not None else default_folder() / f"{self.run}{_SUFFIX}"

    def add(self, entry: Entry) -> None:
        """Append ``entry``; it is on the disk afterwards. Raises TagRefusedError."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _append(self.file, entry)
        except OSError as error:
            said = f"the journal {self.file} cannot be written: {error.strerror or error}"
            raise TagRefusedError(Refusal.JOURNAL, said) from error


def mark(recorded: Recorded, keys: Iterable[str]) -> None:
    """Note that ``keys`` of an entry are restored. Raises OSError."""
    _append(recorded.journal, Mark(entry=recorded.entry.id, time=datetime.now(UTC), keys=tuple(keys)))


def path_fields(file: Path) -> tuple[str, str | None]:
    """``path`` and ``path_hex`` of an entry."""
    raw = os.fsencode(file)
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace"), raw.hex()


def new_id() -> str:
    """The ID of an entry."""
    return uuid.uuid4().hex


def read_journals(file: Path | None = None) -> Journals:
    """The entries of one journal, or of all in the default folder. Raises OSError if ``file`` cannot be read."""
    files = [file] if file is not None else sorted(default_folder().glob(f"*{_SUFFIX}"))
    recorded: dict[str, Recorded] = {}
    unreadable: dict[Path, int] = {}
    for one in files:
        for line in _lines(one):
            if line is None:
                unreadable[one] = unreadable.get(one, 0) + 1
            elif isinstance(line, Entry):
                recorded[line.id] = Recorded(one, line)
            elif (old := recorded.get(line.entry)) is not None:
                recorded[line.entry] = replace(old, restored=old.restored | set(line.keys))
    # Stable: entries of the same time stay in the order of their lines.
    return Journals(tuple(sorted(recorded.values(), key=lambda one: one.entry.time)), unreadable)


def _lines(file: Path) -> Iterator[Entry | Mark | None]:
    """The lines of a journal; None for one that cannot be read."""
    with file.open("rb") as opened:
        for line in opened:
            if line.strip():
                try:
                    yield _LINE.validate_json(line)
                except ValidationError:
                    yield None


def _append(file: Path, line: Entry | Mark) -> None:
    """One more line, on the disk when this returns. A line that does not fit is taken back. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if torn else b"") + line.model_dump_json().encode("utf-8") + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if size == 0:
        sync_folder(file.parent)  # the name of a new journal
