"""Cuts the sample tracks that are excerpts: ``python -m samples.excerpts MUSIC``.

MUSIC is the folder that ``training/distillation/debian-audio.sh music`` filled. Each excerpt is 24 s long, faded in and
out, and tagged. samples/README.md has the credits.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from pydub import AudioSegment

from samples.render import master
from samples.tracks import EXCERPTS, Excerpt
from shared.audio.decode import find_ffmpeg

_LENGTH_S: Final = 24.0
_BIT_RATE: Final = "96k"


def cut(excerpt: Excerpt, music: Path, out: Path) -> Path:
    """Write ``out/<name>.mp3``. Raises CalledProcessError if ffmpeg fails."""
    AudioSegment.converter = ffmpeg = find_ffmpeg()
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "excerpt.wav"
        part = ("-ss", str(excerpt.start_s), "-t", str(_LENGTH_S))
        source = music / excerpt.file
        command = [ffmpeg, "-nostdin", "-v", "error", *part, "-i", str(source), "-map_metadata", "-1", "-ar", "44100"]
        subprocess.run([*command, "-ac", "2", str(wav)], check=True)
        mastered = master(AudioSegment.from_wav(wav))
    mp3 = out / f"{excerpt.name}.mp3"
    tags = {"title": excerpt.title, "artist": excerpt.artist, "genre": excerpt.genre, "copyright": excerpt.licence}
    mastered.export(mp3, format="mp3", bitrate=_BIT_RATE, tags=tags).close()
    return mp3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.excerpts", description="Cut the excerpts.")
    parser.add_argument("music", type=Path, help="folder that debian-audio.sh music filled")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder of the MP3s")
    arguments = parser.parse_args()
    for excerpt in EXCERPTS:
        mp3 = cut(excerpt, arguments.music, arguments.out)
        print(f"{mp3}: {mp3.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
