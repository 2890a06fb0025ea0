"""Training, cross-validation and evaluation of mood models."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.models.manifest import ModelManifest, write_manifest
from shared.models.networks import MoodModel
from training.data.splits import fold_of_each, train_and_test
from training.export import export_onnx
from training.genre.protocol import Workspace
from training.mood.data import MoodTable, check_enough, read_mood_table
from training.mood.figures import figures, leak, repeated_accuracy
from training.mood.listeners import fit_audio_mood, installed_audio_mood
from training.mood.network import MoodNetworkPlan, fit, joined, scaler_of
from training.mood.plots import write_plots
from training.reports.card import write_card
from training.reports.figures import MoodAnswers, MoodFigures, TrackLeak, trained_on
from training.reports.metrics import UNCERTAIN_BELOW, calibrated_by_fold, fit_temperature, softmax
from training.tensorflow_setup import prepare

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

_WEIGHTS: Final = "model.keras"
_SMALLEST: Final = 1e-30


@dataclass(frozen=True, slots=True)
class MoodPlan:
    """How to evaluate a model: by artist in ``folds``, ``repeats`` times with other folds, the first with ``seed``."""

    folds: int = 10
    repeats: int = 5
    seed: int = 1
    network: MoodNetworkPlan = field(default_factory=MoodNetworkPlan)


@dataclass(frozen=True, slots=True)
class MoodEvaluation:
    """The figures of a cross-validation, and the temperature fitted to the held-out logits."""

    figures: MoodFigures
    temperature: float


@dataclass(frozen=True, slots=True)
class AudioData:
    """Training and check data of the part for measured features.

    ``listeners`` is a folder of recordings with an index.csv of listeners' answers; without it that part is copied from
    the installed model. ``genres`` is a folder of clips by genre, for the checks.
    """

    listeners: Path | None = None
    genres: Path | None = None


def try_model(table: MoodTable, plan: MoodPlan, data: Workspace) -> MoodEvaluation:
    """Train on all folds but one and evaluate on that one, for every fold, as ``plan`` says.

    Scaler, network and evaluated temperature are fitted to the other folds only. Raises DataError where there are too
    few artists.
    """
    check_enough(table, plan.folds)
    labels = table.labels
    assignments = [
        fold_of_each(table.moods, table.groups, plan.folds, plan.seed + number) for number in range(plan.repeats)
    ]
    runs = [
        _held_out(table, fold_of, plan, plan.seed + number, data, f"folds, run {number + 1} of {plan.repeats}")
        for number, fold_of in enumerate(assignments)
    ]
    logits, fold_of = runs[0], assignments[0]
    probabilities = calibrated_by_fold(logits, labels, fold_of)
    return MoodEvaluation(
        _mood_figures(
            figures(table, softmax(logits), probabilities),
            repeated=repeated_accuracy(table, [one.argmax(axis=1) for one in runs]),
            folds=plan.folds,
            seed=plan.seed,
            members=plan.network.members,
            hidden=plan.network.hidden,
            steps=plan.network.steps,
        ),
        round(fit_temperature(logits, labels), 4),
    )


def train_model(
    csv: Path, out: Path, audio_data: AudioData, plan: MoodPlan, command: str, data: Workspace
) -> ModelManifest:
    """Evaluate the model on the rows of ``csv``, train it on all of them, and write the model folder ``out``.

    The part for Spotify's features is trained on the table, the part for measured ones on ``audio_data``. The folder
    gets weights, manifest, card and both plots. Raises DataError, SplitError, TonestreamError for a recording that
    cannot be decoded, ModelError.
    """
    started = time.perf_counter()
    table = read_mood_table(csv)
    check_enough(table, plan.folds)
    versions = prepare(plan.seed, data.threads)
    audio = (
        installed_audio_mood()
        if audio_data.listeners is None
        else fit_audio_mood(audio_data.listeners, data, audio_data.genres, plan.folds, plan.repeats, plan.seed)
    )
    trial = try_model(table, plan, data)
    scaler = scaler_of(table.features)
    spotify = fit(scaler.standardise(table.features), table.labels, table.source_of, plan.network, plan.seed)

    measured = trial.figures.with_more(
        audio=audio.figures,
        trained_on=sorted({row.content for row in table.rows}),
        training_s=round(time.perf_counter() - started),
    )

    out.mkdir(parents=True, exist_ok=True)
    network = joined(spotify, audio.network)
    network.save(out / _WEIGHTS)
    manifest = write_manifest(
        out,
        out.resolve().name,
        kind="mood",
        labels=MOODS,
        scalers={"spotify": scaler, "audio": audio.scaler},
        temperature=trial.temperature,
        temperature_audio=audio.temperature,
        uncertain_below=UNCERTAIN_BELOW,
        weights=_WEIGHTS,
        onnx=export_onnx(network, out),
        versions=versions,
        command=command,
        figures=measured.as_json(),
    )
    write_plots(out, manifest.model_id, measured)
    write_card(out, manifest)
    return manifest


def cross_validate_model(csv: Path, plan: MoodPlan, data: Workspace) -> MoodFigures:
    """The figures of a model trained on parts of the rows of ``csv``. Writes nothing. Raises DataError."""
    table = read_mood_table(csv)
    prepare(plan.seed, data.threads)
    trial = try_model(table, plan, data)
    return trial.figures.with_more(leak=TrackLeak(tracks=0, of=len(table.rows)), temperature=trial.temperature)


def evaluate_model(csv: Path, folder: Path, data: Workspace) -> MoodFigures:
    """The figures of the model in ``folder`` on the rows of ``csv``, for Spotify's features.

    ``leak`` says how many of the rows the model was trained on, as far as its manifest says: figures on those are
    flattered. Raises DataError, ModelError.
    """
    table = read_mood_table(csv)
    model = MoodModel.load(folder, data.threads)
    temperature = model.manifest.temperature_of("spotify")
    answers = []
    for row in _tracked(table.rows, "answers", data):
        by_mood = model.predict(dict(zip(AUDIO_FEATURES, row.features, strict=True)), "spotify")
        answers.append([by_mood[mood] for mood in MOODS])
    probabilities = np.array(answers)
    before = softmax(np.log(np.maximum(probabilities, _SMALLEST)) * temperature)
    answered = figures(table, before, probabilities)
    return _mood_figures(answered, leak=leak(table, trained_on(model.manifest.figures)), temperature=temperature)


def _mood_figures(answers: MoodAnswers, **more: Any) -> MoodFigures:
    return MoodFigures.model_validate({**{name: getattr(answers, name) for name in answers.model_fields_set}, **more})


def _held_out(table: MoodTable, fold_of: Integers, plan: MoodPlan, seed: int, data: Workspace, label: str) -> Floats:
    """Logits [n, moods] from the network without the artist."""
    features, labels, source_of = table.features, table.labels, table.source_of
    logits = np.zeros((len(labels), len(MOODS)))
    for train_on, test_on in _tracked(list(train_and_test(fold_of)), label, data):
        scaler = scaler_of(features[train_on])
        known, tested = (scaler.standardise(features[part]) for part in (train_on, test_on))
        network = fit(known, labels[train_on], source_of[train_on], plan.network, seed)
        logits[test_on] = network(tested).numpy()
    return logits


def _tracked(items: Iterable[Any], label: str, data: Workspace) -> Iterable[Any]:
    return data.progress.track(items, label, len(list(items)))
