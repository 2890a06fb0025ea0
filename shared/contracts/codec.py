"""Messages to bytes and back. JSON for all but the features, which travel as a binary matrix.

Features on the wire: ``TSF1``, the length of the header (unsigned 32-bit little-endian), the header (JSON: all
fields but the matrix, and its ``shape``), then the matrix as little-endian float32 in row-major order. A segment of
130 x 13 takes 6,760 bytes and a header of some 250.
"""

from __future__ import annotations

import json
import struct
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.contracts.faults import encoding_fault, faults
from shared.contracts.messages import (
    SCHEMA_VERSION,
    GenreFailure,
    IngestedTrack,
    MoodPrediction,
    Overdue,
    SegmentFeatures,
    SegmentPrediction,
    SilentSegment,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel

Message = (
    TrackRequest
    | IngestedTrack
    | SegmentFeatures
    | SegmentPrediction
    | SilentSegment
    | GenreFailure
    | Overdue
    | MoodPrediction
    | TrackResult
)

_MAGIC: Final = b"TSF1"
_FAMILY: Final = b"TSF"
_LENGTH: Final = struct.Struct("<I")

#: The topic of every message.
CHANNEL_OF: Final[dict[type[BaseModel], Channel]] = {
    TrackRequest: Channel.REQUESTS,
    IngestedTrack: Channel.TRACKS,
    SegmentFeatures: Channel.FEATURES,
    SegmentPrediction: Channel.PREDICTIONS,
    SilentSegment: Channel.PREDICTIONS,
    GenreFailure: Channel.PREDICTIONS,
    Overdue: Channel.PREDICTIONS,
    MoodPrediction: Channel.MOODS,
    TrackResult: Channel.RESULTS,
}

_JSON_ADAPTERS: Final[dict[Channel, TypeAdapter[Any]]] = {
    Channel.REQUESTS: TypeAdapter(TrackRequest),
    Channel.REQUESTS_RETRY: TypeAdapter(TrackRequest),
    Channel.TRACKS: TypeAdapter(IngestedTrack),
    Channel.PREDICTIONS: TypeAdapter(
        Annotated[SegmentPrediction | SilentSegment | GenreFailure | Overdue, Field(discriminator="type")],
        config=ConfigDict(hide_input_in_errors=True),
    ),
    Channel.MOODS: TypeAdapter(MoodPrediction),
    Channel.RESULTS: TypeAdapter(TrackResult),
}

#: The fields of client messages, for suggestions of misspelt ones.
_FIELDS: Final[dict[Channel, tuple[str, ...]]] = {Channel.REQUESTS: tuple(TrackRequest.model_fields)}

#: Larger values are not searched for a request ID: a compressed record of a few kilobytes may unpack to gigabytes.
_LARGEST_SEARCHED: Final = 1024 * 1024


class MalformedMessageError(ValueError):
    """The bytes are no message of this topic. ``reason`` names the field and its fault."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NewerSchemaError(MalformedMessageError):
    """The message was written by a newer version of Tonestream: upgrade this worker, then replay it.

    Requests are exempt: a client's version is not under the operator's control, so there it is a mistake like any
    other.
    """


def channel_of(message: Message) -> Channel:
    """The topic a message belongs to."""
    return CHANNEL_OF[type(message)]


def encode_message(message: Message) -> bytes:
    """The bytes of a message. Raises MalformedMessageError if it is larger than its topic takes."""
    if isinstance(message, SegmentFeatures):
        header = json.loads(message.model_dump_json())
        header["shape"] = list(message.matrix.shape)
        head = json.dumps(header, separators=(",", ":")).encode()
        matrix = np.ascontiguousarray(message.matrix, dtype="<f4").tobytes()
        encoded = b"".join((_MAGIC, _LENGTH.pack(len(head)), head, matrix))
    else:
        encoded = message.model_dump_json(by_alias=True).encode()
    _check_size(channel_of(message), encoded)
    return encoded


def decode_message(channel: Channel, value: bytes) -> Message:
    """The message in ``value`` from this topic. Raises MalformedMessageError, NewerSchemaError."""
    _check_size(channel, value)
    if channel is Channel.FEATURES:
        return _decode_features(value)
    adapter = _JSON_ADAPTERS.get(channel)
    if adapter is None:
        raise MalformedMessageError(f"topic {channel.value!r} carries no messages of one type")
    try:
        message: Message = adapter.validate_json(value)
    except ValidationError as error:
        noun = _noun(channel)
        if unreadable := encoding_fault(value, noun):
            raise MalformedMessageError(unreadable) from None
        _raise_if_newer(salvaged_fields(value))
        # Not chained: the error may quote a value, and its traceback goes to the dead letters.
        raise MalformedMessageError(faults(error, noun, _FIELDS.get(channel, ()))) from None
    return message


def salvaged_fields(value: bytes) -> dict[str, Any]:
    """The fields of a JSON object, whatever they are; empty if ``value`` is none, or is too large to search."""
    if len(value) > _LARGEST_SEARCHED:
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _raise_if_newer(fields: dict[str, Any]) -> None:
    version = fields.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        shown = str(version) if version < 10**9 else "of ten digits or more"
        raise NewerSchemaError(
            f"schema_version {shown} is newer than {SCHEMA_VERSION}, the newest that this installation reads"
        )


def _noun(channel: Channel) -> str:
    """The noun for a record of this topic."""
    return "request" if channel in (Channel.REQUESTS, Channel.REQUESTS_RETRY) else "message"


def _check_size(channel: Channel, value: bytes) -> None:
    limit = MAX_MESSAGE_BYTES[channel]
    if len(value) > limit:
        raise MalformedMessageError(
            f"the {_noun(channel)} has {len(value)} bytes; the {channel.value} topic takes at most {limit}"
        )


def _decode_features(value: bytes) -> SegmentFeatures:
    if value[: len(_MAGIC)] != _MAGIC:
        if value.startswith(_FAMILY) and value[len(_FAMILY) : len(_MAGIC)].isdigit():
            raise NewerSchemaError(f"{value[: len(_MAGIC)].decode()} is a newer form of segment features")
        raise MalformedMessageError("the bytes do not begin like segment features")
    start = len(_MAGIC) + _LENGTH.size
    if len(value) < start:
        raise MalformedMessageError("the features end inside their header")
    (length,) = _LENGTH.unpack_from(value, len(_MAGIC))
    fields = salvaged_fields(value[start : start + length])
    _raise_if_newer(fields)
    shape = fields.pop("shape", None)
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)):
        raise MalformedMessageError("shape: two positive whole numbers are needed")
    body = value[start + length :]
    if len(body) != shape[0] * shape[1] * 4:
        raise MalformedMessageError(
            f"matrix: {len(body)} bytes do not make a float32 matrix of {shape[0]} x {shape[1]}"
        )
    fields["matrix"] = np.frombuffer(body, dtype="<f4").reshape(shape)
    try:
        return SegmentFeatures.model_validate(fields)
    except ValidationError as error:
        raise MalformedMessageError(faults(error)) from error
