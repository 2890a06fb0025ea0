"""Replaces a file by an edited copy of itself, all or nothing.

The copy lies in the same folder, so that a rename puts it in the place of the file. Whoever opens the file sees the old
one or the new one. The copy is locked while it is made. The system releases the lock when the process ends, however it
ends, so a copy that can be locked is a leftover and is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from services.library.tagging.errors import Refusal, TagRefusedError, refused, unreadable
from services.library.tagging.folders import sync_folder
from services.library.tagging.formats import TagFile, open_tags
from services.library.tagging.leftovers import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from services.library.tagging.plan import Identity
from shared.system.fault_points import TAGS_COPIED, TAGS_NOTED, TAGS_REPLACED, TAGS_SAVED, fault_point

_TEMPORARY: Final = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{32}" + re.escape(TEMPORARY_SUFFIX))
_CHUNK: Final = 1 << 20
#: The folders in which this process has looked for leftovers. Once is enough, and a folder may hold 50,000 files.
_SEARCHED: Final[set[Path]] = set()


@dataclass(frozen=True, slots=True)
class Replacement:
    """A finished copy, before it takes the place of the file. Hashes are SHA-256 of whole files, in hexadecimal."""

    before_sha256: str
    after_sha256: str


#: Changes the tags of the copy at a path and writes them into it; what it returns is passed on.
Edit = Callable[[Path], TagFile]


def replace(file: Path, identity: Identity, edit: Edit, note: Callable[[Replacement], None]) -> Replacement:
    """Let ``edit`` change a copy of ``file``, and put the copy in its place.

    ``note`` is called when nothing but the rename is left; if it raises, the file stays. Modification time, mode, owner
    and extended attributes stay as far as the system allows. Raises TagRefusedError, after which the file is
    untouched.
    """
    _require_writable(file)
    if file.parent not in _SEARCHED:
        _SEARCHED.add(file.parent)
        remove_leftovers(file.parent)
    try:
        with _temporary(file.parent) as (path, descriptor):
            before = _copy(file, identity, descriptor)
            fault_point(TAGS_COPIED)
            expected = edit(path).contents()
            if open_tags(path).contents() != expected:
                raise TagRefusedError(
                    Refusal.NOT_KEPT, "its tags would not read as they should, so it is left as it is"
                )
            _adopt(file, path)
            after = _hash_and_sync(path)
            fault_point(TAGS_SAVED)
            done = Replacement(before, after)
            note(done)
            fault_point(TAGS_NOTED)
            _require_unchanged(file, identity)
            os.rename(path, file)  # noqa: PTH104 (beside the other calls of os)
            sync_folder(file.parent)
            fault_point(TAGS_REPLACED)
            return done
    except OSError as error:
        raise refused(error, "the folder of the file") from error


def remove_leftovers(folder: Path) -> int:
    """Remove the copies that ended processes have left in ``folder``; returns how many. Those in use stay."""
    removed = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    removed += _remove_if_abandoned(Path(entry.path))
    return removed


def _require_writable(file: Path) -> None:
    """A file that its owner has protected stays as it is, although the folder would let us replace it."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise unreadable(error) from error
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(file, os.W_OK):
        raise TagRefusedError(Refusal.READ_ONLY, "the file is read-only")


def _require_unchanged(file: Path, identity: Identity) -> None:
    if Identity.of(file) != identity:
        raise TagRefusedError(Refusal.CHANGED, "the file has changed since it was heard")


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, int]]:
    """A new, locked file in ``folder``. It is gone at the end, unless it was renamed."""
    path, descriptor = _locked_file(folder)
    try:
        yield path, descriptor
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked_file(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Before it was locked it looked abandoned, and somebody may have removed it.
            if _is_at(path, descriptor):
                return path, descriptor
        except BlockingIOError:
            pass
        except OSError:
            if _is_at(path, descriptor):
                return path, descriptor  # a file system without locks
        os.close(descriptor)


def _remove_if_abandoned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _is_at(path, descriptor):
            return False
        path.unlink()
        return True
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at ``path``."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def _copy(file: Path, identity: Identity, descriptor: int) -> str:
    """Copy ``file`` into the open file; returns its hash. Raises TagRefusedError if it is not what was heard."""
    hashed = hashlib.sha256()
    with file.open("rb") as source, open(descriptor, "wb", closefd=False) as target:
        if Identity.of(source.fileno()) != identity:
            raise TagRefusedError(Refusal.CHANGED, "the file has changed since it was heard")
        for chunk in _chunks(source):
            hashed.update(chunk)
            target.write(chunk)
        if Identity.of(source.fileno()) != identity:
            raise TagRefusedError(Refusal.CHANGED, "the file is being changed by another program")
    return hashed.hexdigest()


def _adopt(file: Path, copy: Path) -> None:
    """Give ``copy`` the mode, times, extended attributes (access control lists too) and owner of ``file``."""
    found = file.stat()
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):  # only root may give a file away
            os.chown(copy, found.st_uid, found.st_gid)
    with contextlib.suppress(PermissionError):
        shutil.copystat(file, copy)


def _hash_and_sync(path: Path) -> str:
    hashed = hashlib.sha256()
    times = path.stat()
    with path.open("rb") as opened:
        for chunk in _chunks(opened):
            hashed.update(chunk)
        os.fsync(opened.fileno())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return hashed.hexdigest()


def _chunks(opened: BinaryIO) -> Iterator[bytes]:
    while chunk := opened.read(_CHUNK):
        yield chunk
