"""Standard output and standard error in any state: closed, full, without a reader, in any encoding."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Final, TextIO, cast

from services.cli.status import FAILED

_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


class _Output(io.TextIOWrapper):
    """Standard output that remembers its error, because not every writer passes errors on."""

    fault: OSError | None = None

    def write(self, text: str, /) -> int:
        with self._noted():
            return super().write(text)

    def flush(self) -> None:
        with self._noted():
            super().flush()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = self.fault or error
            raise


def prepare() -> None:
    """Make the three standard streams of this process usable. A closed one fails at the first write, like a full one.
    No text fails because of its characters."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # Keeps the descriptor number from the next opened file. It is read-only, so writing to it fails.
            os.open(os.devnull, os.O_RDONLY if name != "stderr" else os.O_WRONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (open as long as the process)
    given = cast(io.TextIOWrapper, sys.stdout)
    encoding, buffering, through = given.encoding, given.line_buffering, given.write_through
    sys.stdout = _Output(given.detach(), encoding, "backslashreplace", None, buffering, through)


def finish(status: int) -> int:
    """Write the buffers. Returns the exit status: ``status``, or that of a failure if output was lost."""
    fault = lost()
    if fault is not None:
        _drop(sys.stdout)
        if fault.errno != errno.EPIPE:  # else its reader has exited (`| head`)
            complain(f"standard output cannot be written: {fault.strerror or fault}")
        status = status or FAILED
    try:
        sys.stderr.flush()
    except OSError:  # standard error is lost as well
        _drop(sys.stderr)
    return status


def _drop(stream: TextIO) -> None:
    """Discard the buffer of ``stream``. Otherwise Python would write it at exit and fail with a message and status of
    its own."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def lost() -> OSError | None:
    """The error of standard output; None if there is none."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return sys.stdout.fault if isinstance(sys.stdout, _Output) else None


def complain(text: str) -> None:
    """Write one line to standard error, and ignore its failure."""
    with contextlib.suppress(OSError, ValueError):
        print(f"tonestream: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """File names may contain anything, even control sequences."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def encodable(text: str) -> str:
    """``text``, with backslash escapes for characters outside the encoding of standard output."""
    encoding = _encoding()
    return text.encode(encoding, "backslashreplace").decode(encoding)


def has(text: str) -> bool:
    """Whether the encoding of standard output has the characters of ``text``."""
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def json_line(document: str) -> str:
    """A JSON document, with JSON escapes for characters outside the encoding of standard output."""
    if has(document):
        return document
    return _NOT_ASCII.sub(lambda found: json.dumps(found.group())[1:-1], document)


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"
