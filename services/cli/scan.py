"""Which files of a folder may be music. The others are counted and reported."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from services.library.tagging.leftovers import is_unfinished_copy
from shared.audio.containers import container
from shared.contracts.errors import TonestreamError

#: Extensions of music and video. Such a file is tried, and fails with a reason if it cannot be decoded.
_MUSIC: Final = frozenset(
    {
        ".3ga", ".aa", ".aac", ".aax", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape",
        ".au", ".bwf", ".caf", ".dff", ".dsf", ".dts", ".eac3", ".f4a", ".flac", ".gsm", ".m4a", ".m4b", ".m4p",
        ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4", ".mpc", ".mpga", ".oga", ".ogg",
        ".ogx", ".opus", ".ra", ".rf64", ".shn", ".snd", ".spx", ".tak", ".tta", ".w64", ".wav", ".wave",
        ".weba", ".webm", ".wma", ".wv",
    }
)  # fmt: skip
#: Extensions of other files. A file with an unknown extension is judged by its first bytes.
_NOT_MUSIC: Final = frozenset(
    {
        ".accurip", ".avif", ".bmp", ".bz2", ".c", ".cfg", ".conf", ".csv", ".css", ".cue", ".db", ".dll",
        ".doc", ".docx", ".exe", ".gif", ".gz", ".h", ".heic", ".heif", ".html", ".ico", ".ini", ".iso",
        ".jpeg", ".jpg", ".js", ".json", ".jsonl", ".lnk", ".log", ".lrc", ".m3u", ".m3u8", ".md", ".md5",
        ".nfo", ".pdf", ".pls", ".png", ".ps", ".psd", ".py", ".rar", ".rtf", ".sfv", ".sh", ".sha1", ".sha256",
        ".sqlite", ".srt", ".svg", ".tar", ".tif", ".tiff", ".toml", ".torrent", ".txt", ".url", ".vtt",
        ".webloc", ".webp", ".wpl", ".xls", ".xlsx", ".xml", ".xspf", ".xz", ".yaml", ".yml", ".zip", ".zst",
    }
)  # fmt: skip
#: Files that operating systems add, by name in lower case.
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
#: Attribute files of macOS on foreign file systems: ``._song.mp3``.
_APPLE_DOUBLE: Final = ("._", b"\x00\x05\x16\x07")
#: The most kinds of files that are named. The others are counted.
_MOST_NAMED: Final = 4


@dataclass(slots=True)
class LeftOut:
    """The files in folders that are not tried."""

    not_music: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    known_folders: int = 0
    #: Folders without music.
    empty: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A sentence for people; empty if nothing was left out."""
        parts = []
        if count := self.not_music.total():
            parts.append(
                f"{_count(count, 'file')} that {'is' if count == 1 else 'are'} not music ({_most(self.not_music)})"
            )
        if count := self.system.total():
            parts.append(f"{_count(count, 'system file or folder', 'system files and folders')} ({_most(self.system)})")
        if self.known_folders:
            parts.append(f"{_count(self.known_folders, 'link')} to folders that are searched anyway")
        return f"left out: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True)
class Found:
    """Something that may be music. ``fault`` says why it cannot be read, if that is known already."""

    path: str
    fault: str | None = None


class _Entry(Protocol):
    """What is asked of a file; ``os.DirEntry`` has it."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def is_file(self) -> bool: ...

    def stat(self) -> os.stat_result: ...


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is not found by listing its folder."""

    path: str

    @property
    def name(self) -> str:
        return Path(self.path).name

    def is_file(self) -> bool:
        return Path(self.path).is_file()

    def stat(self) -> os.stat_result:
        return Path(self.path).stat()


def reason(path: str | Path, error: OSError) -> str:
    """Why ``path`` cannot be read, briefly."""
    if isinstance(error, FileNotFoundError) and Path(path).is_symlink():
        return "it is a link to something that is not there"
    return error.strerror or str(error)


