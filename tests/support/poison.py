"""Records that no worker can use: what a broken, hostile or newer program might put on the topics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.audio.spec import MFCC13
from shared.bus.base import Headers, Outgoing
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.codec import encode_message
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import SegmentFeatures
from shared.contracts.topics import Channel, Topics

#: Topics that workers read.
WORK = (Channel.REQUESTS, Channel.TRACKS, Channel.FEATURES, Channel.PREDICTIONS, Channel.MOODS)


@dataclass(frozen=True, slots=True)
class Poison:
    """``name`` says what is wrong with it. ``letter``: it is kept as a dead letter (elsewhere it is only answered)."""

    name: str
    channel: Channel
    value: bytes
    key: bytes = b"k"
    headers: Headers = ()
    letter: bool = True

    def sent(self, topics: Topics, key: bytes | None = None) -> Outgoing:
        return Outgoing(topics.name(self.channel), self.key if key is None else key, self.value, self.headers)


def no_messages(channel: Channel) -> Iterator[Poison]:
    """Bytes that are no message of the topic. At the entry they are answered, whatever they are."""
    letter = channel is not Channel.REQUESTS
    yield Poison("a tombstone", channel, b"", letter=letter)
    yield Poison("a tombstone without a key", channel, b"", key=b"", letter=letter)
    yield Poison("bytes", channel, b"\x00\xff\xfe" * 100, letter=letter)
    yield Poison("a list", channel, b"[]", letter=letter)
    yield Poison("deep nesting", channel, b"[" * 10_000, letter=letter)
    yield Poison("half a character", channel, b'{"request_id":"half","audio_url":"\\ud800"}', letter=letter)
    yield Poison("a huge key", channel, b"x", key=b"\xff" * 60_000, letter=letter)
    yield (
        Poison("a huge value", channel, b"x" * 1_050_000, letter=letter)
        if channel is Channel.FEATURES
        else Poison("a huge value", channel, b"x" * 70_000, letter=letter)
    )
    headers = (("tonestream.request_id", b"\xff not an ID"), ("tonestream.request_id", b""))
    yield Poison("headers that are none of ours", channel, b"x", headers=headers, letter=letter)
    newer = json.dumps({"schema_version": 2, "request_id": "newer", "shape": [1, 1]}).encode()
    if channel is Channel.FEATURES:
        newer = b"TSF1" + len(newer).to_bytes(4, "little") + newer + bytes(4)
    yield Poison("a newer version", channel, newer, letter=letter)


def features(request_id: str, **more: Any) -> SegmentFeatures:
    """The features of one segment, as they should be."""
    matrix = np.random.default_rng(1).standard_normal((MFCC13.frames, MFCC13.coefficients)).astype(np.float32)
    fields = {"request_id": request_id, "track_key": "k", "index": 0, "start_s": 0.0, "end_s": 3.0}
    return SegmentFeatures.model_validate({**fields, "feature_spec": MFCC13.id, "matrix": matrix, **more})


def bad_features(request_id: str) -> Iterator[Poison]:
    """Features that are a message, or nearly one, and nothing for the model."""
    whole = encode_message(features(request_id))
    header = (("tonestream.request_id", request_id.encode()),)
    nan = np.array([np.nan], "<f4").tobytes()
    yield Poison("features with NaN", Channel.FEATURES, whole[:-4] + nan, headers=header)
    yield Poison("features cut short", Channel.FEATURES, whole[:-100], headers=header)
    wide = features(request_id, matrix=np.zeros((130, 20), np.float32))
    yield Poison("features of another shape", Channel.FEATURES, encode_message(wide), letter=False)
    other = features(request_id, feature_spec="another")
    yield Poison("features of another spec", Channel.FEATURES, encode_message(other), letter=False)


def prediction(request_id: str, **more: Any) -> dict[str, Any]:
    """A segment's genres as JSON fields, as they should be."""
    return {
        "type": "segment_prediction", "request_id": request_id, "track_key": "k", "index": 0, "start_s": 0.0,
        "end_s": 3.0, "probabilities": dict.fromkeys(GENRES, 0.1), "feature_spec": "s", "model": "m", **more,
    }  # fmt: skip


def bad_predictions(request_id: str) -> Iterator[Poison]:
    """Predictions that are none, each for ``request_id``."""
    faults: dict[str, dict[str, Any]] = {
        "a prediction with NaN": {"probabilities": dict.fromkeys(GENRES, float("nan"))},
        "a prediction of no kind": {"type": "guess"},
        "a prediction below the first segment": {"index": -1},
        "a prediction beyond any segment": {"index": 10**9},
    }
    for name, fault in faults.items():
        yield Poison(name, Channel.PREDICTIONS, json.dumps(prediction(request_id, **fault)).encode())


def mood(request_id: str, **more: Any) -> dict[str, Any]:
    """A mood as JSON fields, as it should be."""
    return {
        "request_id": request_id, "track_key": "k", "probabilities": dict.fromkeys(MOODS, 0.25),
        "features": dict.fromkeys(AUDIO_FEATURES, 0.5), "source": "audio", "model": "m", **more,
    }  # fmt: skip


def bad_moods(request_id: str) -> Iterator[Poison]:
    """Moods that are none, each for ``request_id``."""
    for value in (float("nan"), float("inf")):
        fault = {"features": {**dict.fromkeys(AUDIO_FEATURES, 0.5), AUDIO_FEATURES[0]: value}}
        yield Poison(f"a mood with {value}", Channel.MOODS, json.dumps(mood(request_id, **fault)).encode())
