"""What packing does to the answers: ``python -m benchmarks.packing FOLDER... --model models/NAME``.

Features travel over Kafka as numbers of 15 bits. Every segment of the recordings is predicted from its features as they
are, and as they arrive.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from shared.audio.level import REFERENCE_DBFS
from shared.audio.segment_features.extraction import segment_features
from shared.audio.segments import is_silent
from shared.contracts.codec import decode_message, encode_message
from shared.contracts.errors import TonestreamError
from shared.contracts.messages import SegmentFeatures
from shared.contracts.topics import Channel
from shared.models.networks import GenreModel
from training.data.clips import audio_files
from training.data.features import read_segments


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description="Half the bytes, same answer?")
    parser.add_argument("folders", type=Path, nargs="+", help="recordings, recursively")
    parser.add_argument("--model", type=Path, required=True, help="genre model folder")
    arguments = parser.parse_args()
    model = GenreModel.load(arguments.model, threads=1)
    spec = model.manifest.require_feature_spec()
    tracks: list[tuple[np.ndarray, np.ndarray]] = []
    for file in (file for folder in arguments.folders for file in audio_files(folder)):
        try:
            segments = read_segments(file, spec)
        except TonestreamError:
            continue
        segments = segments[[not is_silent(segment) for segment in segments]] if len(segments) else segments
        if len(segments):
            features = segment_features(segments, spec, REFERENCE_DBFS)
            tracks.append((model.predict(features), model.predict(np.stack([_sent(one) for one in features]))))
    if not tracks:
        raise SystemExit("no recording there has a segment that sounds")
    before, after = (np.concatenate(side) for side in zip(*tracks, strict=True))
    means = [(one.mean(axis=0), other.mean(axis=0)) for one, other in tracks]
    print(
        f"{model.manifest.model_id}: {len(before)} segments of {len(tracks)} tracks; the largest difference of a"
        f" probability: {np.abs(before - after).max():.6f} (segment),"
        f" {max(np.abs(one - other).max() for one, other in means):.6f} (track); labels that differ:"
        f" {(before.argmax(axis=1) != after.argmax(axis=1)).sum()} (segments),"
        f" {sum(one.argmax() != other.argmax() for one, other in means)} (tracks)"
    )


def _sent(matrix: np.ndarray) -> np.ndarray:
    """The features of a segment as a worker gets them."""
    message = SegmentFeatures(
        request_id="r", track_key="k", index=0, start_s=0.0, end_s=3.0, feature_spec="spec", matrix=matrix
    )
    arrived = decode_message(Channel.FEATURES, encode_message(message, pack=True))
    assert isinstance(arrived, SegmentFeatures)
    return arrived.matrix


if __name__ == "__main__":
    main()
