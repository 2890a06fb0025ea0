"""Messages to bytes and back. JSON for all but the features, which travel as a binary matrix.

Features on the wire: ``TSF1``, the length of the header (unsigned 32-bit little-endian), the header (JSON: all
fields but the matrix, and its ``shape``), then the matrix as little-endian float32 in row-major order. A segment of
130 x 64 takes 33,280 bytes and a header of some 240.

Packed features take half of that: each coefficient is scaled between its least and its greatest value in the segment to
whole numbers of 15 bits. The body is the least values and the steps of all coefficients, little-endian float32, and the
numbers as 16-bit integers, row by row. (float16 would be as short, twenty times as coarse, and takes longer.) The
header has a field ``packed`` with the encoding, the true shape and the true model.

Workers of versions that do not know this field fail what they cannot read, and hold what names a model that they do not
have until a newer worker takes it over. So that they hold packed features, ``model`` in the header is the name of no
model (`PACKED`), and ``shape`` is that of the same bytes as float32. No number is above `_LARGEST`, so any two of them
read as float32 are finite, and an old worker finds nothing wrong with them.
"""

from __future__ import annotations

import json
import struct
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.contracts.faults import encoding_fault, faults
from shared.contracts.messages import (
    SCHEMA_VERSION,
    GenreFailure,
    IngestedTrack,
    ModelId,
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
#: The model that packed features name to workers that cannot unpack them. It stands in their logs and health reports.
PACKED: Final = "for-a-newer-genre-worker"
_SCALED: Final = "scaled-15-bit"
#: The largest number of packed features. Above it, two numbers may look like a float32 that is not finite.
_LARGEST: Final = 0x7F7F
_LEAST_STEP: Final = np.float32(1e-30)
_WORD: Final = 4

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


def encode_message(message: Message, pack: bool = False) -> bytes:
    """The bytes of a message. Raises MalformedMessageError if it is larger than its topic takes.

    ``pack`` halves features, which are rounded to 15 bits. Other messages stay as they are.
    """
    if isinstance(message, SegmentFeatures):
        encoded = _encode_features(message, pack)
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


class _Packed(BaseModel):
    """What the header of packed features says about them."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    encoding: Literal["scaled-15-bit"] = _SCALED
    shape: tuple[Annotated[int, Field(strict=True, gt=0)], Annotated[int, Field(strict=True, gt=0)]]
    model: ModelId | None = None


def _encode_features(features: SegmentFeatures, pack: bool) -> bytes:
    header = json.loads(features.model_dump_json())
    body = _scaled(features.matrix) if pack else None
    if body is None:
        header["shape"] = list(features.matrix.shape)
        body = np.ascontiguousarray(features.matrix, dtype="<f4").tobytes()
    else:
        frames, coefficients = features.matrix.shape
        header["packed"] = _Packed(shape=(frames, coefficients), model=features.model).model_dump()
        header |= {"model": PACKED, "shape": [1, len(body) // _WORD]}
    head = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((_MAGIC, _LENGTH.pack(len(head)), head, body))


def _scaled(matrix: npt.NDArray[np.float32]) -> bytes | None:
    """The matrix as the body of packed features; None if its range is too large for a float32."""
    least = matrix.min(axis=0)
    with np.errstate(over="ignore"):
        step = (matrix.max(axis=0) - least) / np.float32(_LARGEST)
    if not np.isfinite(step).all():
        return None
    step = np.maximum(step, _LEAST_STEP)
    numbers = matrix - least
    numbers /= step
    np.rint(numbers, out=numbers)
    body = b"".join((least.astype("<f4").tobytes(), step.astype("<f4").tobytes(), numbers.astype("<u2").tobytes()))
    return body + bytes(-len(body) % _WORD)


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
    body = value[start + length :]
    packed = _packed(fields)
    if packed is None:
        fields["matrix"] = _matrix(body, fields.pop("shape", None))
    else:
        fields |= {"model": packed.model, "matrix": _unscaled(body, packed.shape)}
    try:
        return SegmentFeatures.model_validate(fields)
    except ValidationError as error:
        raise MalformedMessageError(faults(error)) from error


def _matrix(body: bytes, shape: object) -> npt.NDArray[np.float32]:
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)):
        raise MalformedMessageError("shape: two positive whole numbers are needed")
    if len(body) != shape[0] * shape[1] * 4:
        raise MalformedMessageError(
            f"matrix: {len(body)} bytes do not make a float32 matrix of {shape[0]} x {shape[1]}"
        )
    return np.frombuffer(body, dtype="<f4").reshape(shape)


def _packed(fields: dict[str, Any]) -> _Packed | None:
    """How the features are packed; None if they are not, or in a way that only newer versions know: then the message is
    read as by an old worker, so that it is held."""
    field = fields.get("packed")
    if field is None or (isinstance(field, dict) and field.get("encoding") not in (None, _SCALED)):
        return None
    try:
        return _Packed.model_validate(field)
    except ValidationError as error:
        raise MalformedMessageError(f"packed: {faults(error)}") from None


def _unscaled(body: bytes, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    frames, coefficients = shape
    scales, size = 2 * _WORD * coefficients, 2 * frames * coefficients
    if len(body) != scales + size + -size % _WORD:
        raise MalformedMessageError(
            f"matrix: {len(body)} bytes do not make a packed matrix of {frames} x {coefficients}"
        )
    least, step = np.frombuffer(body, "<f4", 2 * coefficients).reshape(2, coefficients)
    matrix = np.frombuffer(body, "<u2", frames * coefficients, scales).reshape(shape).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # refused later, as values that are not finite
        matrix *= step
        matrix += least
    matrix.flags.writeable = False
    return matrix
