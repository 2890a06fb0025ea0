"""Title and artist from the file's own tags, for people who read the results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from tinytag import TinyTag

log = logging.getLogger(__name__)

_MAX_LENGTH: Final = 300


def read_tags(file: Path) -> tuple[str | None, str | None]:
    """(title, artist), each None where the file does not say. Never fails: tags are a courtesy."""
    try:
        with file.open("rb") as opened:
            tag = TinyTag.get(filename=None, file_obj=opened, duration=False)
        return _clean(tag.title), _clean(tag.artist)
    except Exception as error:  # a parser of anybody's bytes: there is no end to what it may raise
        log.debug("no tags: %r", error)
        return None, None


def _clean(text: str | None) -> str | None:
    if not text:
        return None
    spaced = " ".join(text.split())
    printable = "".join(character for character in spaced if character.isprintable()).strip()
    return printable[:_MAX_LENGTH].rstrip() or None
