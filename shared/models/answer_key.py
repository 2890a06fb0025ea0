"""Answer keys: the models and rules of an answer, and its cache key."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from shared.contracts.messages import AnswerKey
from shared.models.catalogue import Catalogue
from shared.models.manifest import ModelManifest
from shared.settings import Settings

#: Raise when the same bytes and models would give another answer, e.g. after a change to the vote, the measures, the
#: choice of segments or the formats that are read.
ANSWER_VERSION: Final = 4
_DIGITS: Final = 16


class AnswerKeys:
    """The answer keys of this installation: its own, and variants with another genre model."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._mood = catalogue.configured("mood", settings.mood_model).manifest
        self._tags = catalogue.configured("tags", settings.tag_model).manifest
        self.own = self.by(catalogue.configured("genre", settings.genre_model).manifest)

    def by(self, genre: ModelManifest) -> AnswerKey:
        """The answer key of this installation, with this genre model."""
        return AnswerKey(
            feature_spec=genre.require_feature_spec().id,
            genre_model=genre.model_id,
            mood_model=self._mood.model_id,
            tag_model=self._tags.model_id,
            vote=self._settings.vote,
            max_segments=segment_limit(self._settings, genre),
            answer_version=ANSWER_VERSION,
        )


def result_key(answer_key: AnswerKey, audio_sha256: str, mood_from: str) -> str:
    """The cache key of the answer by ``answer_key``; ``mood_from`` is ``audio`` or ``spotify:<track ID>``."""
    return _digest({**answer_key.model_dump(), "audio": audio_sha256, "mood_from": mood_from})


def source_work(answer_key: AnswerKey, track_key: str) -> str:
    """The key of the work on a track by ``answer_key``, before its audio is known."""
    return f"source:{track_key}:{_digest(answer_key.model_dump())[:_DIGITS]}"


def segment_limit(settings: Settings, genre: ModelManifest) -> int | None:
    """The most segments that are analysed: the setting, else the model's advice; None for all."""
    return settings.max_segments or genre.max_segments


def mood_sources(spotify_id: str | None) -> list[str]:
    """The possible sources of a track's mood, best first."""
    return ([f"spotify:{spotify_id}"] if spotify_id else []) + ["audio"]


def _digest(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