class Scan:
    """Searches folders recursively, in the order of their names, each one once, links included."""

    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out

    def folder(self, path: str) -> Iterator[Found]:
        """The possible music in a folder given by the user."""
        empty = True
        # A parent folder does not belong to this one, even if a link leads to it.
        around = Path(os.path.realpath(path))
        seen = {identity for one in (around, *around.parents) if (identity := _identity(one)) is not None}
        waiting = [path]
        while waiting:
            inside: list[str] = []
            for found in self._files(waiting.pop(), inside):
                empty = False
                yield found
            waiting += reversed([one for one in inside if self._is_new(one, seen)])
        if empty:
            self._left_out.empty.append(path)

    def may_be_music(self, path: str) -> bool:
        """Whether a single file is to be tried. One that cannot be read is."""
        try:
            return self._may_be_music(_File(path))
        except OSError:
            return True

    def _files(self, folder: str, inside: list[str]) -> Iterator[Found]:
        """The possible music directly in ``folder``; ``inside`` takes its subfolders."""
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as listing:
                entries.extend(listing)
        except OSError as error:
            yield Found(folder, f"the folder cannot be read: {reason(folder, error)}")
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                if entry.is_dir():
                    if self._is_system_folder(entry.name):
                        self._left_out.system[entry.name] += 1
                    else:
                        inside.append(entry.path)
                elif self._may_be_music(entry):
                    yield Found(str(Path(entry.path)))
            except OSError as error:
                yield Found(str(Path(entry.path)), f"the file cannot be read: {reason(entry.path, error)}")

    def _is_new(self, folder: str, seen: set[tuple[int, int]]) -> bool:
        """Whether ``folder`` is not yet in ``seen``; adds it. An unreadable folder counts as new."""
        identity = _identity(folder)
        if identity is None:
            return True
        if identity in seen:
            self._left_out.known_folders += 1
            return False
        seen.add(identity)
        return True

    def _is_system_folder(self, name: str) -> bool:
        return name.lower() in _SYSTEM_FOLDERS or name.lower().startswith(_TRASH)

    def _may_be_music(self, entry: _Entry) -> bool:
        """Whether a file is to be tried; if not, it is counted. Raises OSError if the file cannot be read."""
        suffix = Path(entry.name).suffix.lower()
        if is_unfinished_copy(entry.name):
            return False
        if entry.name.lower() in _SYSTEM_FILES or _is_apple_double(entry):
            self._left_out.system[entry.name if entry.name.lower() in _SYSTEM_FILES else "._*"] += 1
            return False
        if suffix in _MUSIC or (suffix not in _NOT_MUSIC and _sounds_like_music(entry)):
            return True
        self._left_out.not_music[suffix] += 1
        return False


def _sounds_like_music(entry: _Entry) -> bool:
    """Whether a file begins like music. Raises OSError."""
    if not entry.is_file():
        entry.stat()  # a broken link has no status
        return False  # a pipe or a device, which might block
    try:
        container(Path(entry.path))
        return True
    except TonestreamError:
        return False


def _is_apple_double(entry: _Entry) -> bool:
    prefix, magic = _APPLE_DOUBLE
    if not entry.name.startswith(prefix) or not entry.is_file():
        return False
    with open(entry.path, "rb") as file:  # noqa: PTH123 (the path is text here)
        return file.read(len(magic)) == magic


def _identity(path: str | Path) -> tuple[int, int] | None:
    """The identity of a folder on this machine; None if it cannot be read."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _most(counted: Counter[str]) -> str:
    """``3 .jpg, 2 .txt and 4 others``"""
    named = [f"{count} {name or 'without a suffix'}" for name, count in counted.most_common(_MOST_NAMED)]
    others = counted.total() - sum(count for _, count in counted.most_common(_MOST_NAMED))
    return ", ".join(named) + (f" and {others} others" if others else "")
