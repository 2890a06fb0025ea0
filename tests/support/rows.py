"""Rows and results to filter and to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.library.row import Row
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import CONTENTS, GENRES, MOODS
from shared.contracts.messages import (
    Content,
    ErrorReport,
    Genre,
    GenreFit,
    Mood,
    MoodSegment,
    MusicalKey,
    SegmentGenre,
    Stage,
    Status,
    Tag,
    Track,
    TrackAudioFeatures,
    TrackResult,
)

_FEATURES = dict.fromkeys(AUDIO_FEATURES, 0.5) | {"duration_ms": 30_000.0, "tempo": 120.0, "loudness": -12.0}


def ok_result(
    request_id: str = "r1",
    source: str = "music/song.mp3",
    title: str | None = "Song",
    artist: str | None = "Band",
    genre: str = "jazz",
    mood: str = "calm",
) -> TrackResult:
    """A track of 30 s with both halves of its answer, with ten segments each."""
    marks = [(3.0 * number, 3.0 * number + 3.0) for number in range(10)]
    return TrackResult(
        request_id=request_id,
        status=Status.OK,
        track=Track(key="blob:1", source=source, title=title, artist=artist, duration_s=30.0),
        genre=Genre(
            label=genre,
            confidence=0.73,
            agreement=1.0,
            fit=GenreFit(probability=0.8, outside=False),
            probabilities={label: 0.73 if label == genre else 0.03 for label in GENRES},
            segments=tuple(SegmentGenre(start_s=a, end_s=b, label=genre, confidence=0.7) for a, b in marks),
            model="genre-1",
        ),
        mood=Mood(
            label=mood,
            confidence=0.7,
            probabilities={label: 0.7 if label == mood else 0.1 for label in MOODS},
            features=_FEATURES,
            source="audio",
            segments=tuple(
                MoodSegment(start_s=a, end_s=b, energy=0.4, valence=0.6, label=mood, confidence=0.7) for a, b in marks
            ),
            model="mood-1",
        ),
        audio_features=TrackAudioFeatures(source="audio", **_FEATURES),
        key=MusicalKey(tonic="F", mode="minor", confidence=0.6),
        tags=(Tag(label="guitar", probability=0.6), Tag(label="female vocals", probability=0.4)),
        content=Content(
            label="music", confidence=0.9, probabilities={name: 0.9 if name == "music" else 0.05 for name in CONTENTS}
        ),
    )


def failed_result(
    request_id: str = "r2", source: str = "music/noise.mp3", code: ErrorCode = ErrorCode.CORRUPT_AUDIO
) -> TrackResult:
    """A track without an answer."""
    return TrackResult(
        request_id=request_id,
        status=Status.FAILED,
        track=Track(key="input:2", source=source),
        errors=(ErrorReport(code=code, stage=Stage.INGESTION, message="why it failed"),),
    )


def row(**fields: Any) -> Row:
    """The row of ``ok_result`` with other values in ``fields``."""
    return replace(Row.of(ok_result(), 1_700_000_000.0), **fields)
