"""One message of each kind as an example, built from the contracts, so that it is valid."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.codec import Message
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import CONTENTS, GENRES, MOODS
from shared.contracts.messages import (
    AnswerKey,
    Calibration,
    Content,
    Dynamics,
    ErrorReport,
    Genre,
    GenreAlternative,
    GenreFailure,
    GenreFit,
    IngestedAudio,
    IngestedTrack,
    Mood,
    MoodPrediction,
    MoodSegment,
    MusicalKey,
    Overdue,
    SegmentGenre,
    SegmentPrediction,
    SilentSegment,
    Stage,
    Status,
    Tag,
    Track,
    TrackAudioFeatures,
    TrackRequest,
    TrackResult,
)

_ID: Final = "my-1"
_URL: Final = "https://example.org/song.mp3"
_KEY: Final = TrackRequest(request_id=_ID, audio_url=_URL).track_key
_GENRE_MODEL: Final = "musicnn-lstm-e38c684bbce2"
_MOOD_MODEL: Final = "mood-ten-8931e4527624"
_SPEC: Final = "logmel96-16000hz-3s-v2"


def _spread(labels: tuple[str, ...], **named: float) -> dict[str, float]:
    """Probabilities over all labels: those that are named, and nothing for the others."""
    return {label: named.get(label, 0.0) for label in labels}


_GENRES: Final = _spread(GENRES, jazz=0.81, blues=0.12, classical=0.07)
_MOODS: Final = _spread(MOODS, calm=0.64, sad=0.25, happy=0.11)
_FEATURES: Final = dict(
    zip(AUDIO_FEATURES, (212400.0, 112.3, -14.1, 0.24, 0.52, 0.9, 0.71, 0.1, 0.04, 0.3), strict=True)
)
_MOOD_SEGMENT: Final = MoodSegment(start_s=9.0, end_s=12.0, energy=0.21, valence=0.35, label="calm", confidence=0.71)
_TAGS: Final = (Tag(label="jazz", probability=0.71), Tag(label="instrumental", probability=0.38))
_MUSICAL_KEY: Final = MusicalKey(tonic="F", mode="minor", confidence=0.63)
_CONTENT: Final = Content(label="music", confidence=0.99, probabilities=_spread(CONTENTS, music=0.99, other=0.01))
_FIT: Final = GenreFit(probability=0.74, outside=False)
_REFUSED: Final = ErrorReport(
    code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="the server answered 404 (Not Found)"
)

#: Examples by message, each with a name.
EXAMPLES: Final[dict[type[BaseModel], dict[str, Message]]] = {
    TrackRequest: {
        "url": TrackRequest(request_id=_ID, audio_url=_URL),
        "model": TrackRequest(request_id="my-2", audio_url=_URL, model="mfcc-lstm", embedding=True),
    },
    IngestedTrack: {
        "track": IngestedTrack(
            request_id=_ID,
            track_key=_KEY,
            source=_URL,
            title="Song",
            artist="Band",
            audio=IngestedAudio(
                blob=f"audio/{'0' * 64}.wav", sha256="0" * 64, duration_s=212.4, segments=20, level_dbfs=-16.2
            ),
            recipe=AnswerKey(
                feature_spec=_SPEC,
                genre_model=_GENRE_MODEL,
                mood_model=_MOOD_MODEL,
                tag_model="mfcc-lstm-b32a70235978",
                vote="soft",
                max_segments=20,
                answer_version=1,
            ),
        )
    },
    SegmentPrediction: {
        "segment": SegmentPrediction(
            request_id=_ID,
            track_key=_KEY,
            index=0,
            start_s=0.0,
            end_s=3.0,
            probabilities=_GENRES,
            feature_spec=_SPEC,
            model=_GENRE_MODEL,
            calibration=Calibration(track_temperature=0.5937, uncertain_below=0.5),
        )
    },
    SilentSegment: {"silence": SilentSegment(request_id=_ID, track_key=_KEY, index=7)},
    GenreFailure: {
        "failure": GenreFailure(
            request_id=_ID,
            track_key=_KEY,
            error=ErrorReport(
                code=ErrorCode.INTERNAL,
                stage=Stage.FEATURE_EXTRACTION,
                message="the decoded audio is gone from the blob store",
            ),
        )
    },
    Overdue: {"overdue": Overdue(request_id=_ID, track_key=_KEY, waited_s=3600.0)},
    MoodPrediction: {
        "mood": MoodPrediction(
            request_id=_ID,
            track_key=_KEY,
            probabilities=_MOODS,
            features=_FEATURES,
            source="audio",
            model=_MOOD_MODEL,
            tags=_TAGS,
            key=_MUSICAL_KEY,
            content=_CONTENT,
            fit=_FIT,
            segments=(_MOOD_SEGMENT,),
        )
    },
    TrackResult: {
        "ok": TrackResult(
            request_id=_ID,
            status=Status.OK,
            track=Track(key=_KEY, source=_URL, title="Song", artist="Band", duration_s=212.4),
            genre=Genre(
                label="jazz",
                confidence=0.81,
                alternatives=(
                    GenreAlternative(label="blues", confidence=0.12),
                    GenreAlternative(label="classical", confidence=0.07),
                ),
                fit=_FIT,
                agreement=0.9,
                probabilities=_GENRES,
                segments=(SegmentGenre(start_s=0.0, end_s=3.0, label="jazz", confidence=0.77),),
                model=_GENRE_MODEL,
            ),
            mood=Mood(
                label="calm",
                confidence=0.64,
                probabilities=_MOODS,
                features=_FEATURES,
                source="audio",
                segments=(_MOOD_SEGMENT,),
                dynamics=Dynamics(energy=0.06, valence=0.03),
                model=_MOOD_MODEL,
            ),
            audio_features=TrackAudioFeatures(source="audio", **_FEATURES),
            key=_MUSICAL_KEY,
            tags=_TAGS,
            content=_CONTENT,
            timings_ms={"ingestion": 310.0, "total": 702.0},
        ),
        "failed": TrackResult(
            request_id=_ID, status=Status.FAILED, track=Track(key=_KEY, source=_URL), errors=(_REFUSED,)
        ),
    },
}
