"""Which names music has, and what systems put beside people's files.

A dot at the beginning of a name says nothing: songs and albums have such names, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Names of music and of films. Such a file is tried, and fails with a reason where it cannot be decoded.
MUSIC_SUFFIXES: Final = frozenset(
    {
        ".3ga", ".aa", ".aac", ".aax", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape",
        ".au", ".bwf", ".caf", ".dff", ".dsf", ".dts", ".eac3", ".f4a", ".flac", ".gsm", ".m4a", ".m4b", ".m4p",
        ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4", ".mpc", ".mpga", ".oga", ".ogg",
        ".ogx", ".opus", ".ra", ".rf64", ".shn", ".snd", ".spx", ".tak", ".tta", ".w64", ".wav", ".wave",
        ".weba", ".webm", ".wma", ".wv",
    }
)  # fmt: skip
#: What systems put beside people's files, by its name in lower case.
_SYSTEM_FILES: Final = frozenset(
    {".ds_store", ".directory", ".localized", ".nomedia", "desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"}
)
_SYSTEM_FOLDERS: Final = frozenset(
    {
        ".appledouble", ".documentrevisions-v100", ".fseventsd", ".git", ".hg", ".spotlight-v100", ".svn",
        ".temporaryitems", "$recycle.bin", "@eadir", "__macosx", "lost+found", "recycler", "system volume information",
    }
)  # fmt: skip
#: ``.Trash``, ``.Trashes``, ``.Trash-1000``.
_TRASH: Final = ".trash"
#: Attributes that macOS keeps in a file of their own, where the disk has no place for them: ``._song.mp3``.
_APPLE_DOUBLE: Final = ("._", b"\x00\x05\x16\x07")


def is_system_file(name: str) -> bool:
    """Whether a system made a file of that name, for itself."""
    return name.lower() in _SYSTEM_FILES


def is_system_folder(name: str) -> bool:
    """Whether a folder of that name holds what a system keeps for itself, or what was thrown away."""
    return name.lower() in _SYSTEM_FOLDERS or name.lower().startswith(_TRASH)


def is_apple_double(path: str | Path) -> bool:
    """Whether the file holds nothing but attributes of the one beside it. Raises OSError."""
    prefix, magic = _APPLE_DOUBLE
    file = Path(path)
    if not file.name.startswith(prefix) or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(magic)) == magic
