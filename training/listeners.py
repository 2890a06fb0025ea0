"""The mood from measured features, learnt from what listeners felt.

Listeners of Emotify (Aljanaki, Wiering and Veltkamp 2016, "Studying emotion induced by music through a crowdsourcing
game") ticked what they felt of nine emotions. Six of those are next to the four moods (`EMOTIONS`). A small ensemble
learns from the ten features of a clip, measured by the very code that serves, how its listeners share out among the
moods.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats
import tensorflow as tf

from shared.audio.track_tags import TAG_SEGMENTS
from shared.contracts.features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.keras_models import TagModel
from shared.models import Scaler
from shared.settings import Settings
from training.data import DataError, audio_files
from training.feature_checks import check_features
from training.features import measured_features
from training.metrics import bootstrap, calibrated_by_fold, confusion, expected_calibration_error, fit_temperature
from training.mood_audio import EMOTIONS, IGNORED_IN_AUDIO, scaler_of
from training.splits import fold_of_each, train_and_test

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

_MEMBERS: Final = 8
_HIDDEN: Final = 32
_NOISE: Final = 0.1
_DROPOUT: Final = 0.2
_STEPS: Final = 200
_LEARNING_RATE: Final = 5e-3
_WEIGHT_DECAY: Final = 0.02
#: Added to every share: that none of some thirty listeners felt it does not make a mood impossible.
_SMALLEST_SHARE: Final = 0.01
#: Shares are divided by this power of their mean: at 0 sadness, which is ticked least, is hardly ever answered; at 1 a
#: weak sadness outweighs a strong joy. Chosen between 0, 0.5 and 1 on repeated folds by artist.
_EVENING_OUT: Final = 0.5
#: Listeners clearly agree on a mood when its part of the four shares leads the next by so much.
_CLEAR_LEAD: Final = 0.2
#: The other way to say so: a lead of one deviation when each mood's shares are standardised over the clips.
_CLEAR_DEVIATIONS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Listened:
    """Clips with what is measured of them and what was felt.

    ``features`` [n, 10] in ``AUDIO_FEATURES`` order and units; ``shares`` [n, 4] of the listeners who felt a mood, the
    mean over its emotions, in ``MOODS`` order; ``groups`` are the artists.
    """

    features: Floats
    shares: Floats
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AudioMood:
    """What a mood model needs for measured features.

    ``network`` is a Keras network, standardised features float32 [n, 10] to logits [n, 4] in ``MOODS`` order.
    """

    network: Any
    scaler: Scaler
    temperature: float
    figures: dict[str, Any]


def fit_audio_mood(
    seed: int,
    cache: Path,
    threads: int,
    folder: Path,
    genres: Path | None = None,
    folds: int = 10,
    repeats: int = 5,
) -> AudioMood:
    """Cross-validate by artist on the clips in ``folder``, then train on all of them.

    ``folder`` holds recordings and an index.csv (track_id, group, a share of listeners for each emotion). ``genres`` is
    a folder of clips by genre (`read_clips`), on which the order of the features is checked for the figures. Measures
    with the installed tag model. Raises DataError, SplitError, ModelError, TonestreamError for a clip that cannot be
    decoded.
    """
    settings = Settings()
    tagger = TagModel.load(settings.models_dir / settings.tag_model, threads)
    listened = read_listened(folder, cache, threads, tagger)
    figures = cross_validate(listened, folds, repeats, seed)
    if genres is not None:
        figures["features"] = check_features(genres, cache, threads, tagger)
    scaler = scaler_for(listened.features)
    usual = listened.shares.mean(axis=0)
    network = train(scaler.standardise(listened.features), targets(listened.shares, usual), seed)
    return AudioMood(
        network,
        scaler,
        figures["temperature"],
        {
            **figures,
            "tag_model": tagger.manifest.model_id,
            "tag_segments": TAG_SEGMENTS,
            "hidden": _HIDDEN,
            "members": _MEMBERS,
            "steps": _STEPS,
            "seed": seed,
        },
    )


def read_listened(folder: Path, cache: Path, threads: int, tagger: TagModel) -> Listened:
    """Measure the recordings that the index.csv of ``folder`` names. Raises DataError, TonestreamError."""
    index = folder / "index.csv"
    try:
        with index.open(newline="", encoding="utf-8-sig") as opened:
            by_name = {row["track_id"]: row for row in csv.DictReader(opened)}
        files = [file for file in audio_files(folder) if file.stem in by_name]
        rows = [by_name[file.stem] for file in files]
        shares = [[np.mean([float(row[name]) for name in EMOTIONS[mood]]) for mood in MOODS] for row in rows]
        groups = tuple(row["group"] for row in rows)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{index} is no table of what listeners felt: {error}") from error
    if not files:
        raise DataError(f"{index} names no recording beside it")
    return Listened(measured_features(files, cache, threads, tagger), np.array(shares), groups)


def scaler_for(features: Floats) -> Scaler:
    """Mean and deviation of measured ``features`` [n, 10]; duration is ignored, for a clip's says nothing of a song."""
    return scaler_of(features).model_copy(update={"ignored": IGNORED_IN_AUDIO})


