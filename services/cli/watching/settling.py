"""Which files are wholly written: those that have not changed for a while."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: A file that has kept its size and modification time for so many seconds is wholly written.
SETTLED_S: Final = 2.0
#: A file whose last change is so long ago, in seconds, need not be watched first.
_OLD_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What a file looks like from outside."""

    size: int
    mtime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    look: _Look
    since: float


class Settling:
    """Takes the paths of files that are new or may have changed, and gives back those that are ready, each content of
    a file once, also if the file is moved.

    ``clock`` is monotonic, ``now`` the time of day; both in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = now
        self._candidates: dict[str, _Candidate] = {}
        self._done: set[_Look] = set()

    def __len__(self) -> int:
        """How many files are waited for."""
        return len(self._candidates)

    def see(self, path: str) -> None:
        """This file is new, or may have changed."""
        look = _look(path)
        if look is not None and look not in self._done:
            known = self._candidates.get(path)
            if known is None or known.look != look:
                old = self._now() - look.mtime_ns / 1e9 > _OLD_S
                since = self._clock() - (SETTLED_S if old and known is None else 0.0)
                self._candidates[path] = _Candidate(look, since)

    def skip(self, path: str) -> None:
        """This file is not wanted as it is."""
        if (look := _look(path)) is not None:
            self._done.add(look)

    def ready(self) -> Iterator[str]:
        """The files that are wholly written."""
        for path, candidate in list(self._candidates.items()):
            if self._clock() - candidate.since < SETTLED_S:
                continue
            look = _look(path)
            if look is None or look.size == 0:  # it is gone; or it will be seen again when something is written
                del self._candidates[path]
            elif look != candidate.look:
                self._candidates[path] = _Candidate(look, self._clock())
            else:
                del self._candidates[path]
                if look not in self._done:  # else it is the same file under another name
                    self._done.add(look)
                    yield path


def _look(path: str) -> _Look | None:
    """None if the file is gone, or is a folder by now. One that cannot be read looks like any other."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return None if stat.S_ISDIR(found.st_mode) else _Look(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev)
