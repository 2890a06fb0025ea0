"""Ingestion over a local web server, without a loop."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from services.ingestion.service import Ingestion
from shared.blobs.store import BlobStore
from shared.bus.base import Record
from shared.contracts.codec import encode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import ErrorReport, IngestedTrack, Stage, Status, Track, TrackRequest, TrackResult
from shared.models.answer_key import AnswerKeys, result_key
from shared.models.catalogue import Catalogue
from shared.runtime.retries import RetryNote
from shared.runtime.service import Delivery, Handled, Outcome
from shared.settings import Settings
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Requests
from shared.state.results import ResultCache
from tests.support.web_server import WebServer


class Bench:
    def __init__(self, folder: Path, web: WebServer, **more: Any) -> None:
        self.web = web
        self.settings = Settings.model_validate(
            {
                **more,
                "redis_url": f"memory://{folder}",
                "blob_url": f"file://{folder}/blobs",
                "fetch_allow": "127.0.0.1",
                "fetch_total_timeout_s": 10,
            }
        )
        self.service = Ingestion.build(self.settings)
        self.blobs = BlobStore(self.settings.blob_url)
        self.answer_key = AnswerKeys(self.settings, Catalogue.of(self.settings)).own
        client, keys = connect(self.settings.redis_url.get_secret_value()), Keys("tonestream")
        self.results = ResultCache(client, keys, 1000)
        self.requests = Requests.open(client, keys, Stage.AGGREGATOR.value, 1000, 1000.0)
        self.offsets = itertools.count()

    def delivery(self, request_id: str, **fields: Any) -> Delivery[TrackRequest]:
        request = TrackRequest(request_id=request_id, **fields)
        offset = next(self.offsets)
        now_ms = int(time.time() * 1000)
        return Delivery(Record("tonestream.requests", 0, offset, b"k", encode_message(request), (), now_ms), request)

    def handled(self, delivery: Delivery[TrackRequest]) -> Handled[IngestedTrack]:
        (handled,) = self.service.handle([delivery])
        return handled

    def track(self, request_id: str, **fields: Any) -> IngestedTrack:
        return announced(self.handled(self.delivery(request_id, **fields)))

    def answer(self, track: IngestedTrack) -> TrackResult:
        """Put a finished answer for the track's audio into the cache, as the aggregator would."""
        assert track.audio is not None
        error = ErrorReport(code=ErrorCode.SILENT_AUDIO, stage=Stage.FEATURE_EXTRACTION, message="test")
        result = TrackResult(
            request_id=track.request_id, status=Status.FAILED, track=Track(key="k", source="s"), errors=(error,)
        )
        self.results.keep(result_key(track.answer_key or self.answer_key, track.audio.sha256, "audio"), result)
        self.ended(track.request_id)
        return result

    def ended(self, request_id: str) -> list[str]:
        """The request is answered, as by the aggregator; who followed it."""
        error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.AGGREGATOR, message="test")
        result = TrackResult(
            request_id=request_id, status=Status.FAILED, track=Track(key="k", source="s"), errors=(error,)
        )
        return Coalescing(self.requests).end(request_id, result)


def announced(handled: Handled[IngestedTrack]) -> IngestedTrack:
    assert isinstance(handled, Outcome), handled
    (message,) = handled.messages
    assert isinstance(message, IngestedTrack)
    return message


def retried(handled: Handled[IngestedTrack]) -> RetryNote:
    assert isinstance(handled, Outcome) and handled.messages == (), handled
    assert handled.retry is not None
    return handled.retry.note
