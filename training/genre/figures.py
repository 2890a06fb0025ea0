"""From a network's logits to the figures of a genre model: by track and by segment, calibrated, with intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from shared.audio.segments import chosen_segments
from shared.contracts.labels import GENRES
from training.data.clips import Clip
from training.reports.figures import Bin, FewerSegments, GenreAnswers, Uncertain, VariedAnswers
from training.reports.metrics import (
    accuracy,
    confusion,
    expected_calibration_error,
    fit_temperature,
    fit_tempered,
    mean_by_track,
    reliability,
    softmax,
    tempered,
)

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]

#: The bandwidth of a recording sampled at 16 kHz, in Hz. The answers are checked with it as well.
LIMITED_HZ: Final = 8000
#: Numbers of evenly spaced segments per track, to measure the cost in accuracy.
_FEWER: Final = (1, 2, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The answers of a network that was not trained on ``clips``: logits [segments, classes] per clip.

    ``full`` are those of the segments, ``limited`` those of the segments limited to `LIMITED_HZ`, ``varied`` those of
    the clips with a variation (`training.data.variations`), by its name.
    """

    clips: Sequence[Clip]
    full: Sequence[Array]
    limited: Sequence[Array]
    varied: Mapping[str, Sequence[Array]] = field(default_factory=dict)

    def only(self, positions: Indices) -> HeldOut:
        """The clips at ``positions``."""
        return HeldOut(
            [self.clips[i] for i in positions],
            [self.full[i] for i in positions],
            [self.limited[i] for i in positions],
            {name: [logits[i] for i in positions] for name, logits in self.varied.items()},
        )

    @property
    def truth(self) -> Indices:
        """The class of each clip."""
        return np.array([GENRES.index(clip.label) for clip in self.clips], np.intp)

    @property
    def track_of(self) -> Indices:
        """The clip number of each segment."""
        return np.repeat(np.arange(len(self.clips)), [len(logits) for logits in self.full])


