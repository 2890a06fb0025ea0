"""Train the seed genre model: ``python -m training.genre --data DIR --out models/mfcc-lstm-seed``.

Cross-validates by artist, fits the temperature to the held-out folds, then trains on all clips and writes the model
folder: weights, manifest, card.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.audio.spec import MFCC13, FeatureSpec
from shared.contracts.labels import GENRES
from shared.models import write_manifest
from training.card import write_card
from training.data import Clip, read_clips
from training.features import clip_features
from training.genre_network import Recipe, Segments, build, logits, train
from training.metrics import (
    accuracy,
    calibrated_by_fold,
    confusion,
    expected_calibration_error,
    fit_temperature,
    mean_by_track,
    softmax,
)
from training.splits import fold_of_each, train_and_test
from training.tensorflow_setup import prepare

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.intp]

_WEIGHTS: Final = "model.keras"
#: What a recording sampled at 16 kHz holds; a fifth of the GTZAN clips at hand are such copies.
_LIMITED_HZ: Final = 8000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits [segments, classes] from the network that did not hear the artist.

    ``full`` of the segments as they are, ``limited`` of the same in limited bandwidth.
    """

    full: Array
    limited: Array


def cross_validate(spec: FeatureSpec, material: Segments, fold_of: Integers, epochs: int, seed: int) -> HeldOut:
    """Train one network a fold and note its logits for the rest. ``fold_of`` is the fold of each segment."""
    held_out = HeldOut(*(np.zeros((len(material.labels), len(GENRES)), np.float32) for _ in range(2)))
    for fold, (train_on, test_on) in enumerate(train_and_test(fold_of)):
        network = build(spec.frames, spec.n_mfcc, len(GENRES), material[train_on])
        train(network, material[train_on], epochs, Recipe(), seed)
        held_out.full[test_on] = logits(network, material.full[test_on])
        held_out.limited[test_on] = logits(network, material.limited[test_on])
        print(f"fold {fold + 1} is trained", flush=True)
    return held_out


def figures(clips: list[Clip], track_of: Integers, fold_of: Integers, held_out: HeldOut) -> dict[str, Any]:
    """Everything the card says, from the held-out logits; ``track_of`` and ``fold_of`` of each segment."""
    truth = np.array([GENRES.index(clip.label) for clip in clips])
    groups = [clip.group for clip in clips]
    segment_truth = truth[track_of]
    plain = softmax(held_out.full)
    calibrated = calibrated_by_fold(held_out.full, segment_truth, fold_of)
    tracks_plain, tracks = mean_by_track(plain, track_of), mean_by_track(calibrated, track_of)
    answers = tracks.argmax(axis=1)
    answers_limited = mean_by_track(softmax(held_out.limited), track_of).argmax(axis=1)
    narrow = np.array([clip.native_rate is not None and clip.native_rate <= 2 * _LIMITED_HZ for clip in clips])
    segment_groups = [groups[track] for track in track_of]
    return {
        "clips": len(clips),
        "groups": len(set(groups)),
        "segments": len(track_of),
        "narrow_clips": int(narrow.sum()),
        "track_accuracy": accuracy(answers, truth, groups).rounded(),
        "segment_accuracy": accuracy(calibrated.argmax(axis=1), segment_truth, segment_groups).rounded(),
        "track_accuracy_limited_bandwidth": accuracy(answers_limited, truth, groups).rounded(),
        "same_answer_in_limited_bandwidth": round(float((answers == answers_limited).mean()), 3),
        "track_accuracy_of_narrow_clips": _share(answers[narrow] == truth[narrow]),
        "track_accuracy_of_wide_clips": _share(answers[~narrow] == truth[~narrow]),
        "segment_ece_before": round(expected_calibration_error(plain, segment_truth), 3),
        "segment_ece_after": round(expected_calibration_error(calibrated, segment_truth), 3),
        "track_ece_before": round(expected_calibration_error(tracks_plain, truth), 3),
        "track_ece_after": round(expected_calibration_error(tracks, truth), 3),
        "recall": {genre: _share(answers[truth == index] == index) for index, genre in enumerate(GENRES)},
        "confusion": confusion(answers, truth, len(GENRES)).tolist(),
    }


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return round(float(right.mean()), 3) if len(right) else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.genre", description="Train the seed genre model.")
    parser.add_argument("--data", type=Path, required=True, help="clips as genre/track.ext, with or without index.csv")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="passes over all segments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"), help="computed features")
    arguments = parser.parse_args()
    started = time.perf_counter()

    versions = prepare(arguments.seed, arguments.threads)
    spec = MFCC13
    clips = read_clips(arguments.data)
    full = clip_features(clips, spec, arguments.cache, arguments.threads)
    limited = clip_features(clips, spec, arguments.cache, arguments.threads, _LIMITED_HZ)
    track_of = np.repeat(np.arange(len(clips)), [len(segments) for segments in full])
    labels = np.array([GENRES.index(clip.label) for clip in clips])[track_of]
    material = Segments(np.concatenate(full), np.concatenate(limited), labels)
    fold_of = fold_of_each(
        [clip.label for clip in clips], [clip.group for clip in clips], arguments.folds, arguments.seed
    )[track_of]

    held_out = cross_validate(spec, material, fold_of, arguments.epochs, arguments.seed)
    network = build(spec.frames, spec.n_mfcc, len(GENRES), material)
    train(network, material, arguments.epochs, Recipe(), arguments.seed)

    arguments.out.mkdir(parents=True, exist_ok=True)
    network.save(arguments.out / _WEIGHTS)
    measured = figures(clips, track_of, fold_of, held_out)
    manifest = write_manifest(
        arguments.out,
        arguments.out.name,
        kind="genre",
        labels=GENRES,
        feature_spec=spec,
        temperature=round(fit_temperature(held_out.full, labels), 4),
        weights=_WEIGHTS,
        versions=versions,
        command=shlex.join(["python", "-m", "training.genre", *sys.argv[1:]]),
        figures={
            **measured,
            "folds": arguments.folds,
            "epochs": arguments.epochs,
            "training_s": round(time.perf_counter() - started),
        },
    )
    card = write_card(arguments.out, manifest)
    print(f"{manifest.model_id}: {measured['track_accuracy']} of tracks; {card}")


if __name__ == "__main__":
    main()
