"""What happens in a folder, from a thread of its own: by notifications of the system, or by looking again and again."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.cli.output import complain
from services.cli.scan import LeftOut, Scan
from services.cli.watching.settling import Settling

#: Paths on their way to whoever classifies; then the thread waits.
_QUEUE: Final = 1000
#: How often the folder itself is looked for, in seconds.
_FOLDER_S: Final = 1.0
#: Between two looks at all files, where there are no notifications: so many seconds, or so many times as long as a
#: look takes.
_POLL_S: Final = 5.0
_POLL_SHARE: Final = 20
#: Downloads and copies that are under way.
_UNFINISHED: Final = frozenset(
    {
        ".part",
        ".partial",
        ".crdownload",
        ".download",
        ".tmp",
        ".temp",
        ".filepart",
        ".!ut",
        ".!qb",
        ".aria2",
        ".opdownload",
    }
)


class Changes:
    """The files of ``folder`` that are there, appear or change. A context manager: a thread looks within the block.

    ``poll``: look again and again instead of waiting for notifications (network drives send none). The thread also
    does so if the system gives no notifications, and says why on standard error. It waits for a folder that is gone.
    """

    def __init__(self, folder: Path, poll: bool = False) -> None:
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100 (links stay links)
        self._poll = poll
        self._faults: set[str] = set()
        self._queue: queue.Queue[str] = queue.Queue(_QUEUE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="folder", daemon=True)
        #: Set when everything that was there at the start is in the queue, or has been taken from it.
        self.caught_up = threading.Event()

    def __enter__(self) -> Changes:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def take(self) -> str | None:
        """The path of a file that is there, new or changed; None if there is none at the moment. Raises RuntimeError
        if the thread ended."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            if not self._thread.is_alive():
                raise RuntimeError("the folder is not watched any more, by a defect of this program") from None
            return None

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._folder.is_dir():
                complain(f"{self._folder} is gone; waiting for it to come back")
                while not self._folder.is_dir():
                    if self._stop.wait(_FOLDER_S):
                        return
                complain(f"{self._folder} is back")
            if self._poll:
                self._look_again_and_again()
            else:
                self._follow()

    def _follow(self) -> None:
        """Notifications, until the folder is gone, or there are no more of them."""
        try:
            from watchfiles import watch
        except ModuleNotFoundError:
            self._fall_back('watchfiles is not installed (pip install "tonestream[laptop]")')
            return
        identity = _identity(self._folder)
        first = True
        try:
            for changes in watch(
                self._folder,
                watch_filter=None,
                rust_timeout=int(1000 * _FOLDER_S),
                yield_on_timeout=True,
                stop_event=self._stop,
                ignore_permission_denied=True,
                raise_interrupt=False,
                debounce=400,
            ):
                if first:
                    # Now that notifications come, nothing that is made during this look is missed.
                    first = False
                    self._everything(self._folder)
                    self.caught_up.set()
                for _, path in changes:
                    self._changed(path)
                if _identity(self._folder) != identity:
                    return
        except FileNotFoundError:
            return  # gone again
        except (OSError, RuntimeError) as error:  # the latter where not even a watcher can be made
            self._fall_back(f"the system sends no notifications ({_reason(error)})")

    def _look_again_and_again(self) -> None:
        identity = _identity(self._folder)
        while not self._stop.is_set() and _identity(self._folder) == identity and identity is not None:
            began = time.monotonic()
            self._everything(self._folder)
            self.caught_up.set()
            took = time.monotonic() - began
            self._stop.wait(max(_POLL_S, _POLL_SHARE * took))

    def _fall_back(self, why: str) -> None:
        complain(f"{why}; looking at all files every {_POLL_S:.0f} s instead")
        self._poll = True

    def _changed(self, path: str) -> None:
        if os.path.isdir(path):  # noqa: PTH112
            # What was made in a new folder before it was watched itself is found by looking.
            self._everything(Path(path))
        elif os.path.isfile(path) and not is_unfinished(path) and Scan(LeftOut()).may_be_music(path):  # noqa: PTH113
            self._put(path)

    def _everything(self, folder: Path) -> None:
        for found in Scan(LeftOut()).folder(str(folder)):
            if self._stop.is_set():
                return
            if found.fault is not None:
                if found.path not in self._faults:
                    self._faults.add(found.path)
                    complain(f"{found.path}: {found.fault}")
            elif not is_unfinished(found.path):
                self._put(found.path)

    def _put(self, path: str) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(path, timeout=0.5)
                return
            except queue.Full:
                continue


def is_unfinished(path: str) -> bool:
    """Whether the name is that of a download or copy under way: ``song.mp3.part``, rsync's ``.song.mp3.Ab12Cd``."""
    name = Path(path).name
    suffix = Path(name).suffix.lower()
    return suffix in _UNFINISHED or (name.startswith(".") and name.count(".") > 2)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC or "limit" in str(error).lower():
        return "fs.inotify.max_user_watches is too low for this folder; sysctl raises it"
    if number == errno.EMFILE or "too many open files" in str(error).lower():
        return "fs.inotify.max_user_instances is used up; sysctl raises it"
    return str(error)


def settled(changes: Changes, settling: Settling, new_only: bool) -> Iterator[str | None]:
    """The files of the folder that are wholly written, as they become ready; None while there is none.

    ``new_only``: not those that are there already. Never ends.
    """
    skipping = new_only
    while True:
        while len(settling) < _QUEUE:
            # Asked before the queue is: what comes later is new.
            caught_up = changes.caught_up.is_set()
            path = changes.take()
            if path is None:
                skipping = skipping and not caught_up
                break
            if skipping:
                settling.skip(path)
            else:
                settling.see(path)
        yield from settling.ready()
        yield None
