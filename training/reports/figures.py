"""The figures of models, typed. Training measures them, manifests store them as JSON, cards and plots show them.

Shares, accuracies and errors are in 0..1. An interval is the 95% interval by bootstrap over artists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field


class Figures(BaseModel):
    """Figures that belong together. Unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        """The fields that were set, by name, for a manifest."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)

    def with_more(self, **more: Any) -> Self:
        """A copy with more figures, which are validated."""
        return type(self).model_validate({**{name: getattr(self, name) for name in self.model_fields_set}, **more})


class Interval(Figures):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> Interval:
        """To three decimals."""
        return Interval(value=round(self.value, 3), low=round(self.low, 3), high=round(self.high, 3))


class Bin(Figures):
    """Answers of about the same confidence: how many, their mean confidence and the share of right ones."""

    count: int
    confidence: float
    accuracy: float

    def rounded(self) -> Bin:
        """To three decimals."""
        return Bin(count=self.count, confidence=round(self.confidence, 3), accuracy=round(self.accuracy, 3))


class Reliability(Figures):
    """Expected calibration error and bins of confidence, before and after calibration."""

    ece_before: float
    ece_after: float
    reliability_before: tuple[Bin, ...]
    reliability_after: tuple[Bin, ...]


def trained_on(figures: Mapping[str, Any]) -> Sequence[str] | None:
    """The content IDs of a model's training data by its manifest, of any version; None if it does not say."""
    found = figures.get("trained_on")
    return found if isinstance(found, list | tuple) else None


# Genre models


class Uncertain(Figures):
    """How many tracks are called uncertain, ``below`` that confidence, and how often the answers are right."""

    below: float | None
    share: float | None = None
    accuracy: float | None = None
    accuracy_of_others: Interval | None = None


class FewerSegments(Figures):
    """The accuracy from this many evenly spaced segments per track."""

    segments: int
    track_accuracy: float | None
    same_answer: float | None


class VariedAnswers(Figures):
    """The answers to the tracks with a variation: the share that stays, and how far the confidence moves (mean)."""

    name: str
    same_answer: float
    confidence_moved: float


class Split(Figures):
    """How the clips were split. ``present`` and ``listed`` count tracks by part of the fault-filtered split."""

    name: Literal["artist", "fault-filtered", "all clips"]
    folds: int | None = None
    seed: int | None = None
    present: dict[str, int] | None = None
    listed: dict[str, int] | None = None
    tests_of_known_artists: int | None = None


class SkippedFile(Figures):
    """A file that cannot be used: its genre and name, and why."""

    file: str
    reason: str


class Leaky(Figures):
    """The figures of a random split by segment."""

    train_segments: int
    test_segments: int
    segment_accuracy: Interval


class ClipLeak(Figures):
    """How many of the ``of`` judged clips the model was trained on; None if its manifest does not say."""

    clips: int | None
    of: int


class FitFigures(Figures):
    """How well tracks of a genre that was left out are separated from those of the others (area under the ROC curve).

    With the threshold ``below`` a share ``found`` of them is recognised, and ``false_alarms`` of the known ones.
    """

    auroc: Interval
    auroc_by_genre: dict[str, float]
    below: float
    found: float
    false_alarms: float


class ContentFigures(Figures):
    """How well speech and other sounds are separated from music, by source; each source was left out in turn.

    ``right`` is the share of its segments that are recognised, ``music_right`` that of the clips' segments, and
    ``tracks_right`` that of the clips, by rules that were not trained on their artists.
    """

    auroc_against_music: dict[str, float]
    right: dict[str, float]
    music_right: float
    tracks_right: float
    segments: dict[str, int]


class GenreAnswers(Figures):
    """What was measured of the answers of a genre model."""

    clips: int
    groups: int
    groups_of: dict[str, int]
    segments: int
    data: str
    artists_known: bool
    track_accuracy: Interval
    segment_accuracy: Interval
    recall: dict[str, float | None]
    confusion: tuple[tuple[int, ...], ...]
    narrow_clips: int
    track_accuracy_of_narrow_clips: float | None
    track_accuracy_of_wide_clips: float | None
    track_accuracy_limited_bandwidth: Interval
    same_answer_in_limited_bandwidth: float | None
    track_ece_before: float
    track_ece_after: float
    track_reliability_before: tuple[Bin, ...]
    track_reliability_after: tuple[Bin, ...]
    segment_ece_before: float
    segment_ece_after: float
    segment_reliability_before: tuple[Bin, ...]
    segment_reliability_after: tuple[Bin, ...]
    uncertain: Uncertain
    fewer_segments: tuple[FewerSegments, ...] = ()
    variations: tuple[VariedAnswers, ...] = ()

    @property
    def track_reliability(self) -> Reliability:
        """That of tracks."""
        return Reliability(
            ece_before=self.track_ece_before,
            ece_after=self.track_ece_after,
            reliability_before=self.track_reliability_before,
            reliability_after=self.track_reliability_after,
        )

    @property
    def segment_reliability(self) -> Reliability:
        """That of segments."""
        return Reliability(
            ece_before=self.segment_ece_before,
            ece_after=self.segment_ece_after,
            reliability_before=self.segment_reliability_before,
            reliability_after=self.segment_reliability_after,
        )


