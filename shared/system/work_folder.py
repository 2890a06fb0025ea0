"""Temporary folders that do not outlive their process, even if it is killed.

A folder is locked as long as it is in use. The system releases the lock when the process ends, however it ends. So a
folder that can be locked is abandoned, regardless of reused process IDs and of containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The prefix of these folders. Nothing else may use it.
PREFIX: Final = "tonestream-work-"


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder in the temporary directory that exists during the block. Raises OSError if none can be made."""
    path, lock = _locked_folder()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> int:
    """Remove the folders of processes that are gone from the temporary directory; returns how many.

    Folders in use and those of other users are left alone. Safe from many processes at once.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                removed += _remove_if_abandoned(path)
    return removed


def _locked_folder() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Before it is locked it looks abandoned and may be removed. Then another one is made.
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = _lock(path)
            if path.exists():
                return path, lock
            os.close(lock)


def _remove_if_abandoned(path: Path) -> bool:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    lock = _lock(path)
    try:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def _lock(path: Path) -> int:
    """A descriptor that holds the lock of a folder. Raises BlockingIOError if somebody else holds it."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(opened)
        raise
    return opened
