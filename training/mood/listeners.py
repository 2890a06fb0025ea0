"""The mood network for measured features, trained on listeners' answers.

Listeners of Emotify (Aljanaki, Wiering and Veltkamp 2016, "Studying emotion induced by music through a crowdsourcing
game") ticked which of nine emotions they felt. Six of those correspond to the four moods (`EMOTIONS`). A small ensemble
learns to predict the distribution of a clip's listeners over the moods from its ten features, which are measured by the
code that serves.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.models.heard_track import TAG_SEGMENTS
from shared.models.manifest import Scaler, load_manifest
from shared.models.networks import TagModel
from shared.settings import Settings
from training.data.clips import DataError, audio_files
from training.data.features import measured_features
from training.data.splits import fold_of_each, train_and_test
from training.genre.protocol import Workspace
from training.mood.feature_checks import check_features
from training.mood.listener_figures import Listened, listener_figures
from training.mood.network import dense_by_member, descend, scaler_of
from training.reports.figures import ListenerFigures, MoodFigures

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

#: The emotions of the listeners that correspond to each mood.
EMOTIONS: Final = {
    "calm": ("calmness", "tenderness"),
    "energetic": ("power", "tension"),
    "happy": ("joyful_activation",),
    "sad": ("sadness",),
}
#: Ignored, because a file may be a preview, an excerpt or a mix.
_IGNORED: Final = ("duration_ms",)
_MEMBERS: Final = 8
_HIDDEN: Final = 32
_NOISE: Final = 0.1
_DROPOUT: Final = 0.2
_STEPS: Final = 200
_LEARNING_RATE: Final = 5e-3
_WEIGHT_DECAY: Final = 0.02
#: Added to every share, because a mood that none of some thirty listeners felt is not impossible.
_SMALLEST_SHARE: Final = 0.01
#: Shares are divided by this power of their mean. At 0, sadness is hardly ever predicted, because it is ticked least.
#: The correlation with the shares does not depend on it. Chosen among 0.5, 0.7, 0.8, 0.9 and 1 by the mean recall of
#: the moods. Chosen for each fold on the other folds alone, it is mostly 0.7 to 1, and the answers are as good.
_EVENING_OUT: Final = 0.9


@dataclass(frozen=True, slots=True)
class AudioMood:
    """The part of a mood model for measured features.

    ``network`` is a Keras network, standardised features float32 [n, 10] to logits [n, 4] in ``MOODS`` order.
    """

    network: Any
    scaler: Scaler
    temperature: float
    figures: ListenerFigures


def fit_audio_mood(
    folder: Path, data: Workspace, genres: Path | None = None, folds: int = 10, repeats: int = 5, seed: int = 1
) -> AudioMood:
    """Cross-validate by artist on the clips in ``folder``, then train on all of them.

    ``folder`` holds recordings and an index.csv (track_id, group, a share of listeners for each emotion). ``genres`` is
    a folder of clips by genre (`read_clips`), for the feature checks of the figures. Measures with the installed tag
    model. Raises DataError, SplitError, ModelError, TonestreamError for a clip that cannot be decoded.
    """
    settings = Settings()
    tagger = TagModel.load(settings.models_dir / settings.tag_model, data.threads)
    listened = read_listened(folder, tagger, data)
    figures = cross_validate(listened, folds, repeats, seed, data)
    if genres is not None:
        figures = figures.with_more(features=check_features(genres, tagger, data))
    scaler = scaler_for(listened.features)
    usual = listened.shares.mean(axis=0)
    network = train(scaler.standardise(listened.features), targets(listened.shares, usual), seed)
    return AudioMood(
        network,
        scaler,
        figures.temperature,
        figures.with_more(
            tag_model=tagger.manifest.model_id,
            tag_segments=TAG_SEGMENTS,
            hidden=_HIDDEN,
            members=_MEMBERS,
            steps=_STEPS,
            seed=seed,
        ),
    )


def installed_audio_mood() -> AudioMood:
    """The installed mood model's part for measured features, unchanged, with its figures.

    ``figures`` names that model as ``taken_from``. Raises DataError if it was not trained on listeners, ModelError.
    """
    settings = Settings()
    folder = settings.models_dir / settings.mood_model
    manifest = load_manifest(folder)
    try:
        figures = MoodFigures.model_validate(manifest.figures).audio
    except ValidationError:  # a model of another kind or version
        figures = None
    if figures is None:
        raise DataError(f"{folder} knows no mood of measured features that could be kept: listeners are needed")
    network = keras.saving.load_model(folder / manifest.weights, compile=False)
    return AudioMood(
        keras.Model(network.input, network.output["audio"]),
        manifest.require_scalers()["audio"],
        manifest.temperature_of("audio"),
        figures if figures.taken_from else figures.with_more(taken_from=manifest.model_id),
    )


def read_listened(folder: Path, tagger: TagModel, data: Workspace) -> Listened:
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
    measured = measured_features(files, data.cache, data.threads, tagger, data.progress)
    return Listened(measured, np.array(shares), groups)


def scaler_for(features: Floats) -> Scaler:
    """Mean and deviation of measured ``features`` [n, 10]. Duration is ignored, because a clip is shorter than its
    song."""
    return scaler_of(features).model_copy(update={"ignored": _IGNORED})


def targets(shares: Floats, usual: Floats) -> Floats:
    """The targets for ``shares`` [n, 4] of listeners: rows that add up to 1.

    ``usual`` [4] are the mean shares of the training clips, which are evened out almost wholly.
    """
    evened = (shares + _SMALLEST_SHARE) / (usual + _SMALLEST_SHARE) ** _EVENING_OUT
    rows: Floats = evened / evened.sum(axis=1, keepdims=True)
    return rows


def train(features: Floats, soft_labels: Floats, seed: int) -> Any:
    """A Keras network, standardised features float32 [n, 10] to logits [n, 4], trained on ``soft_labels`` [n, 4].

    The logits are the mean over the ensemble's members, which differ in initialisation and noise.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((len(AUDIO_FEATURES),), name="features")
    x = keras.layers.RepeatVector(_MEMBERS)(inputs)
    x = keras.layers.GaussianNoise(_NOISE)(x)
    x = dense_by_member(_MEMBERS, _HIDDEN, deviation=np.sqrt(2 / len(AUDIO_FEATURES)))(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(_DROPOUT)(x)
    by_member = dense_by_member(_MEMBERS, len(MOODS), deviation=np.sqrt(1 / _HIDDEN))(x)
    members = keras.Model(inputs, by_member)
    members.compile(
        keras.optimizers.AdamW(_LEARNING_RATE, weight_decay=_WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    wanted = np.repeat(np.asarray(soft_labels, np.float32)[:, None, :], _MEMBERS, axis=1)
    descend(members, features, wanted, _STEPS)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling1D(name="logits")(by_member))


def held_out_logits(listened: Listened, fold_of: Integers, seed: int) -> Floats:
    """Logits [n, 4] of each clip from a network, scaler and targets without its artist."""
    logits = np.zeros_like(listened.shares)
    for train_on, test_on in train_and_test(fold_of):
        scaler = scaler_for(listened.features[train_on])
        known = listened.shares[train_on]
        network = train(scaler.standardise(listened.features[train_on]), targets(known, known.mean(axis=0)), seed)
        logits[test_on] = network(scaler.standardise(listened.features[test_on])).numpy()
    return logits


def cross_validate(listened: Listened, folds: int, repeats: int, seed: int, data: Workspace) -> ListenerFigures:
    """Figures of networks that are trained on all folds but one and evaluated on that one, ``repeats`` times."""
    moods = [MOODS[mood] for mood in listened.top]
    assignments = [fold_of_each(moods, listened.groups, folds, seed + number) for number in range(repeats)]
    numbered = data.progress.track(list(enumerate(assignments)), "folds of listeners", repeats)
    runs = [held_out_logits(listened, fold_of, seed + number) for number, fold_of in numbered]
    found = listener_figures(listened, runs, assignments)
    measured = {name: getattr(found, name) for name in found.model_fields_set}
    return ListenerFigures(folds=folds, repeats=repeats, **measured)
