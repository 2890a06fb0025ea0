"""Renders the sample tracks that are written as scores: ``python -m samples.render``.

Needs the programs ``mma`` (score to MIDI) and ``fluidsynth`` with the soundfont FluidR3 GM (MIDI to WAV), and
``ffmpeg`` for pydub. samples/README.md says what the tracks are.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from pydub import AudioSegment
from pydub.effects import normalize

from samples.tracks import SCORES, Score

_SAMPLES: Final = Path(__file__).resolve().parent
_SOUNDFONT: Final = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")

_HEADROOM_DB: Final = 1.0
_FADE_IN_MS: Final = 20
_FADE_OUT_MS: Final = 1500
_TAIL_MS: Final = 2000
_BIT_RATE: Final = "112k"


def render(sample: Score, scores: Path, soundfont: Path, out: Path) -> Path:
    """Write ``out/<name>.mp3`` from ``scores/<name>.mma``. Raises CalledProcessError if a program fails."""
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / f"{sample.name}.mid"
        wav = midi.with_suffix(".wav")
        _run("mma", "-f", midi, scores / f"{sample.name}.mma")
        _run("fluidsynth", "-ni", "-g", "0.6", "-r", "44100", "-F", wav, soundfont, midi)
        mastered = master(AudioSegment.from_wav(wav))
    mp3 = out / f"{sample.name}.mp3"
    tags = {"title": sample.title, "artist": sample.artist, "genre": sample.genre, "album": "Samples"}
    mastered.export(mp3, format="mp3", bitrate=_BIT_RATE, tags=tags).close()
    return mp3


def master(track: AudioSegment) -> AudioSegment:
    """The track without the silence at both ends, peaking 1 dB below full scale, faded in and out."""
    sounding = [start for start in range(0, len(track), 50) if track[start : start + 50].dBFS > track.max_dBFS - 50.0]
    cut = track[sounding[0] : sounding[-1] + _TAIL_MS]
    return normalize(cut, headroom=_HEADROOM_DB).fade_in(_FADE_IN_MS).fade_out(_FADE_OUT_MS)


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.render", description="Render the scores.")
    parser.add_argument("--out", type=Path, default=_SAMPLES, help="folder of the MP3s")
    parser.add_argument("--soundfont", type=Path, default=_SOUNDFONT)
    arguments = parser.parse_args()
    for sample in SCORES:
        mp3 = render(sample, _SAMPLES / "scores", arguments.soundfont, arguments.out)
        print(f"{mp3}: {mp3.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