class GenreFigures(GenreAnswers):
    """All figures of a genre model in a manifest or a report.

    A manifest adds the description by the training protocol and the content IDs of the training clips. A report adds
    ``leak`` and the two temperatures.
    """

    split: Split
    skipped: tuple[SkippedFile, ...]
    leaky: Leaky | None = None
    fit: FitFigures | None = None
    content: ContentFigures | None = None
    recipe: str = ""
    description: str = ""
    notices: str = ""
    notes: dict[str, Any] = Field(default_factory=dict)
    trained_on: tuple[str, ...] | None = None
    training_s: int | None = None
    leak: ClipLeak | None = None
    temperature: float | None = None
    track_temperature: float | None = None


# Mood models


class TrackLeak(Figures):
    """How many of the ``of`` judged tracks the model was trained on; None if its manifest does not say."""

    tracks: int | None
    of: int


class SourceAccuracy(Figures):
    """The accuracy on the tracks that one labeller labelled."""

    tracks: int
    accuracy: Interval


class Repeated(Figures):
    """Mean and spread of the accuracy over several assignments of artists to folds."""

    runs: int
    mean: float
    deviation: float
    by_source: dict[str, float]


class Sure(Figures):
    """How many answers have a confidence of ``at_least``, and how many of these are right."""

    at_least: float = Field(alias="from")
    share: float
    accuracy: Interval | None


class Felt(Figures):
    """Rank correlation of a single feature with the share of listeners who felt a mood."""

    feature: str
    mood: str
    correlation: Interval


class Order(Figures):
    """The chance that a clip of the genres ``more`` has more of a feature than one of ``less`` (area under the ROC)."""

    feature: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    artists: tuple[int, int]
    auc: Interval


class TempoAgreement(Figures):
    """Shares of clips whose tempo is within 4% of the known one, as it is and up to a factor of 2 or 3."""

    clips: int
    right: float
    right_up_to_octaves: float


class FeatureChecks(Figures):
    """Checks of the measured features on clips with a genre."""

    clips: int
    orders: tuple[Order, ...]
    tempo: TempoAgreement | None = None


class ListenerAnswers(Figures):
    """What was measured of moods from measured features against what listeners felt. Maps are by mood."""

    clips: int
    groups: int
    correlation: dict[str, Interval]
    clear_lead: float
    clear_clips: dict[str, int]
    clear_accuracy: Interval | None
    clear_recall: dict[str, float | None]
    clear_confusion: tuple[tuple[int, ...], ...]
    clear_deviations: float
    clear_clips_by_deviation: dict[str, int]
    clear_accuracy_by_deviation: Interval | None
    accuracy: Interval | None
    top: dict[str, float]
    answers: dict[str, float]
    temperature: float
    ece_before: float
    ece_after: float
    reliability_before: tuple[Bin, ...]
    reliability_after: tuple[Bin, ...]
    sure: Sure
    felt: tuple[Felt, ...]

    @property
    def reliability(self) -> Reliability:
        """That of clips."""
        return _reliability(self)


class ListenerFigures(ListenerAnswers):
    """All figures of the network for measured features in a manifest. ``taken_from`` names the model it came with."""

    folds: int
    repeats: int
    features: FeatureChecks | None = None
    tag_model: str = ""
    tag_segments: int | None = None
    hidden: int | None = None
    members: int | None = None
    steps: int | None = None
    seed: int | None = None
    taken_from: str | None = None


class MoodAnswers(Figures):
    """What was measured of a mood model's answers to Spotify's features. ``accuracy`` is by labeller, and of all."""

    tracks: int
    groups: int
    artists_known: bool
    accuracy: dict[str, SourceAccuracy]
    recall: dict[str, float | None]
    confusion: tuple[tuple[int, ...], ...]
    ece_before: float
    ece_after: float
    reliability_before: tuple[Bin, ...]
    reliability_after: tuple[Bin, ...]

    @property
    def reliability(self) -> Reliability:
        """That of tracks."""
        return _reliability(self)


class MoodFigures(MoodAnswers):
    """All figures of a mood model in a manifest or a report. ``repeated`` comes only from a cross-validation."""

    repeated: Repeated | None = None
    folds: int | None = None
    seed: int | None = None
    members: int | None = None
    hidden: int | None = None
    steps: int | None = None
    audio: ListenerFigures | None = None
    trained_on: tuple[str, ...] | None = None
    training_s: int | None = None
    leak: TrackLeak | None = None
    temperature: float | None = None


class TagFigures(Figures):
    """The figures of the tag model in its manifest. The model is a third party's."""

    notices: str
    parameters: int


def _reliability(figures: ListenerAnswers | MoodAnswers) -> Reliability:
    return Reliability(
        ece_before=figures.ece_before,
        ece_after=figures.ece_after,
        reliability_before=figures.reliability_before,
        reliability_after=figures.reliability_after,
    )
