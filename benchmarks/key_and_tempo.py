"""Key and tempo beside Essentia's, on annotated clips.

    python -m benchmarks.key_and_tempo gtzan_dev --essentia /path/to/python

Essentia (AGPL) belongs in a virtual environment of its own, whose Python is given: `KeyExtractor` and
`RhythmExtractor2013` with their defaults. Our keys come from profiles fitted to other artists, fold by fold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np

from shared.audio.spec import MFCC13
from shared.audio.track_features.key import TONICS
from shared.audio.track_features.measures import measure
from training.data.clips import read_clips
from training.data.features import read_segments
from training.genre.protocol import Workspace
from training.key.profiles import cross_validated, points, read_key_clips
from training.mood.feature_checks import known_tempi, tempo_agreement

_ESSENTIA: Final = """
import json, sys
import essentia
essentia.log.infoActive = essentia.log.warningActive = False
import essentia.standard as es
found = {}
for path in sys.argv[1:]:
    audio = es.MonoLoader(filename=path, sampleRate=44100)()
    found[path] = [*es.KeyExtractor()(audio)[:2], es.RhythmExtractor2013()(audio)[0]]
print(json.dumps(found))
"""
_FLATS: Final = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.key_and_tempo", description="Beside Essentia's.")
    parser.add_argument("folder", type=Path, help="clips as genre/track.ext; index.csv with key and tempo_bpm")
    parser.add_argument("--essentia", type=Path, help="the Python of an environment with essentia")
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"))
    arguments = parser.parse_args()
    clips = read_clips(arguments.folder)
    peer = _essentia(arguments.essentia, [clip.path for clip in clips]) if arguments.essentia else {}

    keyed = read_key_clips(arguments.folder, Workspace(arguments.cache, 1))
    answers = cross_validated(keyed, seed=1)[0].argmax(axis=1)
    _say("key", "ours", answers == keyed.keys, points(answers, keyed.keys))
    bpm = known_tempi(arguments.folder / "index.csv", clips)
    tempi = [measure(read_segments(clip.path, MFCC13).ravel()).tempo for clip in clips]
    print("tempo, ours:", tempo_agreement(np.array(tempi), bpm))
    if peer:
        theirs = np.array([peer[str(path)][0] for path in keyed.paths], np.intp)
        _say("key", "Essentia", theirs == keyed.keys, points(theirs, keyed.keys))
        print("tempo, Essentia:", tempo_agreement(np.array([peer[str(clip.path)][1] for clip in clips]), bpm))


def _essentia(python: Path, paths: list[Path]) -> dict[str, tuple[int, float]]:
    """By path: the key, 0 to 23 from C major, and the tempo in BPM."""
    command = [str(python), "-c", _ESSENTIA, *map(str, paths)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        path: (TONICS.index(_FLATS.get(tonic, tonic)) + 12 * (mode == "minor"), tempo)
        for path, (tonic, mode, tempo) in found.items()
    }


def _say(what: str, whose: str, right: Any, scored: Any) -> None:
    print(f"{what}, {whose}: {right.mean():.3f} of {len(right)} right, {scored.mean():.3f} points of MIREX")


if __name__ == "__main__":
    main()
