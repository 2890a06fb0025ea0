"""Temporary folders: gone with their process, however it ended, and never taken from a living one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.system.work_folder import PREFIX, remove_abandoned, work_folder

_HOLD = """
import sys, time
from shared.system.work_folder import work_folder
with work_folder() as folder:
    (folder / "source").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


def holder() -> tuple[subprocess.Popen[str], Path]:
    """Another process that works in a folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not() -> None:
    (killed, abandoned), (living, used) = holder(), holder()
    try:
        assert remove_abandoned() == 0
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert abandoned.exists(), "a killed process cleans nothing up"
        assert remove_abandoned() == 1
        assert not abandoned.exists()
        assert (used / "source").exists()
    finally:
        living.communicate("")
    assert not used.exists(), "a process that ends well does"


def test_a_program_started_by_a_killed_process_does_not_keep_its_folder() -> None:
    script = _HOLD.replace("import sys, time", "import subprocess, sys").replace(
        "    print(folder",
        '    subprocess.Popen(["sleep", "20"], stdin=subprocess.DEVNULL, process_group=0)\n    print(folder',
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    assert remove_abandoned() == 1 and not folder.exists()


def test_folders_in_use_by_this_process_are_left_alone() -> None:
    with work_folder() as folder:
        (folder / "source").touch()
        assert remove_abandoned() == 0
        assert (folder / "source").exists()
    assert not folder.exists()


def test_nothing_but_folders_of_that_name_is_removed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").touch()
    os.mkfifo(temporary / f"{PREFIX}fifo")
    (temporary / "tonestream-blobs").mkdir()
    (temporary / f"{PREFIX}old").mkdir()
    assert remove_abandoned() == 1
    left = {path.name for path in temporary.iterdir()}
    assert left == {"elsewhere", "tonestream-blobs", f"{PREFIX}link", f"{PREFIX}file", f"{PREFIX}fifo"}
    assert (elsewhere / "kept").exists()


def test_a_folder_is_never_taken_from_under_its_maker() -> None:
    ended = threading.Event()

    def sweep() -> None:
        while not ended.is_set():
            remove_abandoned()

    def work(number: int) -> bool:
        with work_folder() as folder:
            file = folder / "source"
            file.write_bytes(b"x")
            return file.exists()

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(300)))
    finally:
        ended.set()
        for sweeper in sweepers:
            sweeper.join()
    assert remove_abandoned() == 0


def test_a_temporary_directory_that_cannot_be_used_is_an_os_error(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
    assert remove_abandoned() == 0
    with pytest.raises(OSError, match="missing"), work_folder():
        pass
