"""What it costs to judge long tracks by a few segments: ``python -m benchmarks.segments FOLDER --model models/NAME``.

Of every recording in the folder that is long enough, the answer from all segments is compared with the answers from
some, evenly spaced: how often the label is the same, and how far the track's confidence moves. No labels are needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np

from shared.audio.segment_features.extraction import segment_features
from shared.audio.segments import chosen_segments, is_silent
from shared.contracts.errors import TonestreamError
from shared.models.networks import GenreModel
from training.data.clips import audio_files
from training.data.features import read_segments

_LIMITS: Final = (1, 3, 5, 10, 20, 40)
#: Two minutes, of segments of 3 s.
_LONG: Final = 40


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segments", description="Fewer segments, same answer?")
    parser.add_argument("folder", type=Path, help="recordings, recursively")
    parser.add_argument("--model", type=Path, required=True, help="genre model folder")
    parser.add_argument("--tracks", type=int, default=60, help="so many, drawn by chance (default 60)")
    arguments = parser.parse_args()
    model = GenreModel.load(arguments.model, threads=1)
    spec = model.manifest.require_feature_spec()
    files = audio_files(arguments.folder)
    heard: list[np.ndarray] = []
    for file in (files[i] for i in np.random.default_rng(0).permutation(len(files))):
        if len(heard) == arguments.tracks:
            break
        try:
            segments = read_segments(file, spec)
        except TonestreamError:
            continue
        segments = segments[[not is_silent(segment) for segment in segments]] if len(segments) else segments
        if len(segments) > _LONG:
            heard.append(model.predict(segment_features(segments, spec)))
    if not heard:
        raise SystemExit(f"no recording in {arguments.folder} is longer than {_LONG} segments")
    whole = np.array([one.mean(axis=0) for one in heard])
    print(f"{model.manifest.model_id}: {len(heard)} tracks, {np.median([len(one) for one in heard]):.0f} segments each")
    for limit in _LIMITS:
        some = np.array([one[list(chosen_segments(len(one), limit))].mean(axis=0) for one in heard])
        same = (some.argmax(axis=1) == whole.argmax(axis=1)).mean()
        moved = np.abs(some.max(axis=1) - whole.max(axis=1)).mean()
        print(f"{limit:3d} segments: same label {same:.0%}, confidence moved by {moved:.3f} in the mean")


if __name__ == "__main__":
    main()
