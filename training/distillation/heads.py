"""Two more heads of the student: how well a segment fits the ten genres, and whether it is music at all.

**Fit.** The tags of a genre's clips lie around a mean; music of another kind lies far from all ten. The distance is
that of Mahalanobis, with one covariance for all genres (Lee et al. 2018, "A simple unified framework for detecting
out-of-distribution samples and adversarial attacks"). It is calibrated on clips whose genre was left out.

**Content.** Multinomial logistic regression on the hidden layer: music, speech, other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import keras
import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from shared.contracts.labels import CONTENTS, GENRES
from training.distillation.logistic import balanced, multinomial
from training.reports.figures import ContentFigures, FitFigures
from training.reports.metrics import area_under_roc, bootstrap

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

#: How far the covariance is shrunk towards a sphere: there are few clips.
_SHRINKAGE: Final = 0.5
_SLOPE_PENALTY: Final = 1e-3
_MUSIC_WEIGHT: Final = 3.0
_CONTENT_PENALTY: Final = 1e-3
#: The share of tracks of the ten genres below the threshold.
_FALSE_ALARMS: Final = 0.05


@dataclass(frozen=True, slots=True)
class GenreRegions:
    """Where the tags of the genres lie: ``means`` [genres, tags] after ``whitening`` [tags, tags]."""

    whitening: Floats
    means: Floats

    @classmethod
    def of(cls, tags: Floats, labels: Integers) -> Self:
        """The regions of ``labels`` [n] from the ``tags`` (logits, [n, tags]) of segments."""
        deviation = tags.std(axis=0) + 1e-6
        standardised = tags / deviation
        known = np.unique(labels)
        centres = np.stack([standardised[labels == label].mean(axis=0) for label in known])
        rest = standardised - centres[np.searchsorted(known, labels)]
        covariance = rest.T @ rest / len(rest)
        sphere = np.eye(len(covariance)) * np.trace(covariance) / len(covariance)
        precision = np.linalg.inv((1.0 - _SHRINKAGE) * covariance + _SHRINKAGE * sphere)
        whitening = np.linalg.cholesky(precision) / deviation[:, None]
        return cls(whitening, centres * deviation @ whitening)

    def distance(self, tags: Floats) -> Floats:
        """The distance of each segment from the nearest genre, [n]."""
        places = tags @ self.whitening
        squared = ((places[:, None] - self.means[None]) ** 2).sum(axis=2)
        nearest: Floats = np.sqrt(squared.min(axis=1))
        return nearest


class FitTrial:
    """Distances of held-out clips, with each genre left out in turn. Fed fold by fold."""

    def __init__(self, labels: Integers, groups: Sequence[str]) -> None:
        self._labels = labels
        self._groups = list(groups)
        #: By clip: its mean distance when all genres are known, and when genre number i is left out.
        self._distances: dict[int, Floats] = {}

    def add(self, tags: Floats, clip_of: Integers, held_out: Integers) -> None:
        """Judge the clips ``held_out`` by the others. ``tags`` (logits) are by a network that never heard them."""
        tested = np.isin(clip_of, held_out)
        known, labels = tags[~tested], self._labels[clip_of[~tested]]
        regions = [GenreRegions.of(known, labels)]
        regions += [
            GenreRegions.of(known[labels != left_out], labels[labels != left_out]) for left_out in range(len(GENRES))
        ]
        for clip in held_out:
            own = tags[clip_of == clip]
            self._distances[int(clip)] = np.array([one.distance(own).mean() for one in regions])

    def calibrated(self) -> tuple[float, float]:
        """(slope, offset) of the log odds, slope * distance + offset, that a track is of a known genre.

        As if half of all tracks were of an unknown one.
        """
        known, unknown = self._pairs()
        distances = np.concatenate([known, unknown])
        truth = np.concatenate([np.ones(len(known)), np.zeros(len(unknown))])
        weight = np.where(truth == 1.0, 0.5 / len(known), 0.5 / len(unknown))

        def loss(values: Floats) -> float:
            odds = values[0] * (distances - distances.mean()) + values[1]
            # A little regularisation keeps the slope finite where the two sides do not overlap.
            return float((weight * (np.logaddexp(0.0, odds) - truth * odds)).sum() + _SLOPE_PENALTY * values[0] ** 2)

        slope, offset = scipy.optimize.minimize(loss, np.array([-1.0, 0.0]), method="BFGS").x
        return float(slope), float(offset - slope * distances.mean())

    def threshold(self) -> float:
        """The fit below which one in twenty of the held-out clips of known genres lies."""
        slope, offset = self.calibrated()
        known = np.array([row[0] for row in self._distances.values()])
        return float(scipy.special.expit(slope * np.quantile(known, 1.0 - _FALSE_ALARMS) + offset))

    def figures(self) -> FitFigures:
        """The area under the ROC curve for each genre when it is left out, and their mean with its interval."""
        clips = np.array(sorted(self._distances))
        rows = np.stack([np.append(self._distances[int(clip)], self._labels[clip]) for clip in clips])
        by_genre = {genre: round(_area(rows, number), 3) for number, genre in enumerate(GENRES)}
        mean = bootstrap(
            rows,
            [self._groups[clip] for clip in clips],
            lambda own: float(np.nanmean([_area(own, number) for number in range(len(GENRES))])),
        )
        below = self.threshold()
        slope, offset = self.calibrated()
        left_out = self._pairs()[1]
        missed = scipy.special.expit(slope * left_out + offset) >= below
        return FitFigures(
            auroc=mean.rounded(),
            auroc_by_genre=by_genre,
            below=round(below, 3),
            found=round(float(1.0 - missed.mean()), 3),
            false_alarms=_FALSE_ALARMS,
        )

    def _pairs(self) -> tuple[Floats, Floats]:
        """Distances of clips of known genres, and of clips whose own genre was left out."""
        known = np.concatenate(
            [
                [row[1 + number] for number in range(len(GENRES)) if number != self._labels[clip]]
                for clip, row in self._distances.items()
            ]
        )
        return known, np.array([row[1 + self._labels[clip]] for clip, row in self._distances.items()])


def _area(rows: Floats, left_out: int) -> float:
    """Rows [distances, label]: the chance that a clip of a known genre is nearer than one of the genre left out."""
    own = rows[:, -1] == left_out
    if own.all() or not own.any():
        return float("nan")
    distance = rows[:, 1 + left_out]
    return area_under_roc(-distance[~own], -distance[own])


@dataclass(frozen=True, slots=True)
class ContentRule:
    """Logits of CONTENTS: ``hidden @ weights + bias``."""

    weights: Floats
    bias: Floats

    @classmethod
    def fit(cls, hidden: Floats, labels: Integers) -> Self:
        """The rule fitted to the hidden layer [n, units] of labelled segments. Music weighs as much as all the rest and
        more: what users bring is mostly music."""
        mean, deviation = hidden.mean(axis=0), hidden.std(axis=0) + 1e-3
        prior = np.zeros((len(hidden), len(CONTENTS)))
        importance = balanced(labels) * np.where(labels == CONTENTS.index("music"), _MUSIC_WEIGHT, 1.0)
        standardised = (hidden - mean) / deviation
        weights, bias = multinomial(standardised, prior, labels, importance / importance.sum(), _CONTENT_PENALTY)
        own = weights / deviation[:, None]
        return cls(own, bias - mean @ own)

    def probabilities(self, hidden: Floats) -> Floats:
        """[n, contents]."""
        found: Floats = scipy.special.softmax(hidden @ self.weights + self.bias, axis=1)
        return found


@dataclass(frozen=True, slots=True)
class ContentExamples:
    """The hidden layer [n, units] of segments with their position in CONTENTS, and the source of each: a package for
    what is no music, and for music without a genre; the artist of a clip."""

    hidden: Array
    labels: Integers
    sources: npt.NDArray[np.str_]

    def without(self, left_out: npt.NDArray[np.bool_]) -> ContentRule:
        """The rule fitted to the others."""
        return ContentRule.fit(self.hidden[~left_out], self.labels[~left_out])


def content_figures(examples: ContentExamples, clip_of: Integers, fold_of: Integers) -> ContentFigures:
    """The rule with what it is judged by left out: folds of artists for clips, one source at a time for the rest.

    ``clip_of`` [n] is the clip of each example, -1 for none; ``fold_of`` [clips] the fold of each clip.
    """
    of_clips = clip_of >= 0
    found = np.zeros((len(clip_of), len(CONTENTS)))
    fold = np.where(of_clips, fold_of[clip_of], -1)
    for number in np.unique(fold_of):
        own = fold == number
        found[own] = examples.without(own).probabilities(examples.hidden[own])
    music = found[of_clips]
    tracks = np.array([found[clip_of == clip].mean(axis=0) for clip in np.unique(clip_of[of_clips])])
    areas: dict[str, float] = {}
    right: dict[str, float] = {}
    for source, label in _judged(examples):
        own = examples.sources == source
        judged = examples.without(own).probabilities(examples.hidden[own])
        areas[source] = round(area_under_roc(1.0 - judged[:, 0], 1.0 - music[:, 0]), 3)
        right[source] = round(float((judged.argmax(axis=1) == label).mean()), 3)
    return ContentFigures(
        auroc_against_music=areas,
        right=right,
        music_right=round(float((music.argmax(axis=1) == 0).mean()), 3),
        tracks_right=round(float((tracks.argmax(axis=1) == 0).mean()), 3),
        segments={name: int((examples.labels == number).sum()) for number, name in enumerate(CONTENTS)},
    )


def _judged(examples: ContentExamples) -> Iterator[tuple[str, int]]:
    pairs = sorted({(str(source), int(label)) for source, label in zip(examples.sources, examples.labels, strict=True)})
    yield from ((source, label) for source, label in pairs if label != CONTENTS.index("music"))


def with_heads(network: Any, regions: GenreRegions, fit: tuple[float, float], content: ContentRule | None) -> Any:
    """``network`` (a dict of outputs) with ``fit`` (log odds, [n, 1]) and, if there is a rule, ``content`` (logits).

    The mean of ``fit`` over a track is its log odds: it is linear in the distance.
    """
    outputs = dict(network.output)
    places = keras.layers.Dense(regions.whitening.shape[1], use_bias=False, trainable=False, name="places")
    near = keras.layers.Dense(len(regions.means), trainable=False, name="nearness")
    odds = keras.layers.Dense(1, trainable=False, name="fit")
    place = places(outputs["tags"])
    # |place - mean|^2 = |place|^2 + nearness
    squared = keras.ops.sum(keras.ops.square(place), axis=1, keepdims=True) + near(place)
    distance = keras.ops.sqrt(keras.ops.maximum(keras.ops.min(squared, axis=1, keepdims=True), 0.0))
    outputs["fit"] = odds(distance)
    places.set_weights([regions.whitening])
    near.set_weights([-2.0 * regions.means.T, (regions.means**2).sum(axis=1)])
    odds.set_weights([np.array([[fit[0]]]), np.array([fit[1]])])
    if content is not None:
        kind = keras.layers.Dense(len(CONTENTS), trainable=False, name="content")
        outputs["content"] = kind(network.get_layer("hidden").output)
        kind.set_weights([content.weights, content.bias])
    return keras.Model(network.input, outputs, name=network.name)
