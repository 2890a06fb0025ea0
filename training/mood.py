"""Train the mood model: ``python -m training.mood --csv FILE [--audio-reference DIR ...] --out models/mood-ten``.

Cross-validates by artist on Spotify's features, fits the temperature to the held-out folds, trains on all tracks, and
matches the scale of measured features to Spotify's with the reference recordings.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import scipy.stats

from shared.contracts.features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.models import Scaler, write_manifest
from training.card import write_card
from training.data import MoodTrack, audio_files, read_moods
from training.features import measured_features
from training.metrics import (
    Interval,
    accuracy,
    bootstrap,
    calibrated_by_fold,
    confusion,
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from training.splits import fold_of_each, train_and_test
from training.tensorflow_setup import prepare

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

_WEIGHTS: Final = "model.keras"
_HIDDEN: Final = 32
_DROPOUT: Final = 0.3
_LEARNING_RATE: Final = 3e-3
_BATCH: Final = 32
#: The same thing on both sides, so nothing is to be matched.
_SAME_ON_BOTH_SIDES: Final = frozenset({"duration_ms", "tempo"})
#: A file may be a preview, an excerpt or a mix: how long it is says nothing of the song, and would outweigh the music.
_IGNORED_IN_AUDIO: Final = ("duration_ms",)
#: Which emotion listeners were asked for is next to which mood.
_EMOTIONS: Final = {
    "calm": ("calmness", "tenderness"),
    "energetic": ("power", "tension"),
    "happy": ("joyful_activation",),
    "sad": ("sadness",),
}


def build() -> Any:
    """The untrained network: ten standardised features in, four logits out."""
    inputs = keras.Input((len(AUDIO_FEATURES),), name="features")
    x = keras.layers.Dense(_HIDDEN, activation="relu")(inputs)
    x = keras.layers.Dropout(_DROPOUT)(x)
    return keras.Model(inputs, keras.layers.Dense(len(MOODS), name="logits")(x))


def train(features: Floats, labels: Integers, epochs: int) -> Any:
    """A network trained on standardised ``features`` [n, 10], as they are and without what audio cannot tell."""
    features = np.concatenate([features, without(features, _IGNORED_IN_AUDIO)])
    labels = np.concatenate([labels, labels])
    network = build()
    trainer = keras.Model(network.inputs, network.outputs)
    trainer.compile(
        keras.optimizers.AdamW(_LEARNING_RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    trainer.fit(features, labels, batch_size=_BATCH, epochs=epochs, verbose=0)
    return network


def without(features: Floats, ignored: tuple[str, ...]) -> Floats:
    """Standardised ``features`` [n, 10] with the ``ignored`` ones average."""
    return features * np.array([name not in ignored for name in AUDIO_FEATURES], features.dtype)


def scaler_of(features: Floats) -> Scaler:
    """Mean and deviation of each column of ``features`` [n, 10]."""
    return Scaler(
        mean=tuple(features.mean(axis=0).tolist()), std=tuple(np.maximum(features.std(axis=0), 1e-6).tolist())
    )


def matched_scaler(measured: Floats, spotify: Scaler) -> Scaler:
    """The scaler under which ``measured`` [n, 10] has the mean and spread that Spotify's features have under theirs.

    Tempo keeps Spotify's, for it is the same thing on both sides; duration is ignored.
    """
    own = scaler_of(measured) if len(measured) else spotify
    same = [name in _SAME_ON_BOTH_SIDES for name in AUDIO_FEATURES]
    return Scaler(
        mean=tuple(np.where(same, spotify.mean, own.mean).tolist()),
        std=tuple(np.where(same, spotify.std, own.std).tolist()),
        ignored=_IGNORED_IN_AUDIO,
    )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits [n, moods] from the network that did not see the artist: from all ten features, and without duration."""

    all_ten: Floats
    without_duration: Floats


def cross_validate(features: Floats, labels: Integers, fold_of: Integers, epochs: int) -> HeldOut:
    """Train one network a fold and note the logits of the rest; the scaler too is fitted on the other folds only."""
    held_out = HeldOut(np.zeros((len(labels), len(MOODS))), np.zeros((len(labels), len(MOODS))))
    for train_on, test_on in train_and_test(fold_of):
        scaler = scaler_of(features[train_on])
        network = train(scaler.standardise(features[train_on]), labels[train_on], epochs)
        test = scaler.standardise(features[test_on])
        held_out.all_ten[test_on] = network(test).numpy()
        held_out.without_duration[test_on] = network(without(test, _IGNORED_IN_AUDIO)).numpy()
    return held_out


