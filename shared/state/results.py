"""Cached answers, and what is known of a source without fetching it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.contracts.messages import ErrorReport, TrackResult
from shared.state.connection import redis_faults
from shared.state.keys import Keys


class KnownSource(BaseModel):
    """What the last download of a URL gave: its validators, and the audio's hash or why there is none.

    Of use only with validators: a server that confirms them (304) confirms that the audio is the same. And only to the
    ``answer_version`` that wrote it: another may read what this one refused.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    etag: str | None = None
    last_modified: str | None = None
    audio_sha256: str | None = None
    error: ErrorReport | None = None
    answer_version: int = 0


class ResultCache:
    """Redis strings with a time to live. Entries that cannot be read (an older format) count as missing."""

    def __init__(self, client: redis.Redis, keys: Keys, ttl_s: int) -> None:
        self._redis = client
        self._keys = keys
        self._ttl_s = ttl_s

    def find(self, result_keys: Sequence[str]) -> TrackResult | None:
        """The first answer there is under ``result_keys``, in their order."""
        with redis_faults():
            pipeline = self._redis.pipeline(transaction=False)
            for key in result_keys:
                pipeline.get(self._keys.result(key))
            found = cast("list[str | None]", pipeline.execute())
        for text in found:
            if text is not None:
                try:
                    return TrackResult.model_validate_json(text)
                except ValidationError:
                    continue
        return None

    def keep(self, result_key: str, result: TrackResult) -> None:
        with redis_faults():
            self._redis.set(self._keys.result(result_key), result.model_dump_json(), ex=self._ttl_s)

    def known_source(self, track_key: str) -> KnownSource | None:
        with redis_faults():
            text = cast("str | None", self._redis.get(self._keys.source(track_key)))
        try:
            return None if text is None else KnownSource.model_validate_json(text)
        except ValidationError:
            return None

    def remember_source(self, track_key: str, source: KnownSource) -> None:
        with redis_faults():
            self._redis.set(self._keys.source(track_key), source.model_dump_json(), ex=self._ttl_s)
