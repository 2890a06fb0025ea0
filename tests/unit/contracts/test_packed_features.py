"""Features that travel packed: half the bytes, the same answers, and no version that fails them."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from services.genre_worker.service import GenreWorker
from shared.audio.level import REFERENCE_DBFS
from shared.audio.segment_features.extraction import segment_features
from shared.contracts import codec
from shared.contracts.codec import MalformedMessageError, decode_message, encode_message
from shared.contracts.messages import SegmentFeatures, SegmentPrediction
from shared.contracts.topics import Channel
from shared.models.networks import GenreModel
from shared.runtime.envelope import outgoing
from shared.settings import Settings
from tests.support import poison
from tests.support.loop_bench import running
from tests.support.mill import TOPICS, Mill
from tests.support.samples import SAMPLES
from training.data.features import read_segments

#: A message as it stood on Kafka before features were packed: a segment of samples/bay.mp3 for `mfcc-lstm`.
UNPACKED: Final = Path(__file__).with_name("segment-features-float32.bin")
MODELS: Final = Settings().models_dir


def features(matrix: npt.NDArray[np.float32], model: str | None = "m") -> SegmentFeatures:
    more = {"track_key": "url:abc", "index": 3, "timings_ms": {"feature-extraction": 1.5}}
    return poison.features("r1", matrix=matrix, model=model, **more)


def some(frames: int = 130, coefficients: int = 64) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(1).standard_normal((frames, coefficients)) * 40).astype(np.float32)


def received(value: bytes) -> SegmentFeatures:
    message = decode_message(Channel.FEATURES, value)
    assert isinstance(message, SegmentFeatures)
    return message


def read_by_an_older_version(value: bytes) -> SegmentFeatures:
    """How the version before packed features reads them: kept here as it was, but for the words of its errors."""
    assert value[:4] == b"TSF1"
    (length,) = struct.unpack_from("<I", value, 4)
    fields = json.loads(value[8 : 8 + length])
    assert fields["schema_version"] <= 1
    shape = fields.pop("shape")
    assert isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)
    body = value[8 + length :]
    assert len(body) == shape[0] * shape[1] * 4
    fields["matrix"] = np.frombuffer(body, dtype="<f4").reshape(shape)
    return SegmentFeatures.model_validate(fields)


@pytest.mark.parametrize("model", ["m", None])
def test_packed_features_take_half_the_bytes_and_lose_only_what_15_bits_cannot_hold(model: str | None) -> None:
    sent = features(some(), model)
    packed = encode_message(sent, pack=True)
    assert len(packed) < 0.54 * len(encode_message(sent))
    arrived = received(packed)
    assert arrived.model_dump() == sent.model_dump()
    steps = np.ptp(sent.matrix, axis=0) / 0x7F7F
    assert (np.abs(arrived.matrix - sent.matrix) <= 0.51 * steps + 1e-5).all()
    assert not arrived.matrix.flags.writeable


def test_an_odd_number_of_values_travels_as_well() -> None:
    assert received(encode_message(features(some(13, 5)), pack=True)).matrix.shape == (13, 5)


def test_coefficients_that_never_change_keep_their_value() -> None:
    constant = np.tile(np.array([0.0, -3.3, 1e-35, 1e30], np.float32), (6, 1))
    assert np.array_equal(received(encode_message(features(constant), pack=True)).matrix, constant)


def test_values_too_far_apart_to_be_scaled_travel_as_they_are() -> None:
    far = np.array([[-3e38, 0.0], [3e38, 1.0]], np.float32)
    assert np.array_equal(received(encode_message(features(far), pack=True)).matrix, far)


@pytest.mark.parametrize("cut", [3, 6, 60, 400, 5000])
def test_truncated_packed_features_are_malformed(cut: int) -> None:
    with pytest.raises(MalformedMessageError):
        decode_message(Channel.FEATURES, encode_message(features(some()), pack=True)[:cut])


def test_a_real_message_of_an_older_version_has_the_answer_that_it_had() -> None:
    message = received(UNPACKED.read_bytes())
    assert (message.request_id, message.index, message.model) == ("old-1", 3, "mfcc-lstm-b32a70235978")
    assert float(message.matrix.sum(dtype=np.float64)) == pytest.approx(-5679.029803529382, abs=1e-6)
    model = GenreModel.load(MODELS / "mfcc-lstm")
    (row,) = model.predict(message.matrix[None])
    if model.manifest.model_id == message.model:
        before = [0.0327, 0.0265, 0.2060, 0.0116, 0.0029, 0.0369, 0.0121, 0.0705, 0.0139, 0.5869]
        assert row.tolist() == pytest.approx(before, abs=2e-4)


@pytest.mark.parametrize("shape", [(130, 64), (188, 96), (13, 5)])
def test_an_older_version_reads_packed_features_as_those_of_a_model_that_it_lacks(shape: tuple[int, int]) -> None:
    arrived = read_by_an_older_version(encode_message(features(some(*shape)), pack=True))
    assert arrived.model == codec.PACKED
    assert (arrived.request_id, arrived.track_key, arrived.index) == ("r1", "url:abc", 3)


def test_every_number_is_finite_for_an_older_version() -> None:
    every = np.tile(np.arange(0x7F7F + 1, dtype=np.float32)[:, None], (1, 2))
    assert received(encode_message(features(every), pack=True)).matrix.max() == pytest.approx(0x7F7F)
    assert np.isfinite(read_by_an_older_version(encode_message(features(every), pack=True)).matrix).all()


def test_an_older_genre_worker_holds_packed_features_and_a_newer_one_answers_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = GenreModel.load(MODELS / "mfcc-lstm").manifest
    settings = Settings(genre_model="mfcc-lstm", model_wait_s=60.0)
    sent = features(some(), model.model_id).model_copy(update={"feature_spec": model.require_feature_spec().id})
    mill = Mill(GenreWorker.build(settings), Channel.PREDICTIONS)
    mill.put(*(outgoing(TOPICS, sent, key="k", pack=True) for _ in range(2)))
    with monkeypatch.context() as older:
        # A version before packed features is one that does not look for them.
        older.setattr(codec, "_packed", lambda fields: None)
        with running(mill):
            deadline = time.monotonic() + 5.0
            while mill.pulse.ready(10).waiting_for is None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert codec.PACKED in (mill.pulse.ready(10).waiting_for or "")
            assert mill.outputs.poll(10, 0.1) == mill.dead.poll(10, 0.1) == []
            older.undo()
            assert [type(message) for message in mill.made(2)] == [SegmentPrediction] * 2


def test_a_newer_encoding_is_held_too() -> None:
    whole = encode_message(features(some()), pack=True)
    (length,) = struct.unpack_from("<I", whole, 4)
    head = whole[8 : 8 + length].replace(b'"scaled-15-bit"', b'"scaled-08-bit"')
    assert received(whole[:8] + head + whole[8 + length :]).model == codec.PACKED


@pytest.mark.parametrize("name", ["musicnn-lstm", "mfcc-lstm"])
def test_packed_features_of_real_music_have_the_same_labels_and_nearly_the_same_probabilities(name: str) -> None:
    model = GenreModel.load(MODELS / name)
    spec = model.manifest.require_feature_spec()
    heard = np.concatenate([segment_features(read_segments(one, spec)[:3], spec, REFERENCE_DBFS) for one in SAMPLES])
    packed = np.stack([received(encode_message(features(matrix), pack=True)).matrix for matrix in heard])
    before, after = model.predict(heard), model.predict(packed)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert np.abs(before - after).max() < 1e-4
