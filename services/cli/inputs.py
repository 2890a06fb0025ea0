"""From what a person typed to what is to be classified."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.tracks import looks_like_spotify

#: A folder is searched for these; a file that is named itself is tried whatever it is called.
AUDIO_SUFFIXES: Final = frozenset(
    [
        ".mp3",
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".m4a",
        ".mp4",
        ".aac",
        ".aif",
        ".aiff",
        ".au",
        ".wma",
        ".webm",
        ".mka",
    ]
)


@dataclass(frozen=True, slots=True)
class Input:
    """``given`` is what the result calls it."""

    kind: Literal["file", "url", "spotify"]
    given: str

    @property
    def path(self) -> Path:
        return Path(self.given)

    @property
    def exists(self) -> bool:
        """Whether there is such a path."""
        return _exists(self.path)


def expand(arguments: Sequence[str]) -> Iterator[Input]:
    """Files, URLs and Spotify tracks, in the order given; folders recursively, in the order of their names.

    What exists as a path is a path, whatever it looks like. What is neither path nor URL nor Spotify track is taken
    for a path that does not exist, and fails as one.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if _exists(path) and path.is_dir():
            yield from (Input("file", str(file)) for file in _audio_files(path))
        elif _exists(path):
            yield Input("file", str(path))
        elif looks_like_spotify(argument):
            yield Input("spotify", argument)
        elif "://" in argument:
            yield Input("url", argument)
        else:
            yield Input("file", str(path))


def refuse_too_large(file: Path, max_bytes: int) -> None:
    """Raises TonestreamError (too_large) for a file ingestion would not take: a sparse one may say it has terabytes,
    and would have them once it is copied. OSError where there is none."""
    if file.stat().st_size > max_bytes:
        raise TonestreamError(ErrorCode.TOO_LARGE, f"the file has more than {max_bytes} bytes")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with bytes no name has: a URL may be both
        return False


def _audio_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(place) / name
