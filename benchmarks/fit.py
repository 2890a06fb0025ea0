"""How well a tag model tells other music and other sounds from the ten genres.

    python -m benchmarks.fit models/mfcc-lstm --known gtzan_dev --unknown emotify_dev/electronic --unknown speech

Of each folder: how many recordings are called none of the ten, and no music; and the area under the ROC curve of the
fit against the known ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.audio.level import track_level
from shared.contracts.errors import TonestreamError
from shared.models.heard_track import HeardTrack, hear_track
from shared.models.networks import TagModel
from training.data.clips import audio_files
from training.reports.metrics import area_under_roc


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description="None of the ten?")
    parser.add_argument("model", type=Path)
    parser.add_argument("--known", type=Path, required=True, help="recordings of the ten genres")
    parser.add_argument("--unknown", type=Path, action="append", default=[], help="other recordings")
    parser.add_argument("--most", type=int, default=120, help="recordings of a folder, drawn by chance (default 120)")
    arguments = parser.parse_args()
    model = TagModel.load(arguments.model, threads=1)
    below = model.manifest.unfit_below or 0.0
    known = _heard(arguments.known, model, arguments.most)
    known_fit = np.array([track.fit for track in known])
    for folder in (arguments.known, *arguments.unknown):
        tracks = known if folder == arguments.known else _heard(folder, model, arguments.most)
        fit = np.array([track.fit for track in tracks])
        music = np.array([_is_music(track) for track in tracks])
        said = f"fit {np.median(fit):.2f} (median), none of the ten {(fit < below).mean():.0%}"
        said += f", no music {(~music).mean():.0%}"
        area = "" if tracks is known else f", area under the ROC curve {area_under_roc(known_fit, fit):.3f}"
        print(f"{folder}: {len(tracks)} recordings, {said}{area}")


def _is_music(track: HeardTrack) -> bool:
    content = track.content or {}
    return max(content, key=lambda name: content[name]) == "music"


def _heard(folder: Path, model: TagModel, most: int) -> list[HeardTrack]:
    files = audio_files(folder)
    chosen = [files[number] for number in np.random.default_rng(0).permutation(len(files))]
    heard: list[HeardTrack] = []
    for file in chosen:
        if len(heard) == most:
            break
        try:
            track = _track(file, model)
        except TonestreamError:
            continue
        if track.fit is not None and track.content is not None:
            heard.append(track)
    if not heard:
        raise SystemExit(f"no recording in {folder} can be judged by {model.manifest.model_id}")
    return heard


def _track(file: Path, model: TagModel) -> HeardTrack:
    with tempfile.TemporaryDirectory() as folder:
        decoded = decode(file, Path(folder) / "decoded.wav", DecodeLimits(), find_ffmpeg())
        with decoded.path.open("rb") as wav:
            return hear_track(wav, model, track_level_dbfs=track_level(decoded.levels_dbfs))


if __name__ == "__main__":
    main()
