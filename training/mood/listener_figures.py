"""The agreement between moods predicted from measured features and listeners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.stats

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from training.reports.figures import Felt, Interval, ListenerAnswers, Sure
from training.reports.metrics import (
    bootstrap,
    calibrated_by_fold,
    confusion,
    expected_calibration_error,
    fit_temperature,
    reliability,
    softmax,
)

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

#: A clip has a clear mood if its part of the four shares exceeds the next by this much.
_CLEAR_LEAD: Final = 0.2
#: The alternative definition: a lead of one deviation after standardising each mood's shares over the clips.
_CLEAR_DEVIATIONS: Final = 1.0
#: The confidence from which answers count as sure.
_SURE: Final = 0.6
#: The share of listeners with which each feature should correlate, and the sign.
_FELT: Final = (
    ("energy", "energetic"),
    ("energy", "calm"),
    ("danceability", "happy"),
    ("acousticness", "calm"),
    ("valence", "happy"),
    ("valence", "sad"),
)


@dataclass(frozen=True, slots=True)
class Listened:
    """Clips with their measured features and their listeners' moods.

    ``features`` [n, 10] in ``AUDIO_FEATURES`` order and units; ``shares`` [n, 4] of the listeners who felt a mood, the
    mean over its emotions, in ``MOODS`` order; ``groups`` are the artists.
    """

    features: Floats
    shares: Floats
    groups: tuple[str, ...]

    @property
    def top(self) -> Integers:
        """The number of the most felt mood of each clip, [n]."""
        top: Integers = self.shares.argmax(axis=1)
        return top


def listener_figures(listened: Listened, runs: Sequence[Floats], assignments: Sequence[Integers]) -> ListenerAnswers:
    """All figures of the held-out logits [n, 4] in ``runs``.

    ``assignments`` hold the fold [n] of each clip in each run. A figure is the mean over the runs, with a 95% interval
    by bootstrap over artists; probabilities are calibrated by a temperature that was fitted to the other folds.
    """
    top = listened.top
    calibrated = [calibrated_by_fold(run, top, fold_of) for run, fold_of in zip(runs, assignments, strict=True)]
    return ListenerAnswers(
        clips=len(top),
        groups=len(set(listened.groups)),
        correlation=correlations(np.stack(calibrated), listened),
        **_clear_figures(np.stack(calibrated).argmax(axis=2), listened),
        **_calibration(runs, calibrated, listened),
        felt=feature_correlations(listened),
    )


def correlations(probabilities: Floats, listened: Listened) -> dict[str, Interval]:
    """Spearman's rank correlation of ``probabilities`` [repeats, n, 4] with the shares of listeners; and their mean."""
    rows = np.concatenate([listened.shares, np.concatenate(list(probabilities), axis=1)], axis=1)

    def of_mood(mood: int, drawn: Floats) -> float:
        columns = range(len(MOODS) + mood, drawn.shape[1], len(MOODS))
        return float(np.mean([_rank_correlation(drawn[:, [mood, column]]) for column in columns]))

    found = {
        name: bootstrap(rows, listened.groups, partial(of_mood, mood)).rounded() for mood, name in enumerate(MOODS)
    }
    mean = bootstrap(
        rows, listened.groups, lambda drawn: float(np.mean([of_mood(mood, drawn) for mood in range(len(MOODS))]))
    )
    return {**found, "mean": mean.rounded()}


def feature_correlations(listened: Listened) -> tuple[Felt, ...]:
    """Spearman's rank correlation of single features with the share of listeners who felt a mood."""
    found = []
    for feature, mood in _FELT:
        column, share = listened.features[:, AUDIO_FEATURES.index(feature)], listened.shares[:, MOODS.index(mood)]
        interval = bootstrap(np.stack([column, share], axis=1), listened.groups, _rank_correlation)
        found.append(Felt(feature=feature, mood=mood, correlation=interval.rounded()))
    return tuple(found)


def clear_clips(shares: Floats) -> tuple[Flags, Integers]:
    """Which clips have a clear mood, and the mood most felt of each, from ``shares`` [n, 4].

    The four shares are made to add up to 1; the largest has to lead the second by 0.2.
    """
    parts = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    return _lead(parts) >= _CLEAR_LEAD, parts.argmax(axis=1)


def clear_clips_by_deviation(shares: Floats) -> tuple[Flags, Integers]:
    """The same by shares that are standardised, mood by mood, over the clips: strong relative to the mood, not in
    absolute terms."""
    deviations = (shares - shares.mean(axis=0)) / np.maximum(shares.std(axis=0), 1e-9)
    return _lead(deviations) >= _CLEAR_DEVIATIONS, deviations.argmax(axis=1)


