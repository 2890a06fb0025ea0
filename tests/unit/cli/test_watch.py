"""A watched folder: a file is taken once, when it is wholly written, whatever happens to the folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import watchfiles

from services.cli.watching import changes as watching
from services.cli.watching.changes import Changes, is_unfinished, settled
from services.cli.watching.settling import SETTLED_S, Settling
from tests.support.quick_run import QuickRun, songs, wait_until


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settling(clock: Clock) -> Settling:
    return Settling(clock, now=lambda: 0.0)  # no file is old


def test_a_file_is_ready_when_it_has_not_changed_for_a_while(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    (song,) = songs(tmp_path, "a.mp3")
    settling.see(str(song))
    assert list(settling.ready()) == []
    clock.s += SETTLED_S
    song.write_bytes(b"more and more")
    assert list(settling.ready()) == []
    clock.s += SETTLED_S / 2
    settling.see(str(song))  # one more notification, of a change that was seen already
    clock.s += SETTLED_S / 2
    assert list(settling.ready()) == [str(song)]
    settling.see(str(song))
    clock.s += SETTLED_S
    assert list(settling.ready()) == [] and len(settling) == 0


def test_a_changed_file_is_taken_again_and_a_moved_one_is_not(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    (song,) = songs(tmp_path, "a.mp3")

    def taken(file: Path) -> list[str]:
        settling.see(str(file))
        clock.s += SETTLED_S
        return [Path(path).name for path in settling.ready()]

    assert taken(song) == ["a.mp3"]
    moved = song.rename(tmp_path / "b.mp3")
    assert taken(moved) == []
    moved.write_bytes(b"other music")
    assert taken(moved) == ["b.mp3"]


def test_a_file_that_is_gone_or_empty_is_not_waited_for(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    (song,) = songs(tmp_path, "a.mp3")
    (tmp_path / "empty.mp3").touch()
    for file in (song, tmp_path / "empty.mp3", tmp_path / "never.mp3"):
        settling.see(str(file))
    song.unlink()
    clock.s += SETTLED_S
    assert list(settling.ready()) == [] and len(settling) == 0


def test_an_old_file_is_ready_at_once(tmp_path: Path) -> None:
    (song,) = songs(tmp_path, "a.mp3")
    os.utime(song, (1.0, 1.0))
    settling = Settling()
    settling.see(str(song))
    assert list(settling.ready()) == [str(song)]


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [
        ("song.mp3.part", True), ("song.mp3.crdownload", True), (".song.mp3.Ab12Cd", True), ("song.mp3", False),
        (".hidden.mp3", False), ("Vol. 1. No. 2.mp3", False),
    ],
)  # fmt: skip
def test_downloads_and_copies_under_way_are_known_by_their_names(name: str, unfinished: bool) -> None:
    assert is_unfinished(f"/music/{name}") is unfinished


@pytest.fixture(params=["notified", "polled", "refused by the system"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Short waits; the value says whether the folder is polled."""
    monkeypatch.setattr(watching, "_POLL_S", 0.2)
    monkeypatch.setattr(watching, "_FOLDER_S", 0.1)
    monkeypatch.setattr("services.cli.watching.settling.SETTLED_S", 0.2)
    if request.param == "refused by the system":

        def refuse(*arguments: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(watchfiles, "watch", refuse)
    yield request.param == "polled"


class Watcher:
    """Takes files in a thread."""

    def __init__(self, folder: Path, poll: bool, new_only: bool = False) -> None:
        self.taken: list[str] = []
        self._end = threading.Event()
        self._changes = Changes(folder, poll)
        self._thread = threading.Thread(target=self._take, args=(new_only,))

    def __enter__(self) -> Watcher:
        self._changes.__enter__()
        self._thread.start()
        wait_until(self._changes.caught_up.is_set)
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()
        self._changes.__exit__()

    def _take(self, new_only: bool) -> None:
        for path in settled(self._changes, Settling(), new_only):
            if path is not None:
                self.taken.append(Path(path).name)
            if self._end.wait(0.02):
                return

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: sorted(self.taken) == sorted(names))


def test_what_is_there_comes_first_and_then_what_is_added_also_in_new_folders(
    tmp_path: Path, fast: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    songs(tmp_path, "a.mp3", "notes.txt", "b.mp3.part")
    with Watcher(tmp_path, fast) as watcher:
        watcher.wait_for("a.mp3")
        (tmp_path / "b.mp3.part").rename(tmp_path / "b.mp3")
        songs(tmp_path / "new" / "deep", "c.mp3")
        watcher.wait_for("a.mp3", "b.mp3", "c.mp3")
    err = capsys.readouterr().err
    assert "a.mp3" not in err
    if watchfiles.watch.__module__ != "watchfiles.main":
        assert "fs.inotify.max_user_watches is too low" in err and "instead" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError("OS file watch limit reached. about [] (Error { kind: MaxFilesWatch })"),
            "max_user_watches is too low",
        ),
        (RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"), "max_user_instances"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_why_there_are_no_notifications_is_said_in_words(error: Exception, said: str) -> None:
    assert said in watching._reason(error)


def test_a_folder_may_vanish_and_return(tmp_path: Path, fast: bool, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "music"
    songs(folder, "a.mp3")
    with Watcher(folder, fast) as watcher:
        watcher.wait_for("a.mp3")
        shutil.rmtree(folder)
        said: list[str] = []

        def knows() -> bool:
            said.append(capsys.readouterr().err)
            return f"{folder} is gone; waiting for it to come back" in "".join(said)

        wait_until(knows)
        songs(folder, "b.mp3")
        watcher.wait_for("a.mp3", "b.mp3")


def test_what_is_there_may_be_left_out(tmp_path: Path, fast: bool) -> None:
    songs(tmp_path, "a.mp3")
    with Watcher(tmp_path, fast, new_only=True) as watcher:
        songs(tmp_path, "b.mp3")
        watcher.wait_for("b.mp3")


def test_the_command_shows_rows_as_they_come_and_ends_with_a_summary(
    tonestream: QuickRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs(tmp_path / "music", "a.mp3", "rock.mp3")

    def interrupt() -> None:
        wait_until(lambda: len(tonestream.heard) == 2)
        songs(tmp_path / "music", "c interrupt.mp3")

    thread = threading.Thread(target=interrupt)
    thread.start()
    status = tonestream("watch", tmp_path / "music", "--output", tmp_path / "x.csv")
    thread.join()
    out, err = capsys.readouterr()
    assert status == 128 + signal.SIGINT
    assert "rock 73%" in out and out.endswith("2 tracks done, 2 ok\n")
    assert f"watching {tmp_path / 'music'}; Ctrl-C ends it" in err
    # The file is finished: a watch has no other end.
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3


def test_something_else_than_a_folder_is_wrong_usage(
    tonestream: QuickRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tonestream("watch", tmp_path / "none") == 2
    assert "none is no folder" in capsys.readouterr().err
