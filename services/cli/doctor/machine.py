"""What the machine gives: room on disks, open files, notifications of changed files."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.cli.doctor.finding import Finding, fail, ok, warn
from services.library.store import default_path
from shared.contracts.errors import megabytes
from shared.settings import Settings

_GB: Final = 1 << 30
#: Decoded audio of the tracks in hand takes a few hundred megabytes.
_TOO_LITTLE: Final = 256 << 20
_LITTLE: Final = 2 * _GB
#: Of open files, for each process.
_TOO_FEW_FILES: Final = 256
_FEW_FILES: Final = 1024
#: One watch a folder. 50,000 tracks lie in some 5,000.
_FEW_WATCHES: Final = 16384
_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")


def temporary_folder(settings: Settings) -> Iterator[Finding]:
    """Where ``classify`` keeps decoded audio."""
    yield _room("temporary folder", Path(tempfile.gettempdir()), "the variable TMPDIR names another folder")


def data_folder(settings: Settings) -> Iterator[Finding]:
    """Where ``--resume`` keeps what is classified."""
    yield _room("data folder", default_path().parent, "the variable XDG_DATA_HOME names another folder")


def blob_folder(settings: Settings) -> Iterator[Finding]:
    """Where the workers keep decoded audio, a folder of this machine."""
    folder = Path(settings.blob_url.removeprefix("file://"))
    yield _room("blob store", folder, "TONESTREAM_BLOB_URL names another folder; all workers need the same one")


def open_files(settings: Settings) -> Iterator[Finding]:
    """How many files the process may have open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= _FEW_FILES:
        yield ok("open files", "any number" if most == resource.RLIM_INFINITY else f"{most}")
    elif most >= _TOO_FEW_FILES:
        yield warn("open files", f"at most {most}", f"`ulimit -n {_FEW_FILES}` raises it in this shell")
    else:
        yield fail("open files", f"at most {most}", f"`ulimit -n {_FEW_FILES}` raises it in this shell")


def notifications(settings: Settings) -> Iterator[Finding]:
    """How many folders ``watch`` can follow (Linux)."""
    if sys.platform != "linux":
        return
    try:
        most = int(_WATCHES.read_text())
    except (OSError, ValueError) as error:
        yield warn("inotify", f"{_WATCHES} cannot be read: {error}", "`tonestream watch --poll` needs no notifications")
        return
    if most < _FEW_WATCHES:
        advice = (
            f"`sysctl fs.inotify.max_user_watches={8 * _FEW_WATCHES}` raises it; until then large folders are polled"
        )
        yield warn("inotify", f"`tonestream watch` can follow {most} folders", advice)
    else:
        yield ok("inotify", f"`tonestream watch` can follow {most} folders")


def _room(subject: str, folder: Path, elsewhere: str) -> Finding:
    """Whether there is room in the folder, or where it will be made, and it can be written."""
    there = next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
    try:
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return fail(subject, f"{folder} cannot be written: {error.strerror or error}", elsewhere)
    shown = f"{folder}: {free / _GB:.0f} GB free" if free >= 10 * _GB else f"{folder}: {megabytes(free)} free"
    if free < _TOO_LITTLE:
        return fail(subject, shown, f"make room; {elsewhere}")
    if free < _LITTLE:
        return warn(subject, shown, f"make room; {elsewhere}")
    return ok(subject, shown)
