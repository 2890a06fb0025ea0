"""From command-line arguments to inputs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.cli.scan import LeftOut, Scan, reason
from shared.contracts.tracks import FILE_SCHEME, looks_like_spotify, path_of_file_url

#: The argument is no path: none exists by that name, or no path can have it. A URL may be too long for a path.
_NO_SUCH_PATH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Input:
    """``given`` is its name in the result. ``fault`` says why it cannot be read, if that is known already."""

    kind: Literal["file", "url", "spotify", "unknown"]
    given: str
    fault: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.given)


def expand(arguments: Sequence[str], left_out: LeftOut) -> Iterator[Input]:
    """Files, URLs and Spotify tracks, in the order given; folders recursively, in the order of their names.

    An existing path is a path, whatever it looks like. An argument that is neither path nor URL nor Spotify track has
    the kind ``unknown``. ``left_out`` counts what a folder holds besides music.
    """
    scan = Scan(left_out)
    for argument in arguments:
        yield from _one(argument, scan)


def _one(argument: str, scan: Scan) -> Iterator[Input]:
    for path in dict.fromkeys((argument, _at_home(argument))) if argument else ():
        try:
            mode = Path(path).stat().st_mode
        except (OSError, ValueError) as error:
            if (fault := _fault(path, error)) is not None:
                yield Input("file", path, fault)
                return
            continue
        if stat.S_ISDIR(mode):
            for found in scan.folder(path):
                yield Input("file", found.path, found.fault)
        else:
            yield Input("file", str(Path(path)))
        return
    if looks_like_spotify(argument):
        yield Input("spotify", argument)
    elif argument.lower().startswith(FILE_SCHEME):
        yield _of_file_url(argument)
    elif "://" in argument:
        yield Input("url", argument)
    else:
        yield Input("unknown", argument)


def _of_file_url(url: str) -> Input:
    try:
        return Input("file", path_of_file_url(url))
    except ValueError as error:
        return Input("file", url, str(error))


def _at_home(argument: str) -> str:
    """``~`` and ``~user`` are replaced by that user's folder. If there is no such user, the name stays."""
    return os.path.expanduser(argument)  # noqa: PTH111 (pathlib's raises where there is no such user)


def _fault(path: str, error: OSError | ValueError) -> str | None:
    """Why ``path`` cannot be read; None if it does not exist."""
    if isinstance(error, ValueError):
        return None
    if error.errno in _NO_SUCH_PATH and not os.path.islink(path):  # noqa: PTH114 (it may be no path at all)
        return None
    return f"it cannot be read: {reason(path, error)}"