@dataclass(frozen=True, slots=True)
class Answers:
    """Probabilities of segments [segments, classes] and tracks [tracks, classes], before and after calibration."""

    segments_before: Floats
    segments: Floats
    tracks_before: Floats
    tracks: Floats
    limited_tracks: Floats
    varied_tracks: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Two temperatures: for a segment's logits, and for the mean of a track's calibrated segments (`tempered`)."""

    segment: float
    track: float

    @classmethod
    def fit(cls, held_out: HeldOut) -> Self:
        """Both temperatures at the minimal log loss of ``held_out``."""
        logits, track_of, truth = np.concatenate(held_out.full), held_out.track_of, held_out.truth
        segment = fit_temperature(logits, truth[track_of])
        return cls(segment, fit_tempered(mean_by_track(softmax(logits, segment), track_of), truth))

    def answers(self, held_out: HeldOut) -> Answers:
        """The calibrated probabilities of each segment and each track."""
        logits, track_of = np.concatenate(held_out.full), held_out.track_of
        before, segments = softmax(logits), softmax(logits, self.segment)
        limited = softmax(np.concatenate(held_out.limited), self.segment)
        return Answers(
            before,
            segments,
            mean_by_track(before, track_of),
            tempered(mean_by_track(segments, track_of), self.track),
            tempered(mean_by_track(limited, track_of), self.track),
            {name: self._tracks(logits) for name, logits in held_out.varied.items()},
        )

    def _tracks(self, logits: Sequence[Array]) -> Floats:
        """The probabilities of tracks, NaN for those without a segment."""
        tracks = np.full((len(logits), len(GENRES)), np.nan)
        for position, segments in enumerate(logits):
            if len(segments):
                mean = softmax(segments, self.segment).mean(axis=0, keepdims=True)
                tracks[position] = tempered(mean, self.track)[0]
        return tracks


def answers_by_fold(held_out: HeldOut, fold_of: Indices) -> Answers:
    """The answers of each fold, calibrated on the other folds, as needed to evaluate the calibration.

    ``fold_of`` is the fold of each clip.
    """
    track_of = held_out.track_of
    whole = Temperatures(1.0, 1.0).answers(held_out)
    for fold in np.unique(fold_of):
        own, rest = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        judged = Temperatures.fit(held_out.only(rest)).answers(held_out.only(own))
        whole.segments[np.isin(track_of, own)] = judged.segments
        whole.tracks[own] = judged.tracks
        whole.limited_tracks[own] = judged.limited_tracks
        for name, tracks in judged.varied_tracks.items():
            whole.varied_tracks[name][own] = tracks
    return whole


def figures(held_out: HeldOut, answers: Answers, threshold: float | None) -> GenreAnswers:
    """All figures of the answers.

    Answers with a confidence below ``threshold`` are uncertain; None for a model without a threshold.
    """
    clips, truth, track_of = held_out.clips, held_out.truth, held_out.track_of
    groups = [clip.group for clip in clips]
    segment_truth, segment_groups = truth[track_of], [groups[track] for track in track_of]
    chosen = answers.tracks.argmax(axis=1)
    right = chosen == truth
    limited = answers.limited_tracks.argmax(axis=1)
    narrow = np.array([clip.native_rate is not None and clip.native_rate <= 2 * LIMITED_HZ for clip in clips])
    return GenreAnswers(
        clips=len(clips),
        groups=len(set(groups)),
        groups_of={genre: len({clip.group for clip in clips if clip.label == genre}) for genre in GENRES},
        segments=len(track_of),
        data="GTZAN (Tzanetakis and Cook 2002)" if _is_gtzan(clips) else "other than GTZAN",
        artists_known=any(clip.group != f"{clip.name}|{clip.label}" for clip in clips),
        track_accuracy=accuracy(chosen, truth, groups).rounded(),
        segment_accuracy=accuracy(answers.segments.argmax(axis=1), segment_truth, segment_groups).rounded(),
        recall={genre: _share(right[truth == index]) for index, genre in enumerate(GENRES)},
        confusion=confusion(chosen, truth, len(GENRES)).tolist(),
        narrow_clips=int(narrow.sum()),
        track_accuracy_of_narrow_clips=_share(right[narrow]),
        track_accuracy_of_wide_clips=_share(right[~narrow]),
        track_accuracy_limited_bandwidth=accuracy(limited, truth, groups).rounded(),
        same_answer_in_limited_bandwidth=_share(chosen == limited),
        track_ece_before=_ece(answers.tracks_before, truth),
        track_ece_after=_ece(answers.tracks, truth),
        track_reliability_before=_bins(answers.tracks_before, truth),
        track_reliability_after=_bins(answers.tracks, truth),
        segment_ece_before=_ece(answers.segments_before, segment_truth),
        segment_ece_after=_ece(answers.segments, segment_truth),
        segment_reliability_before=_bins(answers.segments_before, segment_truth),
        segment_reliability_after=_bins(answers.segments, segment_truth),
        uncertain=_uncertain(answers.tracks.max(axis=1), right, groups, threshold),
        fewer_segments=_fewer_segments(answers.segments, track_of, truth),
        variations=tuple(
            _variation(name, varied, answers.tracks)
            for name, varied in answers.varied_tracks.items()
            if np.isfinite(varied).any()
        ),
    )


def _variation(name: str, varied: Floats, plain: Floats) -> VariedAnswers:
    """How far the answers ``varied`` [tracks, classes] are from the ``plain`` ones."""
    known = np.isfinite(varied).all(axis=1)
    varied, plain = varied[known], plain[known]
    label = plain.argmax(axis=1)
    moved = np.abs(varied.max(axis=1) - plain.max(axis=1))
    return VariedAnswers(
        name=name,
        same_answer=round(float((varied.argmax(axis=1) == label).mean()), 3),
        confidence_moved=round(float(moved.mean()), 3),
    )


def _fewer_segments(segments: Floats, track_of: Indices, truth: Indices) -> tuple[FewerSegments, ...]:
    """The accuracy from a few evenly spaced segments per track, for each number that leaves some out."""
    of_track = [segments[track_of == track] for track in range(len(truth))]
    whole = np.array([one.mean(axis=0).argmax() for one in of_track])
    longest = max(len(one) for one in of_track)
    found = []
    for limit in (limit for limit in _FEWER if limit < longest):
        answers = np.array([one[list(chosen_segments(len(one), limit))].mean(axis=0).argmax() for one in of_track])
        found.append(
            FewerSegments(segments=limit, track_accuracy=_share(answers == truth), same_answer=_share(answers == whole))
        )
    return tuple(found)


def _is_gtzan(clips: Sequence[Clip]) -> bool:
    return all(re.fullmatch(rf"{clip.label}\.\d{{5}}", clip.name) for clip in clips)


def _ece(probabilities: Floats, truth: Indices) -> float:
    return round(expected_calibration_error(probabilities, truth), 3)


def _bins(probabilities: Floats, truth: Indices) -> tuple[Bin, ...]:
    return tuple(one.rounded() for one in reliability(probabilities, truth))


def _uncertain(
    confidence: Floats, right: npt.NDArray[np.bool_], groups: Sequence[str], threshold: float | None
) -> Uncertain:
    """How many tracks are uncertain, and how often the answer is right for those and for the others."""
    if threshold is None:
        return Uncertain(below=None)
    sure = confidence >= threshold
    of_sure = [group for group, reached in zip(groups, sure, strict=True) if reached]
    above = accuracy(right[sure].astype(np.intp), np.ones(len(of_sure), np.intp), of_sure) if of_sure else None
    return Uncertain(
        below=threshold,
        share=round(float((~sure).mean()), 3),
        accuracy=_share(right[~sure]),
        accuracy_of_others=above.rounded() if above else None,
    )


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return round(float(right.mean()), 3) if len(right) else None
