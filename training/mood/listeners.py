"""The mood network for measured features, trained on listeners' answers.

Listeners of Emotify (Aljanaki, Wiering and Veltkamp 2016, "Studying emotion induced by music through a crowdsourcing
game") ticked which of nine emotions they felt. Six of those correspond to the four moods (`EMOTIONS`). A linear rule
(`training.mood.listener_rule`) learns to predict the distribution of a clip's listeners over the moods from its ten
features, which are measured by the code that serves.
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
from training.mood.listener_figures import Listened, listener_figures, mean_correlation
from training.mood.listener_rule import ListenerRule
from training.reports.figures import ListenerFigures, MoodFigures
from training.reports.metrics import softmax

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

#: The emotions of the listeners that correspond to each mood.
EMOTIONS: Final = {
    "calm": ("calmness", "tenderness"),
    "energetic": ("power", "tension"),
    "happy": ("joyful_activation",),
    "sad": ("sadness",),
}
#: Added to every share, because of some twenty listeners two more or less are chance. Chosen between 0.02, 0.05 and 0.1
#: on folds by artist.
_SMALLEST_SHARE: Final = 0.1
#: Shares are divided by this power of their mean. At 0, sadness is hardly ever predicted, because it is ticked least;
#: at 1, a weak sadness outweighs a strong joy. Chosen between 0, 0.5 and 1 on repeated folds by artist.
_EVENING_OUT: Final = 0.5
#: A clip weighs n / (n + this) with n ratings: the answers of few listeners are noisy.
_HALF_TRUSTED: Final = 15.0
#: The penalties that cross-validation chooses from.
_PENALTIES: Final = (0.001, 0.003, 0.01, 0.03, 0.1)
_INNER_FOLDS: Final = 5


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

    ``folder`` holds recordings and an index.csv (track_id, group, a share of listeners for each emotion). ``genres``
    is a folder of clips by genre (`read_clips`), for the feature checks of the figures; without it they are those of
    the installed mood model, if it has the same tags. Measures with the installed tag model. Raises DataError,
    SplitError, ModelError, TonestreamError for a clip that cannot be decoded.
    """
    settings = Settings()
    tagger = TagModel.load(settings.models_dir / settings.tag_model, data.threads)
    listened = read_listened(folder, tagger, data)
    figures = cross_validate(listened, folds, repeats, seed, data)
    if genres is not None:
        figures = figures.with_more(features=check_features(genres, tagger, data))
    elif (installed := _installed_figures()) and installed.tag_model == tagger.manifest.model_id:
        figures = figures.with_more(features=installed.features)
    penalty = chosen(listened, seed)
    rule = fitted(listened, penalty)
    return AudioMood(
        rule.network(),
        rule.scaler,
        figures.temperature,
        figures.with_more(
            tag_model=tagger.manifest.model_id,
            tag_segments=TAG_SEGMENTS,
            penalty=penalty,
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
    figures = _installed_figures()
    if figures is None:
        raise DataError(f"{folder} knows no mood of measured features that could be kept: listeners are needed")
    network = keras.saving.load_model(folder / manifest.weights, compile=False)
    return AudioMood(
        keras.Model(network.input, network.output["audio"]),
        manifest.require_scalers()["audio"],
        manifest.temperature_of("audio"),
        figures if figures.taken_from else figures.with_more(taken_from=manifest.model_id),
    )


def _installed_figures() -> ListenerFigures | None:
    """The figures of the installed mood model for measured features, if it has any. Raises ModelError."""
    settings = Settings()
    try:
        return MoodFigures.model_validate(load_manifest(settings.models_dir / settings.mood_model).figures).audio
    except ValidationError:  # a model of another kind or version
        return None


def read_listened(folder: Path, tagger: TagModel, data: Workspace) -> Listened:
    """Measure the recordings that the index.csv of ``folder`` names. Raises DataError, TonestreamError."""
    index = folder / "index.csv"
    try:
        with index.open(newline="", encoding="utf-8-sig") as opened:
            by_name = {row["track_id"]: row for row in csv.DictReader(opened)}
        files = [file for file in audio_files(folder) if file.stem in by_name]
        rows = [by_name[file.stem] for file in files]
        # Without counts all clips weigh the same.
        ratings = [float(row.get("n_ratings") or _HALF_TRUSTED) for row in rows]
        shares = [[np.mean([float(row[name]) for name in EMOTIONS[mood]]) for mood in MOODS] for row in rows]
        groups = tuple(row["group"] for row in rows)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{index} is no table of what listeners felt: {error}") from error
    if not files:
        raise DataError(f"{index} names no recording beside it")
    measured = measured_features(files, data.cache, data.threads, tagger, data.progress)
    return Listened(measured, np.array(shares), np.array(ratings), groups)


def targets(shares: Floats, usual: Floats) -> Floats:
    """The targets for ``shares`` [n, 4] of listeners: rows that add up to 1.

    ``usual`` [4] are the mean shares of the training clips, which are evened out by half.
    """
    evened = (shares + _SMALLEST_SHARE) / (usual + _SMALLEST_SHARE) ** _EVENING_OUT
    rows: Floats = evened / evened.sum(axis=1, keepdims=True)
    return rows


def fitted(listened: Listened, penalty: float) -> ListenerRule:
    """The rule fitted to all clips of ``listened``."""
    importance = listened.ratings / (listened.ratings + _HALF_TRUSTED)
    soft_labels = targets(listened.shares, listened.shares.mean(axis=0))
    return ListenerRule.fit(listened.features, soft_labels, importance, penalty)


def chosen(listened: Listened, seed: int) -> float:
    """The penalty that orders held-out clips best, in folds by artist of ``listened`` alone."""
    fold_of = fold_of_each(_moods(listened), listened.groups, _INNER_FOLDS, seed)
    return max(_PENALTIES, key=lambda penalty: _agreement(held_out_logits(listened, fold_of, penalty), listened))


def held_out_logits(listened: Listened, fold_of: Integers, penalty: float | None, seed: int = 0) -> Floats:
    """Logits [n, 4] of each clip from a rule without its artist.

    Without a ``penalty`` it is chosen for each fold, on the clips of the other folds.
    """
    logits = np.zeros_like(listened.shares)
    for train_on, test_on in train_and_test(fold_of):
        known, tested = listened[train_on], listened[test_on]
        rule = fitted(known, chosen(known, seed) if penalty is None else penalty)
        logits[test_on] = rule.logits(tested.features)
    return logits


def _agreement(logits: Floats, listened: Listened) -> float:
    return mean_correlation(softmax(logits), listened.shares)


def _moods(listened: Listened) -> list[str]:
    return [MOODS[mood] for mood in listened.top]


def cross_validate(listened: Listened, folds: int, repeats: int, seed: int, data: Workspace) -> ListenerFigures:
    """Figures of rules that are fitted to all folds but one and evaluated on that one, ``repeats`` times.

    Nested: the penalty is chosen on the folds that a rule is fitted to. ``flattered`` is how much higher the mean
    correlation is if all folds take part in the choice.
    """
    moods = _moods(listened)
    assignments = [fold_of_each(moods, listened.groups, folds, seed + number) for number in range(repeats)]
    numbered = data.progress.track(list(enumerate(assignments)), "folds of listeners", repeats)
    runs = [held_out_logits(listened, fold_of, None, seed + number) for number, fold_of in numbered]
    nested = float(np.mean([_agreement(run, listened) for run in runs]))
    known = max(
        float(np.mean([_agreement(held_out_logits(listened, fold_of, one), listened) for fold_of in assignments]))
        for one in _PENALTIES
    )
    found = listener_figures(listened, runs, assignments)
    measured = {name: getattr(found, name) for name in found.model_fields_set}
    return ListenerFigures(folds=folds, repeats=repeats, flattered=round(known - nested, 3), **measured)
