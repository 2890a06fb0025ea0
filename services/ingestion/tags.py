"""Title and artist from the file's own tags, for people who read the results."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path
from typing import BinaryIO, Final, cast

from tinytag import TinyTag

log = logging.getLogger(__name__)

_MAX_LENGTH: Final = 300
#: Bytes of one read (a tag of text is shorter; covers are stepped over, not read) and of all reads.
_MOST_AT_ONCE: Final = 1 << 20
_MOST_BYTES: Final = 4 << 20
_MOST_SECONDS: Final = 1.0

# Further values of a field and unknown fields are not asked for. TinyTag compares each of them with all before it: a
# file of a few megabytes could keep it busy for hours.
setattr(TinyTag, "_set_other_field", lambda self, fieldname, value: None)  # noqa: B010 (not a method for type checkers)


def read_tags(file: Path) -> tuple[str | None, str | None]:
    """(title, artist), each None where the file does not say. Never fails: tags are a courtesy.

    Takes a few megabytes of memory and about a second at most, whatever the file claims; one that takes more has none.
    """
    try:
        with file.open("rb") as opened, _SparingFile(opened) as sparing:
            tag = TinyTag.get(filename=None, file_obj=cast(BinaryIO, sparing), duration=False)
        return _clean(tag.title), _clean(tag.artist)
    except Exception as error:  # a parser of anybody's bytes: there is no end to what it may raise
        log.debug("no tags: %r", error)
        return None, None


class _SparingFile(io.BufferedIOBase):
    """A file that does not let itself be read for long. Raises OSError where a read asks for too much."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._bytes_left = _MOST_BYTES
        self._deadline = time.monotonic() + _MOST_SECONDS

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_AT_ONCE or time.monotonic() > self._deadline:
            raise OSError("the tags are too long")
        data = self._file.read(size)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise OSError("the tags are too long")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _clean(text: str | None) -> str | None:
    if not text:
        return None
    spaced = " ".join(text[: 10 * _MAX_LENGTH].split())
    printable = "".join(character for character in spaced if character.isprintable()).strip()
    return printable[:_MAX_LENGTH].rstrip() or None
