"""Temporary folders that do not outlive their process, even where it is killed.

A folder is locked as long as it is in use. The system lets go of the lock when the process ends, however it ends; so a
folder that can be locked belongs to nobody, whatever process IDs were used again since, and in whatever container.
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

#: How the names of these folders begin; nothing else may be called so.
PREFIX: Final = "tonestream-work-"


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder in the temporary directory for the time of the block. Raises OSError where none can be made."""
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
        # Between its making and its locking it looks abandoned, and may be gone: then another is made.
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
    """A descriptor that holds the lock of a folder. Raises BlockingIOError where somebody else holds it."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(opened)
        raise
    return opened
