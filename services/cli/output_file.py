"""A file that is written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from services.cli.status import UsageError

_READABLE_BY_ALL: Final = 0o666


class OutputError(RuntimeError):
    """A file cannot be written. The message says which, and why."""


class OutputFile:
    """A text file in UTF-8 that takes its name when it is finished. Until then another file of that name stays.

    A device or a pipe is written at once. Raises UsageError if the file cannot be created there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: A link stays a link: what it leads to is replaced.
        self._target = Path(os.path.realpath(path))
        self._part: Path | None = None
        try:
            self._file = self._opened()
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error

    def write(self, text: str) -> None:
        """Append ``text``. Raises OutputError."""
        with self._named():
            self._file.write(text)

    def finish(self) -> None:
        """Give the file its name. Raises OutputError."""
        with self._named():
            self._file.flush()
            if self._part is not None:
                os.fsync(self._file.fileno())
            self._file.close()
            if self._part is not None:
                self._part.replace(self._target)

    def abandon(self, keep: bool) -> Path | None:
        """Stop here. ``keep``: returns where the part that was written lies, if there is one; else it is removed."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._part is not None and not keep:
            self._part.unlink(missing_ok=True)
            return None
        return self._part

    def _opened(self) -> IO[str]:
        mode = _READABLE_BY_ALL & ~_umask()
        with contextlib.suppress(FileNotFoundError):
            found = self._target.stat()
            if not stat.S_ISREG(found.st_mode):
                return self._target.open("w", encoding="utf-8", newline="", errors="backslashreplace")
            mode = stat.S_IMODE(found.st_mode)
        number, name = tempfile.mkstemp(prefix=f".{self._target.name}.", suffix=".part", dir=self._target.parent)
        self._part = Path(name)
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(number, mode)
        return open(number, "w", encoding="utf-8", newline="", errors="backslashreplace")  # noqa: PTH123

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors name the file that the user knows."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    """The process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
