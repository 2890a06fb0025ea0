"""Train the seed genre model: ``python -m training.genre --data DIR --out models/mfcc-lstm-seed``.

Cross-validates by artist, takes the number of epochs and the temperature from the held-out folds, then trains on all
clips and writes the model folder: weights, manifest, card.
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
from training.metrics import (
    accuracy,
    calibrated_by_fold,
    confusion,
    expected_calibration_error,
    fit_temperature,
    log_loss,
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
#: Epochs between two looks at the held-out fold.
_LOOK_EVERY: Final = 4


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits of every segment from the network that did not see its artist, [looks, segments, classes].

    ``full`` of the segments as they are, ``limited`` of the same in limited bandwidth; a look every few epochs.
    """

    full: Array
    limited: Array


def cross_validate(
    spec: FeatureSpec, material: Any, fold_of_segment: Integers, epochs: int, seed: int
) -> HeldOut:
    """Train one network a fold and note the logits of the rest. ``material`` is a ``genre_network.Segments``."""
    from training import genre_network

    looks = epochs // _LOOK_EVERY
    full = np.zeros((looks, len(material.labels), len(GENRES)), np.float32)
    limited = np.zeros_like(full)
    for fold, (train, test) in enumerate(train_and_test(fold_of_segment)):
        own = material[train]
        network = genre_network.build(spec.frames, spec.n_mfcc, len(GENRES), own)

        def look(epoch: int, network: Any = network, test: Integers = test) -> None:
            if epoch % _LOOK_EVERY == 0:
                position = epoch // _LOOK_EVERY - 1
                full[position, test] = genre_network.logits(network, material.full[test])
                limited[position, test] = genre_network.logits(network, material.limited[test])

        genre_network.train(network, own, epochs, genre_network.Recipe(), seed, look)
        print(f"fold {fold + 1} trained", flush=True)
    return HeldOut(full, limited)


def best_look(held_out: HeldOut, labels: Integers) -> int:
    """The look at which the held-out segments have the least log loss, each look at its own best temperature."""
    losses = [log_loss(logits, labels, fit_temperature(logits, labels)) for logits in held_out.full]
    return int(np.argmin(losses))


def figures(
    clips: list[Clip], track_of: Integers, fold_of_segment: Integers, full: Array, limited: Array
) -> dict[str, Any]:
    """Everything the card says, from the held-out logits [segments, classes] at the chosen epoch."""
    truth = np.array([GENRES.index(clip.label) for clip in clips])
    groups = [clip.group for clip in clips]
    segment_truth = truth[track_of]
    plain = softmax(full)
    calibrated = calibrated_by_fold(full, segment_truth, fold_of_segment)
    tracks_plain, tracks = mean_by_track(plain, track_of), mean_by_track(calibrated, track_of)
    answers = tracks.argmax(axis=1)
    answers_limited = mean_by_track(softmax(limited), track_of).argmax(axis=1)
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
        "recall": {
            genre: _share(answers[truth == index] == index)
            for index, genre in enumerate(GENRES)
        },
        "confusion": confusion(answers, truth, len(GENRES)).tolist(),
    }


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return round(float(right.mean()), 3) if len(right) else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.genre", description="Train the seed genre model.")
    parser.add_argument("--data", type=Path, required=True, help="clips as genre/track.ext, with or without index.csv")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="most epochs; the folds choose how many of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"), help="computed features")
    arguments = parser.parse_args()
    started = time.perf_counter()

    versions = prepare(arguments.seed, arguments.threads)
    from training import genre_network

    spec = MFCC13
    clips = read_clips(arguments.data)
    full = clip_features(clips, spec, arguments.cache, arguments.threads)
    limited = clip_features(clips, spec, arguments.cache, arguments.threads, _LIMITED_HZ)
    track_of = np.repeat(np.arange(len(clips)), [len(segments) for segments in full])
    labels = np.array([GENRES.index(clip.label) for clip in clips])[track_of]
    material = genre_network.Segments(np.concatenate(full), np.concatenate(limited), labels)
    fold_of = fold_of_each(
        [clip.label for clip in clips], [clip.group for clip in clips], arguments.folds, arguments.seed
    )[track_of]

    held_out = cross_validate(spec, material, fold_of, arguments.epochs, arguments.seed)
    look = best_look(held_out, labels)
    epochs = (look + 1) * _LOOK_EVERY
    print(f"training on all {len(clips)} clips for {epochs} epochs", flush=True)
    network = genre_network.build(spec.frames, spec.n_mfcc, len(GENRES), material)
    genre_network.train(network, material, epochs, genre_network.Recipe(), arguments.seed)

    arguments.out.mkdir(parents=True, exist_ok=True)
    network.save(arguments.out / _WEIGHTS)
    measured = figures(clips, track_of, fold_of, held_out.full[look], held_out.limited[look])
    manifest = write_manifest(
        arguments.out,
        arguments.out.name,
        kind="genre",
        labels=GENRES,
        feature_spec=spec,
        temperature=round(fit_temperature(held_out.full[look], labels), 4),
        weights=_WEIGHTS,
        versions=versions,
        command=shlex.join(["python", "-m", "training.genre", *sys.argv[1:]]),
        figures={
            **measured,
            "folds": arguments.folds,
            "epochs": epochs,
            "training_s": round(time.perf_counter() - started),
        },
    )
    card = write_card(arguments.out, manifest)
    print(f"{manifest.model_id}: {measured['track_accuracy']} of tracks; {card}")


if __name__ == "__main__":
    main()