def targets(shares: Floats, usual: Floats) -> Floats:
    """What a network learns from ``shares`` [n, 4] of listeners: rows that add up to 1.

    ``usual`` [4] are the mean shares of the clips it learns from; half of what makes a mood common is evened out.
    """
    evened = (shares + _SMALLEST_SHARE) / (usual + _SMALLEST_SHARE) ** _EVENING_OUT
    rows: Floats = evened / evened.sum(axis=1, keepdims=True)
    return rows


def train(features: Floats, soft_labels: Floats, seed: int) -> Any:
    """A Keras network, standardised features float32 [n, 10] to logits [n, 4], that learnt ``soft_labels`` [n, 4].

    The logits are the mean of those of its members, which differ by their random start and noise.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((len(AUDIO_FEATURES),), name="features")
    x = keras.layers.RepeatVector(_MEMBERS)(inputs)
    x = keras.layers.GaussianNoise(_NOISE)(x)
    x = _dense_by_member(_HIDDEN, deviation=np.sqrt(2 / len(AUDIO_FEATURES)))(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(_DROPOUT)(x)
    by_member = _dense_by_member(len(MOODS), deviation=np.sqrt(1 / _HIDDEN))(x)
    _descend(keras.Model(inputs, by_member), features, soft_labels)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling1D(name="logits")(by_member))


def _dense_by_member(units: int, deviation: float) -> Any:
    # Keras' own choice of deviation would count the members among the inputs of each.
    return keras.layers.EinsumDense(
        "nki,kio->nko",
        output_shape=(_MEMBERS, units),
        bias_axes="ko",
        kernel_initializer=keras.initializers.RandomNormal(stddev=float(deviation)),
    )


def _descend(network: Any, features: Floats, soft_labels: Floats) -> None:
    """All clips in every step: there are a few hundred."""
    optimizer = keras.optimizers.AdamW(_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    optimizer.build(network.trainable_variables)
    inputs = tf.constant(features, tf.float32)
    wanted = tf.constant(soft_labels[:, None, :], tf.float32)

    def descend() -> None:
        for _ in tf.range(_STEPS):
            with tf.GradientTape() as tape:
                chances = tf.nn.log_softmax(network(inputs, training=True), axis=-1)
                loss = -tf.reduce_mean(tf.reduce_sum(wanted * chances, axis=-1))
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    tf.function(descend)()


def held_out_logits(listened: Listened, fold_of: Integers, seed: int) -> Floats:
    """Logits [n, 4] of each clip from a network that did not see its artist; scaler and targets did not either."""
    logits = np.zeros_like(listened.shares)
    for train_on, test_on in train_and_test(fold_of):
        scaler = scaler_for(listened.features[train_on])
        known = listened.shares[train_on]
        network = train(scaler.standardise(listened.features[train_on]), targets(known, known.mean(axis=0)), seed)
        logits[test_on] = network(scaler.standardise(listened.features[test_on])).numpy()
    return logits


def cross_validate(listened: Listened, folds: int, repeats: int, seed: int) -> dict[str, Any]:
    """Figures of networks that are trained on all folds but one and judged on that one, ``repeats`` times anew.

    Each figure is the mean over the repeats, with a 95% interval by bootstrap over artists.
    """
    top = listened.shares.argmax(axis=1)
    moods = [MOODS[mood] for mood in top]
    assignments = [fold_of_each(moods, listened.groups, folds, seed + number) for number in range(repeats)]
    runs = [held_out_logits(listened, fold_of, seed + number) for number, fold_of in enumerate(assignments)]
    calibrated = [calibrated_by_fold(run, top, fold_of) for run, fold_of in zip(runs, assignments, strict=True)]
    probabilities = np.stack(calibrated)
    answers = probabilities.argmax(axis=2)
    clear, truth = clear_clips(listened.shares)
    standardised, truth_standardised = clear_clips_by_deviation(listened.shares)
    return {
        "clips": len(top),
        "groups": len(set(listened.groups)),
        "folds": folds,
        "repeats": repeats,
        "correlation": correlations(probabilities, listened),
        "clear_lead": _CLEAR_LEAD,
        "clear_clips": _counts(truth[clear]),
        "clear_accuracy": _accuracy(answers, truth, clear, listened.groups),
        "clear_recall": _recall(answers, truth, clear),
        "clear_confusion": np.sum(
            [confusion(run[clear], truth[clear], len(MOODS)) for run in answers], axis=0
        ).tolist(),
        "clear_deviations": _CLEAR_DEVIATIONS,
        "clear_clips_by_deviation": _counts(truth_standardised[standardised]),
        "clear_accuracy_by_deviation": _accuracy(answers, truth_standardised, standardised, listened.groups),
        "accuracy": _accuracy(answers, top, np.ones(len(top), bool), listened.groups),
        "answers": {mood: round(float((answers == number).mean()), 3) for number, mood in enumerate(MOODS)},
        "ece_before": round(float(np.mean([expected_calibration_error(_softmax(run), top) for run in runs])), 3),
        "ece_after": round(float(np.mean([expected_calibration_error(run, top) for run in calibrated])), 3),
        "temperature": round(fit_temperature(np.concatenate(runs), np.tile(top, repeats)), 4),
    }


def clear_clips(shares: Floats) -> tuple[npt.NDArray[np.bool_], Integers]:
    """Which clips have a clear mood, and the mood most felt of each, from ``shares`` [n, 4].

    The four shares are made to add up to 1; the largest has to lead the second by 0.2.
    """
    parts = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    return _lead(parts) >= _CLEAR_LEAD, parts.argmax(axis=1)


def clear_clips_by_deviation(shares: Floats) -> tuple[npt.NDArray[np.bool_], Integers]:
    """The same by shares that are standardised, mood by mood, over the clips: much for such a mood, not much at all."""
    deviations = (shares - shares.mean(axis=0)) / np.maximum(shares.std(axis=0), 1e-9)
    return _lead(deviations) >= _CLEAR_DEVIATIONS, deviations.argmax(axis=1)


def correlations(probabilities: Floats, listened: Listened) -> dict[str, dict[str, float]]:
    """Spearman's rank correlation of ``probabilities`` [repeats, n, 4] with the shares of listeners; and their mean."""
    rows = np.concatenate([listened.shares, np.concatenate(list(probabilities), axis=1)], axis=1)

    def of_mood(mood: int, drawn: Floats) -> float:
        ranks = scipy.stats.rankdata(drawn[:, [mood, *range(len(MOODS) + mood, drawn.shape[1], len(MOODS))]], axis=0)
        # Where all listeners felt the same, nothing can go along with it.
        return float(np.corrcoef(ranks.T)[0, 1:].mean()) if ranks.std(axis=0).all() else 0.0

    found = {
        name: bootstrap(rows, listened.groups, partial(of_mood, mood)).rounded() for mood, name in enumerate(MOODS)
    }
    mean = bootstrap(
        rows, listened.groups, lambda drawn: float(np.mean([of_mood(m, drawn) for m in range(len(MOODS))]))
    )
    return {**found, "mean": mean.rounded()}


def _lead(parts: Floats) -> Floats:
    ordered = np.sort(parts, axis=1)
    lead: Floats = ordered[:, -1] - ordered[:, -2]
    return lead


def _counts(truth: Integers) -> dict[str, int]:
    return {mood: int((truth == number).sum()) for number, mood in enumerate(MOODS)}


def _accuracy(
    answers: Integers, truth: Integers, judged: npt.NDArray[np.bool_], groups: Sequence[str]
) -> dict[str, float] | None:
    if not judged.any():
        return None
    right = (answers == truth).mean(axis=0)[judged]
    of = [group for group, counts in zip(groups, judged, strict=True) if counts]
    return bootstrap(right, of, lambda drawn: float(drawn.mean())).rounded()


def _recall(answers: Integers, truth: Integers, judged: npt.NDArray[np.bool_]) -> dict[str, float | None]:
    recall: dict[str, float | None] = {}
    for number, mood in enumerate(MOODS):
        own = judged & (truth == number)
        recall[mood] = round(float((answers[:, own] == number).mean()), 3) if own.any() else None
    return recall


def _softmax(logits: Floats) -> Floats:
    probabilities: Floats = scipy.special.softmax(logits, axis=1)
    return probabilities
