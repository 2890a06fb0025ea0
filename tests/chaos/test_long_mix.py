"""A mix of three hours (of half an hour in the short run): it is answered, and no service takes more memory for it than
for a song."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shared.audio.decode import find_ffmpeg
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.web_server import WebServer

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.redis,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peaks of memory from /proc"),
]

HOURS = 3.0 if os.environ.get("TONESTREAM_CHAOS") == "long" else 0.5
#: Making a piece takes far longer than repeating it.
PIECE_S = 30
MOST_MB = 600.0


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """So many hours of stereo MP3: chords that come and go over a beat of noise."""
    folder = tmp_path_factory.mktemp("mix")
    chords = "+".join(f"0.1*sin(2*PI*{hertz}*t)*(1+sin(2*PI*t/{7 + number}))" for number, hertz in enumerate(
        (110, 165, 220, 277, 330)
    ))  # fmt: skip
    beat = "0.3*(random(0)-0.5)*exp(-12*mod(t\\,0.5))"
    quiet = [find_ffmpeg(), "-nostdin", "-loglevel", "error", "-y"]
    source = f"aevalsrc='{chords}+{beat}|{chords}':s=44100:d={PIECE_S}"
    piece, whole = folder / "piece.mp3", folder / "mix.mp3"
    subprocess.run([*quiet, "-f", "lavfi", "-i", source, "-b:a", "128k", str(piece)], check=True)
    times = round(HOURS * 3600 / PIECE_S)
    subprocess.run([*quiet, "-stream_loop", str(times - 1), "-i", str(piece), "-c", "copy", str(whole)], check=True)
    return whole.read_bytes()


def memory_mb(pid: int) -> tuple[float, float]:
    """Of a process, MB: the memory of its own at the moment; the most it has had in RAM so far, with the files mapped
    into it (TensorFlow's libraries are 350 MB, which all processes share and the system can drop). 0 where it is
    gone."""
    with suppress(OSError, ValueError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own = sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmSwap") if name in fields)
        return own / 1024, int(fields["VmHWM"].split()[0]) / 1024 if "VmHWM" in fields else 0.0
    return 0.0, 0.0


@contextmanager
def watched(workers: Mapping[str, int]) -> Iterator[dict[str, tuple[float, float]]]:
    """The peaks of both measures within the block: of these processes and those they start (``<name>'s ffmpeg``)."""
    peaks = dict.fromkeys(workers, (0.0, 0.0))
    ended = threading.Event()

    def note(name: str, pid: int) -> None:
        own, whole = memory_mb(pid)
        before = peaks.get(name, (0.0, 0.0))
        peaks[name] = max(before[0], own), max(before[1], whole)

    def look() -> None:
        for name, pid in workers.items():
            note(name, pid)
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    for child in (task / "children").read_text().split():
                        note(f"{name}'s ffmpeg", int(child))

    def watch() -> None:
        while not ended.wait(0.1):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()
        look()


def test_hours_of_music_are_answered_within_600_mb_a_service(
    mix: bytes, tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names
) -> None:
    with (
        WebServer() as web,
        Pipeline(
            tmp_path, bootstrap_servers, redis_url, names.prefix, fetch_allow="127.0.0.1", decode_timeout_s="600"
        ) as pipeline,
    ):
        web.add("/mix.mp3", mix, headers={"Content-Type": "audio/mpeg"})
        started = time.monotonic()
        with watched({service: process.pid for service, process in pipeline.workers}) as peaks:
            pipeline.publish([{"request_id": "mix", "audio_url": web.url("/mix.mp3")}])
            (result,) = pipeline.results(1, timeout_s=1500)
        elapsed_s = time.monotonic() - started
        figures = ", ".join(f"{name} {own:.0f} ({whole:.0f})" for name, (own, whole) in sorted(peaks.items()))
        print(f"\n{HOURS:g} hours in {elapsed_s:.0f} s; peaks of own memory (and with mapped files), MB: {figures}")
        assert result["status"] == "ok", result["errors"]
        assert result["track"]["duration_s"] == pytest.approx(HOURS * 3600, rel=0.01)
        assert len(result["genre"]["segments"]) > 0
        assert 0 < max(own for own, _ in peaks.values()) < MOST_MB, figures
