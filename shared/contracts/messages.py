"""Every message that crosses a topic. Frozen, versioned, validated on both sides.

In the order of a track's way: request, ingested track, segment features, segment prediction (or the failure of a
stage), mood prediction, result.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.labels import CONTENTS, GENRES, MOODS
from shared.contracts.tracks import (
    MAX_BLOB_LENGTH,
    MAX_URL_LENGTH,
    checked_audio_url,
    spotify_track_id,
    track_key,
    without_credentials,
)

#: The schema version that this code writes and reads. It is raised when an older reader would misunderstand a message.
SCHEMA_VERSION: Final = 1

_REQUEST_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$"
_SHA256: Final = r"^[0-9a-f]{64}$"
#: Each pattern in words, for error messages.
PATTERNS_IN_WORDS: Final = {
    _REQUEST_ID: "may have 1 to 128 characters: letters from A to Z and a to z, digits, and . _ : @ / -; the first is a"
    " letter or digit",
    _SHA256: "must be 64 hexadecimal digits in lower case",
}

RequestId = Annotated[str, StringConstraints(pattern=_REQUEST_ID)]
TrackKey = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LONGEST_TEXT: Final = 1000
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
LONGEST_SOURCE: Final = MAX_URL_LENGTH
LONGEST_ISRC: Final = 32
Source = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SOURCE)]
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Timings = Annotated[dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]], Field(max_length=16)]

#: Tolerance of the sum of a distribution whose members are rounded to six decimals.
_SUM_TOLERANCE = 1e-3


def _distribution_over(labels: tuple[str, ...]) -> Any:
    def check(probabilities: dict[str, float]) -> dict[str, float]:
        if set(probabilities) != set(labels):
            raise ValueError(f"probabilities must be given for exactly {', '.join(labels)}")
        if not math.isclose(sum(probabilities.values()), 1.0, abs_tol=_SUM_TOLERANCE):
            raise ValueError(f"probabilities must add up to 1, these add up to {sum(probabilities.values()):.4f}")
        return probabilities

    return AfterValidator(check)


GenreProbabilities = Annotated[dict[str, Probability], _distribution_over(GENRES)]
ContentProbabilities = Annotated[dict[str, Probability], _distribution_over(CONTENTS)]
MoodProbabilities = Annotated[dict[str, Probability], _distribution_over(MOODS)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
        # A refused value may be private, and errors end up in logs and dead letters.
        hide_input_in_errors=True,
    )


class _Message(_Frozen):
    schema_version: Literal[1] = 1
    request_id: RequestId


class TrackRequest(_Message):
    """user -> ingestion: classify this track.

    One or both of ``track_id`` (Spotify ID, URI or open.spotify.com URL) and ``audio_url`` (http, https, a ``blob:``
    reference, or ``file:///`` and the path of a file in the folder that ingestion may read). With both, the audio comes
    from the URL and the names from Spotify. ``force`` computes the answer again even if one is cached. ``source`` is
    the track's name in the result; by default the URL or ID as given. ``model`` is the genre model, by its folder's
    name or its model ID; by default the installation's own. ``embedding`` asks for the track's embedding.
    """

    model_config = ConfigDict(extra="forbid")

    track_id: Annotated[str, StringConstraints(max_length=500)] | None = None
    audio_url: str | None = None
    force: bool = False
    source: Source | None = None
    model: ModelId | None = None
    embedding: bool = False

    @field_validator("track_id")
    @classmethod
    def _names_a_track(cls, value: str | None) -> str | None:
        if value is not None:
            spotify_track_id(value)
        return value

    @field_validator("audio_url")
    @classmethod
    def _can_be_fetched(cls, value: str | None) -> str | None:
        return None if value is None else checked_audio_url(value)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.track_id is None and self.audio_url is None:
            raise ValueError("give track_id, audio_url or both")
        return self

    @property
    def spotify_id(self) -> str | None:
        return None if self.track_id is None else spotify_track_id(self.track_id)

    @property
    def track_key(self) -> str:
        return track_key(self.spotify_id, self.audio_url)

    @property
    def shown_source(self) -> str:
        """The track's name in the result: as given, without the user and the password of a URL."""
        # The stars may be longer than the user name that they replace.
        return without_credentials(self.source or self.audio_url or self.track_id or "")[:LONGEST_SOURCE]


class Stage(StrEnum):
    """The stage at which something happened, by the services' names."""

    INGESTION = "ingestion"
    FEATURE_EXTRACTION = "feature-extraction"
    GENRE_WORKER = "genre-worker"
    MOOD_WORKER = "mood-worker"
    AGGREGATOR = "aggregator"


class ErrorReport(_Frozen):
    """An error: a code to branch on, the stage, and a sentence for a person."""

    code: ErrorCode
    stage: Stage
    message: Text

    @classmethod
    def of(cls, error: TonestreamError, stage: Stage) -> ErrorReport:
        return cls(code=error.code, stage=stage, message=error.message[:1000])


class AnswerKey(_Frozen):
    """The models and rules of an answer.

    Together with the audio it determines the answer. It travels with the track, so that workers of another version or
    with other settings answer by the announced key. ``feature_spec`` is the ID of the genre model's spec. ``vote`` is
    an open list, because an older reader must be able to read a newer strategy.
    """

    feature_spec: ModelId
    genre_model: ModelId
    mood_model: ModelId
    tag_model: ModelId
    vote: Annotated[str, StringConstraints(min_length=1, max_length=50)]
    max_segments: Annotated[int, Field(ge=1)] | None = None
    answer_version: int


_WholeSeconds = Annotated[int, Field(ge=0, le=1_000_000)]


class IngestedAudio(_Frozen):
    """The decoded audio: 22.05 kHz mono 16-bit WAV in the blob store, named by the hash of its samples.

    ``segments`` is the number of analysed segments, which may be less than the track has. ``chosen`` are their
    positions if they are not evenly spaced because parts of the track are silent. ``sounding`` are the sounding parts
    of such a track, [from, to] in seconds; empty if the whole track sounds, or if this is unknown. ``silences``
    are its silent segments, those side by side as one, [from, to] in seconds; None in messages of older versions.
    ``level_dbfs`` is the level of the track (`shared.audio.level.track_level`), dB relative to full scale, from which
    it is scaled to the reference level; missing in messages of older versions.
    """

    blob: Annotated[str, StringConstraints(min_length=1, max_length=MAX_BLOB_LENGTH)]
    sha256: Sha256
    duration_s: Seconds
    segments: Annotated[int, Field(ge=0, le=100_000)]
    chosen: tuple[Annotated[int, Field(ge=0, le=100_000)], ...] | None = None
    sounding: tuple[tuple[_WholeSeconds, _WholeSeconds], ...] = ()
    silences: tuple[tuple[_WholeSeconds, _WholeSeconds], ...] | None = None
    level_dbfs: Annotated[float, Field(ge=-200.0, le=10.0, allow_inf_nan=False)] | None = None


class IngestedTrack(_Message):
    """ingestion -> feature_extraction, mood_worker, aggregator: the ingested track.

    It has either ``audio`` or ``error``. ``cached`` carries the finished answer of an earlier request for the same
    audio. ``follows`` names a request in progress for the same track, whose answer also answers this one. In both cases
    the workers have nothing to do. Older versions send no ``answer_key`` (on the wire: ``recipe``); readers then use
    their own settings. ``embedding``: the request asks for it.
    """

    track_key: TrackKey
    source: Source
    spotify_id: str | None = None
    title: Text | None = None
    artist: Text | None = None
    isrc: Annotated[str, StringConstraints(max_length=LONGEST_ISRC)] | None = None
    audio: IngestedAudio | None = None
    error: ErrorReport | None = None
    cached: TrackResult | None = None
    follows: RequestId | None = None
    answer_key: AnswerKey | None = Field(None, alias="recipe")
    embedding: bool = False
    received_at_ms: Annotated[int, Field(ge=0)] = 0
    timings_ms: Timings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_an_outcome(self) -> Self:
        if self.audio is None and self.error is None and not self.answered_elsewhere:
            raise ValueError("an ingested track has audio, an answer elsewhere, or the reason why there is neither")
        return self

    @property
    def answered_elsewhere(self) -> bool:
        """Whether an answer for the same audio exists, or another request in progress will give it."""
        return self.cached is not None or self.follows is not None


_MATRIX_ON_THE_WIRE = {
    "type": "string",
    "contentEncoding": "binary",
    "description": "Behind the header: little-endian float32 [frames, coefficients], row by row; the header's field"
    " `shape` holds both numbers. On Kafka they are packed (`shared/contracts/codec.py`): then the header's field"
    " `packed` holds `encoding`, `shape` and `model`, and those beside it are for workers of older versions.",
}


class SegmentFeatures(_Message):
    """feature_extraction -> genre_worker: the features of one segment, float32 [frames, coefficients].

    ``index`` counts the analysed segments; ``start_s`` and ``end_s`` are the position in the track. ``model`` is the
    genre model to use; None in messages of older versions.

    Travels binary (``shared.contracts.codec``); the matrix is read-only.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    track_key: TrackKey
    index: Annotated[int, Field(ge=0, lt=100_000)]
    start_s: Seconds
    end_s: Seconds
    feature_spec: ModelId
    model: ModelId | None = None
    matrix: Annotated[npt.NDArray[np.float32], WithJsonSchema(_MATRIX_ON_THE_WIRE)] = Field(exclude=True)
    timings_ms: Timings = Field(default_factory=dict)

    @field_validator("matrix")
    @classmethod
    def _is_a_finite_float32_matrix(cls, value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if value.ndim != 2 or value.dtype != np.float32 or 0 in value.shape:
            raise ValueError(f"features are a float32 matrix, not {value.dtype} of shape {value.shape}")
        if not np.isfinite(value).all():
            raise ValueError("features hold values that are not finite")
        return value


class Calibration(_Frozen):
    """The calibration of a model's answers for whole tracks, from its manifest. It travels with the answers, so that
    the aggregator does not need the model.

    The probabilities of a track, raised to 1 / ``track_temperature`` and normalised, are calibrated (genre models); if
    the best is below ``uncertain_below``, the label is a guess.
    """

    track_temperature: Annotated[float, Field(gt=0.0)] = 1.0
    uncertain_below: Probability | None = None

    def uncertain(self, confidence: float) -> bool:
        """Whether the best label is only a guess."""
        return self.uncertain_below is not None and confidence < self.uncertain_below


class SegmentPrediction(_Message):
    """genre_worker -> aggregator: the genres of one segment.

    ``calibration`` is the model's; None in messages of older versions."""

    type: Literal["segment_prediction"] = "segment_prediction"
    track_key: TrackKey
    index: Annotated[int, Field(ge=0, lt=100_000)]
    start_s: Seconds
    end_s: Seconds
    probabilities: GenreProbabilities
    feature_spec: ModelId
    model: ModelId
    calibration: Calibration | None = None
    timings_ms: Timings = Field(default_factory=dict)


class SilentSegment(_Message):
    """feature_extraction -> aggregator: this segment is silent, so it has no vote."""

    type: Literal["silent_segment"] = "silent_segment"
    track_key: TrackKey
    index: Annotated[int, Field(ge=0, lt=100_000)]


class GenreFailure(_Message):
    """feature_extraction, genre_worker -> aggregator: why this track gets no genre."""

    type: Literal["genre_failure"] = "genre_failure"
    track_key: TrackKey
    error: ErrorReport


class Overdue(_Message):
    """aggregator -> aggregator: this request waited too long for its missing half.

    It is answered with what there is. The reminder goes through the topic, so that each answer belongs to one committed
    record.
    """

    type: Literal["overdue"] = "overdue"
    track_key: TrackKey
    waited_s: Seconds


MoodSource = Literal["spotify", "audio"]


def _all_ten(features: dict[str, float]) -> dict[str, float]:
    if set(features) != set(AUDIO_FEATURES):
        raise ValueError(f"exactly the features {', '.join(AUDIO_FEATURES)} must be given")
    return features


class Tag(_Frozen):
    """A word that listeners gave to songs, such as "acoustic", and how likely it fits. Several tags may fit."""

    label: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    probability: Probability


#: How many tags a result holds: the likeliest.
MOST_TAGS: Final = 8
Tags = Annotated[tuple[Tag, ...], Field(max_length=MOST_TAGS)]


class MusicalKey(_Frozen):
    """The key of a track. ``confidence``: the probability that tonic and mode are both right."""

    tonic: Literal["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
    mode: Literal["major", "minor"]
    confidence: Probability


class Content(_Frozen):
    """What a recording holds: music, speech or other sounds."""

    label: str
    confidence: Probability
    probabilities: ContentProbabilities


class GenreFit(_Frozen):
    """How well a track fits the ten genres at all.

    ``probability`` is calibrated as if half of all tracks were of another kind. ``outside``: it is below the threshold
    of the model, so the track probably belongs to none of the ten.
    """

    probability: Probability
    outside: bool


class MoodSegment(_Frozen):
    """A segment by itself. Its mood is not calibrated: the mood network was trained on whole clips."""

    start_s: Seconds
    end_s: Seconds
    energy: Probability
    valence: Probability
    label: str
    confidence: Probability


class Dynamics(_Frozen):
    """How far a track moves: the standard deviation of energy and of valence over its segments."""

    energy: Annotated[float, Field(ge=0.0)]
    valence: Annotated[float, Field(ge=0.0)]


#: Of music that sounds alike, embeddings point in the same direction.
Embedding = Annotated[tuple[float, ...], Field(max_length=1000)]


class MoodPrediction(_Message):
    """mood_worker -> aggregator: the mood with the features it came from and their source, or why there is none.

    ``calibration`` is the model's; None in messages of older versions. ``tags`` are the likeliest, best first; empty if
    the audio was not heard, and so are ``key``, ``content``, ``fit``, ``segments`` and ``embedding``.
    """

    track_key: TrackKey
    probabilities: MoodProbabilities | None = None
    features: Annotated[dict[str, float], AfterValidator(_all_ten)] | None = None
    source: MoodSource | None = None
    model: ModelId | None = None
    calibration: Calibration | None = None
    tags: Tags = ()
    key: MusicalKey | None = None
    content: Content | None = None
    fit: GenreFit | None = None
    segments: tuple[MoodSegment, ...] = ()
    embedding: Embedding | None = None
    error: ErrorReport | None = None
    timings_ms: Timings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        parts = (self.probabilities, self.features, self.source, self.model)
        if self.error is None and any(part is None for part in parts):
            raise ValueError("a mood comes with probabilities, features, source and model, or with an error")
        return self


class GenreAlternative(_Frozen):
    """The next best genre."""

    label: str
    confidence: Probability


class SegmentGenre(_Frozen):
    """Evidence: the prediction of one segment. ``runner_up`` is missing in answers of older versions."""

    start_s: Seconds
    end_s: Seconds
    label: str
    confidence: Probability
    runner_up: GenreAlternative | None = None


class Silence(_Frozen):
    """A silent part of a track."""

    start_s: Seconds
    end_s: Seconds


class Track(_Frozen):
    """The track of an answer. ``source`` is the path, URL or Spotify ID as given.

    ``silences`` are its silent parts, of one segment or more; None if they are unknown: the audio was not heard, or the
    answer is of an older version. What is neither silent nor among the segments of the genre was not chosen to be
    heard.
    """

    key: TrackKey
    source: Source
    title: Text | None = None
    artist: Text | None = None
    duration_s: Seconds | None = None
    silences: tuple[Silence, ...] | None = None


class Genre(_Frozen):
    """The genre with its evidence. ``agreement`` is the share of segments that name the same genre.

    ``uncertain``: no genre is likely enough; ``label`` is the best guess. ``alternatives`` are the two next ones.
    ``fit`` says whether the track is of one of the ten genres at all; None if the tag model does not know.
    """

    label: str
    confidence: Probability
    uncertain: bool = False
    alternatives: tuple[GenreAlternative, ...] = ()
    fit: GenreFit | None = None
    agreement: Probability
    probabilities: GenreProbabilities
    segments: tuple[SegmentGenre, ...]
    model: ModelId


class Mood(_Frozen):
    """The mood, the ten features it came from, and whether they come from Spotify or from the audio.

    ``uncertain``: no mood is likely enough; ``label`` is the best guess. ``segments`` are some of 3 s, spread over the
    track, and ``dynamics`` says how far they move; both are empty if the audio was not heard.
    """

    label: str
    confidence: Probability
    uncertain: bool = False
    probabilities: MoodProbabilities
    features: dict[str, float]
    source: MoodSource
    segments: tuple[MoodSegment, ...] = ()
    dynamics: Dynamics | None = None
    model: ModelId


class TrackAudioFeatures(_Frozen):
    """The ten audio features of a track and their source, with Spotify's names, units and ranges."""

    source: MoodSource
    duration_ms: float = Field(description="milliseconds")
    tempo: float = Field(description="beats per minute")
    loudness: float = Field(description="dB relative to full scale, about -60 to 0")
    energy: float = Field(description="0 to 1: how intense")
    danceability: float = Field(description="0 to 1: how fit for dancing")
    acousticness: float = Field(description="0 to 1: confidence that the instruments are acoustic")
    instrumentalness: float = Field(description="0 to 1: confidence that nobody sings")
    liveness: float = Field(description="0 to 1: confidence that there is an audience")
    speechiness: float = Field(description="0 to 1: share of spoken words")
    valence: float = Field(description="0 to 1: how positive")


class Status(StrEnum):
    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"


#: If one of so many tags names the genre, the track belongs to it.
_TAGS_THAT_NAME_A_GENRE: Final = 2


class TrackResult(_Message):
    """aggregator -> user: the one answer to a request.

    ``audio_features``, ``key``, ``tags`` (the likeliest, best first) and ``content`` describe the track; the mood
    follows from the features. ``embedding``, if the request asks for it: tracks that sound alike have a high cosine
    similarity.
    ``cached``: it was computed for another request. ``timings_ms`` holds the milliseconds of work by stage. ``total``
    is the time since the request: since the timestamp of its record, or since ingestion first saw it if that timestamp
    is implausible (in the future, or older than the retention of the topic).
    """

    status: Status
    track: Track
    genre: Genre | None = None
    mood: Mood | None = None
    audio_features: TrackAudioFeatures | None = None
    key: MusicalKey | None = None
    tags: Tags = ()
    content: Content | None = None
    embedding: Embedding | None = None
    errors: tuple[ErrorReport, ...] = ()
    cached: bool = False
    timings_ms: Timings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _status_follows_from_the_halves(self) -> Self:
        halves = (self.genre is not None) + (self.mood is not None)
        expected = (Status.FAILED, Status.PARTIAL, Status.OK)[halves]
        if self.status is not expected:
            raise ValueError(f"with {halves} of 2 halves the status is {expected.value}, not {self.status.value}")
        if halves < 2 and not self.errors:
            raise ValueError("a result with a half missing says why in errors")
        return self

    @property
    def none_of_the_ten(self) -> bool | None:
        """Whether the track probably belongs to none of the ten genres; None if that is not known.

        A track that lies outside by its fit still belongs to its genre if one of its two likeliest tags names it:
        death metal is far from the usual metal.
        """
        genre = self.genre
        if genre is None or genre.fit is None:
            return None
        named = any(genre.label in tag.label.replace("-", "") for tag in self.tags[:_TAGS_THAT_NAME_A_GENRE])
        return genre.fit.outside and not named


IngestedTrack.model_rebuild()
