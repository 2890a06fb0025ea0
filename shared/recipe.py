"""What an answer depends on beside the audio, and the name under which it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from shared.models import ModelManifest, load_manifest
from shared.settings import Settings, VoteStrategy

#: Raise when the same audio and models would give another answer, e.g. after a change to the vote or the measures.
ANSWER_VERSION = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parts of the pipeline that an answer follows from."""

    feature_spec: str
    genre_model: str
    mood_model: str
    tag_model: str
    vote: VoteStrategy
    max_segments: int | None = None
    answer_version: int = ANSWER_VERSION

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        """The recipe of this installation. Reads the models' manifests; raises ModelError."""
        genre = load_manifest(settings.models_dir / settings.genre_model)
        mood = load_manifest(settings.models_dir / settings.mood_model)
        tags = load_manifest(settings.models_dir / settings.tag_model)
        spec = genre.require_feature_spec()
        limit = segment_limit(settings, genre)
        return cls(spec.id, genre.model_id, mood.model_id, tags.model_id, settings.vote, limit)

    def result_key(self, audio_sha256: str, mood_from: str) -> str:
        """The cache key of the answer for that audio; ``mood_from`` is ``audio`` or ``spotify:<track ID>``."""
        text = json.dumps({**asdict(self), "audio": audio_sha256, "mood_from": mood_from}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def segment_limit(settings: Settings, genre: ModelManifest) -> int | None:
    """By how many segments a track is judged at most: the setting, else what the model advises; None for all."""
    return settings.max_segments or genre.max_segments


def mood_sources(spotify_id: str | None) -> list[str]:
    """Where the mood of a track may have come from, best first."""
    return ([f"spotify:{spotify_id}"] if spotify_id else []) + ["audio"]
