"""The record that carries a message: its topic, key and headers, and what can be read of one that is no message."""

from __future__ import annotations

import time
from typing import Final

from pydantic import TypeAdapter, ValidationError

from shared.bus.base import Headers, Outgoing, Record
from shared.contracts.cloud_events import CloudEvent
from shared.contracts.codec import Message, channel_of, encode_message, salvaged_fields
from shared.contracts.messages import LONGEST_SOURCE, RequestId, SegmentFeatures, TrackResult
from shared.contracts.topics import Topics, comes_from_outside
from shared.contracts.tracks import without_credentials

#: Names of the record headers that every message carries.
REQUEST_ID_HEADER: Final = "tonestream.request_id"
CONTENT_TYPE_HEADER: Final = "content-type"
#: Which dead letter a record is the replay of. Each further replay adds one, so that a loop can be seen.
REPLAY_HEADER: Final = "tonestream.replay.of"

JSON_CONTENT_TYPE: Final = "application/json"
BINARY_CONTENT_TYPE: Final = "application/vnd.tonestream.features"

_REQUEST_ID: Final[TypeAdapter[str]] = TypeAdapter(RequestId)


def outgoing(
    topics: Topics, message: Message, key: str | None = None, cause: Record | None = None, pack: bool = False
) -> Outgoing:
    """The record that carries a message, keyed by its track. A result is a CloudEvent, too.

    ``cause`` is the record that the message leaves with, None if there is none. ``pack`` is that of ``encode_message``.
    """
    channel = channel_of(message)
    if key is None:
        key = message.track.key if isinstance(message, TrackResult) else message.track_key
    headers = headers_of(message)
    if isinstance(message, TrackResult):
        headers += _as_event(topics, message, cause)
    return Outgoing(topics.name(channel), key.encode(), encode_message(message, pack), headers)


def _as_event(topics: Topics, result: TrackResult, cause: Record | None) -> Headers:
    event = CloudEvent.of(result, topics.prefix, None if cause is None else cause.coordinates, time.time())
    return tuple((name, value.encode()) for name, value in event.headers().items())


def headers_of(message: Message) -> Headers:
    """The headers with which a message travels."""
    content_type = BINARY_CONTENT_TYPE if isinstance(message, SegmentFeatures) else JSON_CONTENT_TYPE
    return (REQUEST_ID_HEADER, message.request_id.encode()), (CONTENT_TYPE_HEADER, content_type.encode())


def salvaged_request_id(record: Record, topic: str | None = None) -> str | None:
    """The request a record belongs to, even if the record is no valid message; None if it names no request.

    ``topic`` is where the record stood first, by default where it stands. On our own topics the header counts first,
    because it survives a destroyed body. On a topic that clients write to only the body counts, because Kafka Streams
    and Kafka Connect forward the headers of other records.
    """
    outside = comes_from_outside(record.topic if topic is None else topic)
    header = None if outside else record.header(REQUEST_ID_HEADER)
    found: object = header.decode("utf-8", "replace") if header else salvaged_fields(record.value).get("request_id")
    try:
        return _REQUEST_ID.validate_python(found)
    except ValidationError:
        return None


def salvaged_source(record: Record) -> str | None:
    """The source that an invalid request names, as far as it can be read."""
    fields = salvaged_fields(record.value)
    named = (fields.get(name) for name in ("source", "audio_url", "track_id"))
    found = next((text for text in named if isinstance(text, str) and text), None)
    if found is None:
        return None
    # JSON may name halves of characters, which no message can carry. Cut last: half a password would not be recognised.
    return without_credentials(found.encode("utf-8", "replace").decode())[:LONGEST_SOURCE]
