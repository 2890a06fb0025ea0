"""Messages made at random: whatever the bytes, a message comes out or MalformedMessageError, and nothing else."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.base import Record
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.codec import MalformedMessageError, Message, decode_message, encode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import (
    ErrorReport,
    Genre,
    GenreFailure,
    IngestedAudio,
    IngestedTrack,
    Mood,
    MoodPrediction,
    Overdue,
    SegmentFeatures,
    SegmentGenre,
    SegmentPrediction,
    SilentSegment,
    Stage,
    Status,
    Track,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel
from shared.runtime.envelope import REQUEST_ID_HEADER, salvaged_request_id, salvaged_source
from tests.support.fuzzing import cases

_ERROR: Final = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="no")
_GENRES: Final = dict.fromkeys(GENRES, 1 / len(GENRES))
_MOODS: Final = dict.fromkeys(MOODS, 1 / len(MOODS))
_FEATURES: Final = dict.fromkeys(AUDIO_FEATURES, 0.5)
_RESULT: Final = TrackResult(
    request_id="r",
    status=Status.OK,
    track=Track(key="k", source="s", title="t", artist="a", duration_s=3.0),
    genre=Genre(
        label="jazz", confidence=0.5, agreement=1.0, probabilities=_GENRES, model="m",
        segments=(SegmentGenre(start_s=0, end_s=3, label="jazz", confidence=0.5),),
    ),
    mood=Mood(label="calm", confidence=0.5, probabilities=_MOODS, features=_FEATURES, source="audio", model="m"),
    timings_ms={"total": 1.5},
)  # fmt: skip
_AUDIO: Final = IngestedAudio(blob="blob:audio/x.wav", sha256="0" * 64, duration_s=3.0, segments=1)
_SEGMENT: Final[dict[str, Any]] = {"request_id": "r", "track_key": "k", "index": 0, "start_s": 0, "end_s": 3}

#: Messages of every kind, by the topic they belong to.
VALID: Final[list[tuple[Channel, Message]]] = [
    (Channel.REQUESTS, TrackRequest(request_id="r", audio_url="https://example.org/a.mp3", force=True, source="s")),
    (Channel.REQUESTS, TrackRequest(request_id="r", track_id="spotify:track:4uLU6hMCjMI75M1A2tKUQC")),
    (Channel.TRACKS, IngestedTrack(request_id="r", track_key="k", source="s", audio=_AUDIO, title="t", isrc="i")),
    (Channel.TRACKS, IngestedTrack(request_id="r", track_key="k", source="s", error=_ERROR)),
    (Channel.TRACKS, IngestedTrack(request_id="r", track_key="k", source="s", cached=_RESULT)),
    (Channel.FEATURES, SegmentFeatures(**_SEGMENT, feature_spec="f", matrix=np.zeros((4, 3), np.float32))),
    (Channel.PREDICTIONS, SegmentPrediction(**_SEGMENT, probabilities=_GENRES, feature_spec="f", model="m")),
    (Channel.PREDICTIONS, SilentSegment(request_id="r", track_key="k", index=1)),
    (Channel.PREDICTIONS, GenreFailure(request_id="r", track_key="k", error=_ERROR)),
    (Channel.PREDICTIONS, Overdue(request_id="r", track_key="k", waited_s=1.0)),
    (
        Channel.MOODS,
        MoodPrediction(
            request_id="r", track_key="k", probabilities=_MOODS, features=_FEATURES, source="audio", model="m"
        ),
    ),
    (Channel.MOODS, MoodPrediction(request_id="r", track_key="k", error=_ERROR)),
    (Channel.RESULTS, _RESULT),
]

#: The words of pydantic, which no client should read.
_THEIRS: Final = ("Input should", "Value error", "String should", "Extra inputs", "Field required", "EOF", "[0-9]{")

channels = st.sampled_from(list(Channel))
odd_numbers = st.sampled_from(
    [0, -1, 2, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), -0.0, 0.5]
)
odd_text = st.sampled_from(
    ["", " ", "\0", "\ud800", "a\udfffb", "\u202e", "ü" * 2000, "x" * 5000, "blob:..", "http://[", "https://\udfff/",
     "spotify:track:", "[" * 500, "1e999", "null", "NaN"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | odd_numbers | st.integers() | st.floats() | odd_text | st.text(max_size=30),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10) | odd_text, children, max_size=4)
    ),
    max_leaves=8,
)


def check(channel: Channel, value: bytes) -> None:
    """A message that can be written again, or MalformedMessageError with a reason to read; nothing else."""
    try:
        message = decode_message(channel, value)
    except MalformedMessageError as error:
        assert error.reason and isinstance(error.reason, str)
        if channel is Channel.REQUESTS:
            assert not any(word in error.reason for word in _THEIRS), error.reason
    else:
        try:
            again = decode_message(channel, encode_message(message))
        except MalformedMessageError as error:
            # Written again it may be longer (every number with all its digits), never something else.
            assert "takes at most" in error.reason, (channel, value)
        else:
            assert type(again) is type(message)
    check_salvaged(channel, value)


def check_salvaged(channel: Channel, value: bytes) -> None:
    """What is read out of a record that is no message can be written into one that is."""
    record = Record(f"t.{channel.value}", 0, 0, b"", value)
    request_id = salvaged_request_id(record) or "r"
    source = salvaged_source(record) or "s"
    encode_message(IngestedTrack(request_id=request_id, track_key="k", source=source, error=_ERROR))


@cases(quick=150, long=4000)
@given(channels, st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes(channel: Channel, value: bytes) -> None:
    check(channel, value)


@cases(quick=150, long=4000)
@given(channels, values)
def test_any_json(channel: Channel, value: Any) -> None:
    check(channel, json.dumps(value).encode())


@cases(quick=300, long=8000)
@given(st.sampled_from(VALID), st.data())
def test_messages_with_a_few_bytes_changed(valid: tuple[Channel, Message], data: st.DataObject) -> None:
    channel, message = valid
    content = bytearray(encode_message(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.sampled_from([0, 1, 1, 2, 8, 10_000]))
        content[place : place + length] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"}", b"1e999", b"-"])
        )
    check(data.draw(st.just(channel) | channels), bytes(content))


@cases(quick=300, long=8000)
@given(st.sampled_from([pair for pair in VALID if pair[0] is not Channel.FEATURES]), st.data())
def test_messages_with_other_values_in_their_fields(valid: tuple[Channel, Message], data: st.DataObject) -> None:
    channel, message = valid
    fields = json.loads(encode_message(message))
    for _ in range(data.draw(st.integers(1, 3))):
        replace_somewhere(fields, data)
    check(channel, json.dumps(fields).encode())


@cases(quick=200, long=4000)
@given(st.data())
def test_features_with_another_head(data: st.DataObject) -> None:
    """The one message that is not JSON alone: its head, the length of it and the matrix each say what they like."""
    whole = encode_message(VALID[5][1], pack=data.draw(st.booleans()))
    (length,) = struct.unpack_from("<I", whole, 4)
    fields = json.loads(whole[8 : 8 + length])
    for _ in range(data.draw(st.integers(0, 3))):
        replace_somewhere(fields, data)
    if data.draw(st.booleans()):
        fields["shape"] = data.draw(st.lists(odd_numbers | st.integers(-2, 5), max_size=3) | values)
    head = json.dumps(fields).encode()
    told = data.draw(st.just(len(head)) | st.integers(0, 2**32 - 1))
    body = data.draw(st.just(whole[8 + length :]) | st.binary(max_size=60))
    check(
        Channel.FEATURES,
        data.draw(st.sampled_from([b"TSF1", b"TSF1", b"TSF2"])) + struct.pack("<I", told) + head + body,
    )


@cases(quick=50, long=500)
@given(st.sampled_from([10, 100, 1000, 5000]), st.sampled_from(["[", '{"a":', '{"source":[']), channels)
def test_json_in_json_in_json(depth: int, opening: str, channel: Channel) -> None:
    check(channel, (opening * depth).encode())
    check(channel, b'{"request_id": "r", "timings_ms": ' + (opening * depth).encode())


@cases(quick=30, long=300)
@given(channels, st.integers(1, 3), st.sampled_from([b" ", b"[", b"9", b'"', b"\\u0000", b"\xff"]))
def test_messages_longer_than_their_topic_takes(channel: Channel, more: int, filling: bytes) -> None:
    limit = min(MAX_MESSAGE_BYTES[channel], 64 * 1024)
    check(channel, filling * (limit // len(filling) + more))


@cases(quick=100, long=2000)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_headers_of_any_bytes(value: bytes, header: bytes) -> None:
    record = Record("t.requests", 0, 0, b"", value, ((REQUEST_ID_HEADER, header),))
    found = salvaged_request_id(record)
    assert found is None or GenreFailure(request_id=found, track_key="k", error=_ERROR)


def replace_somewhere(fields: Any, data: st.DataObject) -> None:
    """Another value, no value or one more in a field, however deep it lies."""
    while True:
        keys = list(fields) if isinstance(fields, dict) else list(range(len(fields)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(fields[key], dict | list) and fields[key] and data.draw(st.booleans()):
            fields = fields[key]
            continue
        what = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "replace":
            fields[key] = data.draw(values)
        elif what == "remove":
            del fields[key]
        elif isinstance(fields, dict):
            fields[data.draw(st.text(max_size=10) | odd_text)] = data.draw(values)
        else:
            fields.append(data.draw(values))
        return
