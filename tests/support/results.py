"""Records of the results topic, made up."""

from __future__ import annotations

import time

from shared.bus.base import Record
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import ErrorReport, Stage, Status, Track, TrackResult
from shared.contracts.topics import Channel, Topics


def failed(request_id: str) -> TrackResult:
    """The shortest result there is: the track could not be fetched."""
    url = f"https://example.org/{request_id}.mp3"
    error = ErrorReport(code=ErrorCode.FETCH_FAILED, message="gone", stage=Stage.INGESTION)
    return TrackResult(
        request_id=request_id, status=Status.FAILED, track=Track(key=f"url:{url}", source=url), errors=(error,)
    )


def record(topics: Topics, offset: int, request_id: str, partition: int = 0, timestamp_ms: int = 0) -> Record:
    """That result as it was read, now unless ``timestamp_ms`` says otherwise."""
    result = failed(request_id)
    return Record(
        topics.name(Channel.RESULTS),
        partition,
        offset,
        result.track.key.encode(),
        result.model_dump_json().encode(),
        timestamp_ms=timestamp_ms or int(time.time() * 1000),
    )
