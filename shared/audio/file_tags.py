"""Title and artist from the metadata of a file, shown with the results."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

#: Bytes of metadata that are kept. The rest is read and dropped. The title is among the first entries.
KEPT_BYTES: Final = 64 * 1024
_CHUNK: Final = 1 << 16
_LONGEST: Final = 300
_HEAD: Final = b";FFMETADATA1\n"
#: The last character of truncated metadata, which may not be whole. Whole metadata ends with a newline.
_CUT_CHARACTER: Final = re.compile(rb"[\xc0-\xff][\x80-\xbf]{0,2}\Z")


@dataclass(frozen=True, slots=True)
class FileTags:
    """``title`` and ``artist`` on one line each, at most 300 characters; None if the file has none."""

    title: str | None = None
    artist: str | None = None


def parsed(metadata: bytes) -> FileTags:
    r"""The tags in the output of ffmpeg's muxer ``ffmetadata``, whole or truncated.

    >>> parsed(b";FFMETADATA1\ntitle=A \\= B\nartist=C\nencoder=Lavf\n")
    FileTags(title='A = B', artist='C')

    Source: the section "Metadata" of ffmpeg's documentation of formats.
    """
    if not metadata.startswith(_HEAD):
        return FileTags()
    found: dict[str, str] = {}
    whole = _CUT_CHARACTER.sub(b"", metadata[len(_HEAD) :])
    # One character per byte: bytes that are not UTF-8 affect only their own entry.
    for key, value in _entries(whole.decode("latin-1")):
        found.setdefault(key.lower(), _text(value.encode("latin-1")))
    return FileTags(_cleaned(found.get("title")), _cleaned(found.get("artist")))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Key and value of each entry of the first section, which describes the whole file."""
    key, part, signs = "", [], iter(text)
    in_value = False
    for sign in signs:
        if sign == "\\":
            part.append(next(signs, ""))
        elif sign == "=" and not in_value:
            key, part, in_value = "".join(part), [], True
        elif sign == "\n":
            line = "".join(part)
            if in_value:
                yield key, line
            elif line.startswith("["):
                return
            part, in_value = [], False
        else:
            part.append(sign)
    if in_value:
        yield key, "".join(part)


def _text(value: bytes) -> str:
    """UTF-8, or else Latin-1: ffmpeg copies the bytes of ID3v1, which names no encoding."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _cleaned(text: str | None) -> str | None:
    if not text:
        return None
    spaced = " ".join(text[: 10 * _LONGEST].split())
    printable = "".join(sign for sign in spaced if sign.isprintable() and sign != "\ufffd").strip()
    return printable[:_LONGEST].rstrip() or None


class MetadataReader(threading.Thread):
    """Reads a pipe to its end, so that its writer never blocks, and keeps the beginning."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(name="file-tags", daemon=True)
        self._pipe = pipe
        self._kept = b""

    def run(self) -> None:
        with self._pipe as pipe:
            while chunk := pipe.read(_CHUNK):
                self._kept += chunk[: KEPT_BYTES - len(self._kept)]

    def tags(self) -> FileTags:
        """The tags, once the writer has ended."""
        self.join()
        return parsed(self._kept)
