"""The audio to measure with: MP3s joined from the clips of a folder, or from the bundled samples."""

from __future__ import annotations

import hashlib
import math
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench.measurement import NotMeasuredError
from benchmarks.bench.scale import Scale
from shared.audio.decode import find_ffmpeg
from shared.contracts.topics import PARTITIONS
from shared.contracts.tracks import track_key
from training.data.clips import audio_files

SAMPLES: Final = Path(__file__).resolve().parents[2] / "samples"

_BITS_PER_S: Final = 192_000
#: Music that each clip gives at least, in seconds, without its pauses.
_LEAST_CLIP_S: Final = 15
#: How far the same clips are moved when they are needed again, in seconds.
_SHIFT_S: Final = 0.5
#: Pauses are removed: a track with long ones is decoded twice, which other tools do not do.
_PREPARED: Final = (
    "aresample=44100,aformat=sample_fmts=fltp:channel_layouts=stereo,"
    "silenceremove=stop_periods=-1:stop_duration=0.3:stop_threshold=-45dB"
)


@dataclass(frozen=True, slots=True)
class Material:
    """MP3s of 192 kb/s, no two the same, all in ``folder``."""

    folder: Path
    long: tuple[Path, ...]
    minutes: tuple[Path, ...]
    halves: tuple[Path, ...]
    brief: tuple[Path, ...]


def make_material(folder: Path, data: Path | None, scale: Scale) -> Material:
    """The MP3s of that scale below ``folder``, made unless they are there. Raises NotMeasuredError."""
    clips = audio_files(data or SAMPLES)
    if not clips:
        raise NotMeasuredError(f"there is no music in {data}")
    random.Random(0).shuffle(clips)
    # Named after the clips, so that other clips never meet files that were made of these.
    named = hashlib.sha256("\n".join(map(str, clips)).encode()).hexdigest()[:12]
    made = folder / named
    made.mkdir(parents=True, exist_ok=True)

    def several(count: int, seconds: int) -> tuple[Path, ...]:
        with ThreadPoolExecutor(2) as pool:
            return tuple(pool.map(lambda number: _joined(clips, made, number, seconds), range(count)))

    return Material(
        folder=made,
        long=several(scale.long, scale.long_s),
        minutes=several(scale.minutes, scale.minutes_s),
        halves=several(scale.halves, scale.halves_s),
        brief=several(scale.brief, scale.brief_s),
    )


def balanced_links(files: tuple[Path, ...], folder: Path, count: int) -> tuple[Path, ...]:
    """``count`` links to ``files`` whose tracks fill all partitions of a topic evenly.

    By chance one of two workers would get much more than the other.
    """
    from kafka.partitioner.default import murmur2

    folder.mkdir(parents=True, exist_ok=True)
    room = dict.fromkeys(range(PARTITIONS), math.ceil(count / PARTITIONS))
    links: list[Path] = []
    number = 0
    while len(links) < count:
        number += 1
        link = folder / f"{number}.mp3"
        partition = (murmur2(track_key(None, link.as_uri()).encode()) & 0x7FFFFFFF) % PARTITIONS
        if not room[partition]:
            continue
        room[partition] -= 1
        if not link.exists():
            link.hardlink_to(files[len(links) % len(files)])
        links.append(link)
    return tuple(links)


def _joined(clips: list[Path], folder: Path, number: int, seconds: int) -> Path:
    target = folder / f"{seconds}s-{number:03d}.mp3"
    if target.exists():
        return target
    needed = math.ceil(seconds / _LEAST_CLIP_S) + 1
    shift_s = number // len(clips) * _SHIFT_S
    command = [find_ffmpeg(), "-nostdin", "-loglevel", "error", "-y"]
    for place in range(needed):
        command += ["-i", str(clips[(number + place) % len(clips)])]
    parts = [f"[{place}:a:0]{_PREPARED}[p{place}]" for place in range(needed)]
    joined = "".join(f"[p{place}]" for place in range(needed)) + f"concat=n={needed}:v=0:a=1,atrim=start={shift_s}"
    filters = ";".join([*parts, f"{joined},asetpts=PTS-STARTPTS[all]"])
    # Written beside and renamed: an interrupted run leaves no half file.
    part = target.with_suffix(".part.mp3")
    command += ["-filter_complex", filters, "-map", "[all]", "-t", str(seconds), "-b:a", str(_BITS_PER_S), str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotMeasuredError(f"ffmpeg cannot join the clips: {done.stderr.strip()[-300:]}")
    got_s = part.stat().st_size * 8 / _BITS_PER_S
    if got_s < 0.95 * seconds:
        raise NotMeasuredError(f"the clips are too short: {needed} of them give {got_s:.0f} s instead of {seconds} s")
    part.rename(target)
    return target