def _clear_figures(answers: Integers, listened: Listened) -> dict[str, Any]:
    """How often ``answers`` [repeats, n] are the most felt mood: for clear clips, by both definitions, and for all."""
    clear, truth = clear_clips(listened.shares)
    standardised, truth_standardised = clear_clips_by_deviation(listened.shares)
    confused = [confusion(run[clear], truth[clear], len(MOODS)) for run in answers]
    return {
        "clear_lead": _CLEAR_LEAD,
        "clear_clips": _counts(truth[clear]),
        "clear_accuracy": _accuracy(answers, truth, clear, listened.groups),
        "clear_recall": _recall(answers, truth, clear),
        "clear_confusion": np.sum(confused, axis=0).tolist(),
        "clear_deviations": _CLEAR_DEVIATIONS,
        "clear_clips_by_deviation": _counts(truth_standardised[standardised]),
        "clear_accuracy_by_deviation": _accuracy(answers, truth_standardised, standardised, listened.groups),
        "accuracy": _accuracy(answers, listened.top, np.ones(len(listened.top), bool), listened.groups),
        "top": {mood: round(float((listened.top == number).mean()), 3) for number, mood in enumerate(MOODS)},
        "answers": {mood: round(float((answers == number).mean()), 3) for number, mood in enumerate(MOODS)},
    }


def _calibration(runs: Sequence[Floats], calibrated: Sequence[Floats], listened: Listened) -> dict[str, Any]:
    """The calibration against the most felt mood, over all clips and runs."""
    found: dict[str, Any] = {"temperature": round(_temperature(runs, listened.top), 4)}
    truth = np.tile(listened.top, len(runs))
    for when, probabilities in (("before", [softmax(run) for run in runs]), ("after", calibrated)):
        errors = [expected_calibration_error(run, listened.top) for run in probabilities]
        found[f"ece_{when}"] = round(float(np.mean(errors)), 3)
        found[f"reliability_{when}"] = [one.rounded() for one in reliability(np.concatenate(probabilities), truth)]
    return {**found, "sure": _sure_answers(np.stack(calibrated), listened)}


def _temperature(runs: Sequence[Floats], top: Integers) -> float:
    return fit_temperature(np.concatenate(runs), np.tile(top, len(runs)))


def _sure_answers(probabilities: Floats, listened: Listened) -> Sure:
    """How many of the answers by ``probabilities`` [repeats, n, 4] are sure, and how many of those are right."""
    sure = probabilities.max(axis=2) >= _SURE
    right = sure & (probabilities.argmax(axis=2) == listened.top)
    rows = np.stack([right.sum(axis=0), sure.sum(axis=0)], axis=1).astype(np.float64)
    accuracy = bootstrap(rows, listened.groups, lambda drawn: float(drawn[:, 0].sum() / max(1.0, drawn[:, 1].sum())))
    return Sure(
        at_least=_SURE,
        share=round(float(sure.mean()), 3),
        accuracy=accuracy.rounded() if sure.any() else None,
    )


def _rank_correlation(pairs: Floats) -> float:
    """Spearman's rank correlation of pairs [n, 2]; 0 if one side is constant."""
    ranks = scipy.stats.rankdata(pairs, axis=0)
    return float(np.corrcoef(ranks.T)[0, 1]) if ranks.std(axis=0).all() else 0.0


def _lead(parts: Floats) -> Floats:
    ordered = np.sort(parts, axis=1)
    lead: Floats = ordered[:, -1] - ordered[:, -2]
    return lead


def _counts(truth: Integers) -> dict[str, int]:
    return {mood: int((truth == number).sum()) for number, mood in enumerate(MOODS)}


def _accuracy(answers: Integers, truth: Integers, judged: Flags, groups: Sequence[str]) -> Interval | None:
    if not judged.any():
        return None
    right = (answers == truth).mean(axis=0)[judged]
    of = [group for group, counts in zip(groups, judged, strict=True) if counts]
    return bootstrap(right, of, lambda drawn: float(drawn.mean())).rounded()


def _recall(answers: Integers, truth: Integers, judged: Flags) -> dict[str, float | None]:
    recall: dict[str, float | None] = {}
    for number, mood in enumerate(MOODS):
        own = judged & (truth == number)
        recall[mood] = round(float((answers[:, own] == number).mean()), 3) if own.any() else None
    return recall