def figures(tracks: list[MoodTrack], labels: Integers, held_out: HeldOut, fold_of: Integers) -> dict[str, Any]:
    """What the card says of Spotify's features."""
    logits = held_out.all_ten
    probabilities = calibrated_by_fold(logits, labels, fold_of)
    answers = probabilities.argmax(axis=1)
    groups = np.array([track.group for track in tracks])
    sources = np.array([track.source for track in tracks])
    parts = {"all": np.ones(len(tracks), bool)} | {name: sources == name for name in sorted(set(sources.tolist()))}
    return {
        "tracks": len(tracks),
        "groups": len(set(groups)),
        "accuracy": {
            name: {
                "tracks": int(part.sum()),
                "accuracy": accuracy(answers[part], labels[part], groups[part].tolist()).rounded(),
            }
            for name, part in parts.items()
        },
        "accuracy_without_duration": accuracy(
            held_out.without_duration.argmax(axis=1), labels, groups.tolist()
        ).rounded(),
        "recall": {
            mood: round(float((answers[labels == index] == index).mean()), 3) for index, mood in enumerate(MOODS)
        },
        "confusion": confusion(answers, labels, len(MOODS)).tolist(),
        "ece_before": round(expected_calibration_error(softmax(logits), labels), 3),
        "ece_after": round(expected_calibration_error(probabilities, labels), 3),
    }


def against_listeners(index: Path, probabilities: dict[str, Floats]) -> dict[str, Any]:
    """Rank correlation of the moods' ``probabilities`` (by file stem) with what the listeners of ``index`` felt.

    ``index`` is a CSV with track_id, group, and a column with a share of listeners for each emotion.
    """
    with index.open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["track_id"] in probabilities]
    predicted = np.array([probabilities[row["track_id"]] for row in rows])
    groups = [row["group"] for row in rows]

    def correlation(mood: str, emotion: str) -> Interval:
        pairs = np.column_stack([predicted[:, MOODS.index(mood)], [float(row[emotion]) for row in rows]])
        return bootstrap(pairs, groups, lambda drawn: float(scipy.stats.spearmanr(drawn).statistic))

    answers = predicted.argmax(axis=1)
    return {
        "listener_clips": len(rows),
        "listeners": [
            {"mood": mood, "emotion": emotion, "correlation": correlation(mood, emotion).rounded()}
            for mood, emotions in _EMOTIONS.items()
            for emotion in emotions
        ],
        "listener_answers": {mood: round(float((answers == i).mean()), 3) for i, mood in enumerate(MOODS)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mood", description="Train the mood model.")
    parser.add_argument("--csv", type=Path, required=True, help="Spotify's features with moods")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument(
        "--audio-reference",
        type=Path,
        action="append",
        default=[],
        help="folder of recordings that measured features are scaled by; may be given more than once",
    )
    parser.add_argument("--listeners", type=Path, help="index.csv of reference recordings with felt emotions")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"), help="computed features")
    arguments = parser.parse_args()
    started = time.perf_counter()

    versions = prepare(arguments.seed, arguments.threads)
    tracks = read_moods(arguments.csv)
    features = np.array([track.features for track in tracks])
    labels = np.array([MOODS.index(track.label) for track in tracks])
    fold_of = fold_of_each(
        [track.label for track in tracks], [track.group for track in tracks], arguments.folds, arguments.seed
    )
    held_out = cross_validate(features, labels, fold_of, arguments.epochs)
    temperature = round(fit_temperature(held_out.all_ten, labels), 4)

    spotify = scaler_of(features)
    network = train(spotify.standardise(features), labels, arguments.epochs)
    recordings = [file for folder in arguments.audio_reference for file in audio_files(folder)]
    measured = measured_features(recordings, arguments.cache, arguments.threads)
    audio = matched_scaler(measured, spotify)
    checked: dict[str, Any] = {}
    if arguments.listeners is not None:
        probabilities = softmax(network(audio.standardise(measured)).numpy(), temperature)
        by_name = {file.stem: row for file, row in zip(recordings, probabilities, strict=True)}
        checked = against_listeners(arguments.listeners, by_name)

    arguments.out.mkdir(parents=True, exist_ok=True)
    network.save(arguments.out / _WEIGHTS)
    manifest = write_manifest(
        arguments.out,
        arguments.out.name,
        kind="mood",
        labels=MOODS,
        scalers={"spotify": spotify, "audio": audio},
        temperature=temperature,
        weights=_WEIGHTS,
        versions=versions,
        command=shlex.join(["python", "-m", "training.mood", *sys.argv[1:]]),
        figures={
            **figures(tracks, labels, held_out, fold_of),
            **checked,
            "hidden": _HIDDEN,
            "folds": arguments.folds,
            "epochs": arguments.epochs,
            "reference_clips": len(recordings),
            "training_s": round(time.perf_counter() - started),
        },
    )
    print(f"{manifest.model_id}: {manifest.figures['accuracy']}; {write_card(arguments.out, manifest)}")


if __name__ == "__main__":
    main()
