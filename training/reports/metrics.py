"""Metrics of a model, and their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special
import scipy.stats

from training.reports.figures import Bin, Interval

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

#: Answers with a lower confidence are uncertain. Confidence is calibrated, so for any model such an answer is more
#: likely wrong than right.
UNCERTAIN_BELOW: Final = 0.5
_RESAMPLES: Final = 1000
_ECE_BINS: Final = 10
#: Lower bound of probabilities in logarithms.
_SMALLEST: Final = 1e-12


def bootstrap(rows: Floats, groups: Sequence[str], statistic: Callable[[Floats], float], seed: int = 0) -> Interval:
    """``statistic`` of ``rows`` [n, ...] with a 95% interval by bootstrap over groups.

    Groups (artists) are resampled, not rows. Songs of one artist are right or wrong together, so an interval that
    treats them as independent is too narrow. Samples without a value (NaN) are left out.
    """
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(group_of == group) for group in range(group_of.max() + 1)]
    random = np.random.default_rng(seed)
    drawn = [
        statistic(rows[np.concatenate([members[group] for group in random.integers(len(members), size=len(members))])])
        for _ in range(_RESAMPLES)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(value=statistic(rows), low=float(low), high=float(high))


def accuracy(predicted: Integers, truth: Integers, groups: Sequence[str]) -> Interval:
    """Accuracy in 0..1, with a 95% interval by bootstrap over groups."""
    return bootstrap((predicted == truth).astype(np.float64), groups, lambda right: float(right.mean()))


def area_under_roc(positive: Floats, negative: Floats) -> float:
    """The chance that a value of ``positive`` exceeds one of ``negative``; ties count half."""
    ranks = scipy.stats.rankdata(np.concatenate([positive, negative]))
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def confusion(predicted: Integers, truth: Integers, classes: int) -> npt.NDArray[np.int64]:
    """Counts [truth, predicted]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def reliability(probabilities: Floats, truth: Integers) -> list[Bin]:
    """Answers to ``probabilities`` [n, classes] in ten equal bins of confidence, in order, without empty bins."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    return [
        Bin(count=int(own.sum()), confidence=float(confidence[own].mean()), accuracy=float(right[own].mean()))
        for own in (bin_of == number for number in np.unique(bin_of))
    ]


def expected_calibration_error(probabilities: Floats, truth: Integers) -> float:
    """Mean gap between confidence and accuracy, over ten equal bins of confidence, weighted by count.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". 0 is perfect. With few items even a perfect model shows
    an error: some 0.1 with a hundred, 0.03 with a thousand.
    """
    bins = reliability(probabilities, truth)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(truth)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities of ``logits`` [n, classes], softened by ``temperature``."""
    probabilities: Floats = scipy.special.softmax(logits / temperature, axis=1)
    return probabilities


def log_loss(logits: Floats, truth: Integers, temperature: float = 1.0) -> float:
    """Mean negative log probability of the true class, nats."""
    log_probabilities = scipy.special.log_softmax(logits / temperature, axis=1)
    return -float(log_probabilities[np.arange(len(truth)), truth].mean())


def fit_temperature(logits: Floats, truth: Integers) -> float:
    """The temperature, 0.05 to 20, with the minimal log loss. Fit it on held-out items."""
    fitted = scipy.optimize.minimize_scalar(
        lambda log_temperature: log_loss(logits, truth, float(np.exp(log_temperature))),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(fitted.x))


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """``probabilities`` [n, classes] to the power of 1 / ``temperature``, each row renormalised."""
    return softmax(np.log(np.maximum(probabilities, _SMALLEST)), temperature)


def fit_tempered(probabilities: Floats, truth: Integers) -> float:
    """The temperature of `tempered` with the minimal log loss, 0.05 to 20."""
    return fit_temperature(np.log(np.maximum(probabilities, _SMALLEST)), truth)


def calibrated_by_fold(logits: Floats, truth: Integers, fold_of: Integers) -> Floats:
    """Out-of-fold probabilities, each fold with the temperature fitted on the others, to evaluate the calibration."""
    probabilities = np.empty_like(logits)
    for fold in np.unique(fold_of):
        own = fold_of == fold
        probabilities[own] = softmax(logits[own], fit_temperature(logits[~own], truth[~own]))
    return probabilities


def mean_by_track(values: Floats, track_of: Integers) -> Floats:
    """Mean of the rows of each track, [tracks, classes], in the order of the track numbers 0, 1, 2, ..."""
    sums = np.zeros((int(track_of.max()) + 1, values.shape[1]))
    np.add.at(sums, track_of, values)
    means: Floats = sums / np.bincount(track_of)[:, None]
    return means
