"""Why the tags of a file are left as they are."""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final


class Refusal(StrEnum):
    """The kinds of reasons. After each of them the file is what it was before."""

    NOT_TAGGABLE = "not_taggable"
    DAMAGED = "damaged"
    READ_ONLY = "read_only"
    NO_SPACE = "no_space"
    CHANGED = "changed"
    GONE = "gone"
    NOT_KEPT = "not_kept"
    JOURNAL = "journal"
    UNREACHABLE = "unreachable"


class TagRefusedError(Exception):
    """The tags were not written, and the file is untouched. The message is a sentence for people."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.message = message


class MutagenMissingError(Exception):
    """The library that reads and writes tags is not installed."""

    def __init__(self) -> None:
        super().__init__(
            'tags in files need mutagen, which comes only when asked for: pip install "tonestream[tags]" (after'
            " `make run`: .venv/bin/pip install mutagen)"
        )


_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def refused(error: OSError, what: str) -> TagRefusedError:
    """The refusal that follows from an error of the system while ``what`` was written, such as ``the folder``."""
    if error.errno in _NO_SPACE:
        return TagRefusedError(Refusal.NO_SPACE, f"there is no room for a copy of the file ({error.strerror})")
    if error.errno in _READ_ONLY:
        return TagRefusedError(Refusal.READ_ONLY, f"{what} cannot be written: {error.strerror}")
    return unreadable(error)


def unreadable(error: OSError) -> TagRefusedError:
    """The refusal that follows from an error of the system while the file was read."""
    if error.errno == errno.ENOENT:
        return TagRefusedError(Refusal.GONE, "the file is gone")
    return TagRefusedError(Refusal.UNREACHABLE, f"the file cannot be read: {error.strerror or error}")
