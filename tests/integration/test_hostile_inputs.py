"""Whatever is handed to ``tonestream classify``: special files, names made to confuse, and files made to do harm."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile import WITH_FORGED_HEADERS, WITHOUT_AUDIO
from tests.support.samples import SAMPLE
from tests.support.web_server import WebServer

pytestmark = pytest.mark.timeout(300)

NAMES = [
    "-i.mp3",
    "--json",
    "-",
    "two\nlines.mp3",
    "Ünïcödé ♫ 音楽.mp3",
    "[red]x[blue].mp3",
    "\x1b[31m.mp3",
    "%n%s.mp3",
    "~",
]


def classify(folder: Path, *arguments: str, **settings: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The results by their source, and what was said on standard error. ``folder`` is the working folder."""
    environment = {**os.environ, **{f"TONESTREAM_{name.upper()}": value for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "classify", "--json", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert "Traceback" not in done.stderr, done.stderr
    return {result["track"]["source"]: result for result in results}, done.stderr


def codes(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Each source's error, or its status where it has none."""
    return {
        source: result["errors"][0]["code"] if result["errors"] else result["status"]
        for source, result in results.items()
    }


def test_special_files_are_refused_and_names_mean_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp3")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.mp3"))
        (tmp_path / "zero.mp3").symlink_to("/dev/zero")
        (tmp_path / "loop.mp3").symlink_to("loop.mp3")
        (tmp_path / "gone.mp3").symlink_to("nothing")
        (tmp_path / "fine.mp3").symlink_to(SAMPLE)
        (tmp_path / "album.mp3").mkdir()
        (tmp_path / "album.mp3" / "up.mp3").symlink_to(tmp_path)  # a circle: nobody follows it
        os.mkfifo(tmp_path / "album.mp3" / "inner.mp3")
        with (tmp_path / "sparse.mp3").open("wb") as sparse:
            sparse.truncate(1 << 40)
        for name in NAMES:
            shutil.copy(SAMPLE, tmp_path / name)
        started = time.monotonic()
        plain = ["fifo.mp3", "socket.mp3", "zero.mp3", "loop.mp3", "gone.mp3", "fine.mp3", "sparse.mp3", "/dev/stdin"]
        results, said = classify(tmp_path, "--", *plain, "/dev/tty", "x" * 5000, "a\x01b", *NAMES[:-1], "album.mp3")
        assert time.monotonic() - started < 200
    found = codes(results)
    for name in (
        "fifo.mp3",
        "album.mp3/inner.mp3",
        "socket.mp3",
        "zero.mp3",
        "/dev/stdin",
        "/dev/tty",
        "a\x01b",
    ):
        assert found.pop(name) == "invalid_request", name
    assert found.pop("x" * 5000) == "invalid_request"
    assert found.pop("sparse.mp3") in {"unsupported_media", "corrupt_audio"}, "a terabyte of nothing is not copied"
    assert {found.pop(name) for name in ("loop.mp3", "gone.mp3")} == {"fetch_failed"}
    assert found == dict.fromkeys(["fine.mp3", *NAMES[:-1]], "ok"), said


def test_hostile_files_by_the_names_of_music_each_have_their_error(tmp_path: Path) -> None:
    hostile = {**WITHOUT_AUDIO, **WITH_FORGED_HEADERS}
    files = {f"{number:02d}.mp3": name for number, name in enumerate(hostile)}
    for file, name in files.items():
        (tmp_path / file).write_bytes(hostile[name])
    shutil.copy(SAMPLE, tmp_path / "good.mp3")
    with WebServer() as web:
        for bomb in ("a gzip bomb", "a zip bomb", "an HLS playlist"):
            web.add(f"/{len(bomb)}.mp3", hostile[bomb], headers={"Content-Type": "audio/mpeg"})
        urls = [web.url(f"/{len(bomb)}.mp3") for bomb in ("a gzip bomb", "a zip bomb", "an HLS playlist")]
        results, said = classify(tmp_path, ".", *urls, fetch_allow="127.0.0.1", max_track_s="600")
    found = codes(results)
    assert found.pop("good.mp3") == "ok", said
    assert {found.pop(url) for url in urls} == {"unsupported_media"}
    assert len(found) == len(hostile)
    allowed = {"unsupported_media", "corrupt_audio"}
    for file, code in found.items():
        heard = (
            {"ok", "partial", "too_short", "too_long", "silent_audio"} if files[file] in WITH_FORGED_HEADERS else set()
        )
        assert code in allowed | heard, (files[file], results[file])


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "bad.mp3").write_bytes(b"ID3")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    subprocess.run(
        [sys.executable, "-m", "services.cli.main", "classify", str(SAMPLE), str(tmp_path / "bad.mp3")],
        env=environment, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    left = [path.name for path in temporary.rglob("*") if path.name.startswith("tonestream")]
    assert left == []
