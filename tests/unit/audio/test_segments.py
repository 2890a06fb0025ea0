"""Cutting a track into segments, out of a WAV of any length, and telling silence."""

from __future__ import annotations

import io
import math
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from pydantic import ValidationError

from shared.audio.segments import chosen_segments, is_silent, level_dbfs, segment_count
from shared.audio.spec import LOG_MEL96, MFCC13, MFCC40, FeatureSpec
from shared.audio.wav import iter_segments
from shared.contracts.errors import ErrorCode, TonestreamError
from tests.support.wav_files import endless_wav, wav_bytes

SAMPLES = MFCC13.segment_samples


def counting(samples: int) -> np.ndarray:
    return np.arange(samples) % 30_000


@pytest.mark.parametrize(
    ("samples", "segments"),
    [(0, 0), (SAMPLES - 1, 0), (SAMPLES, 1), (2 * SAMPLES - 1, 1), (10 * SAMPLES + 594, 10)],
)
def test_a_last_part_shorter_than_a_segment_is_dropped(samples: int, segments: int) -> None:
    assert segment_count(samples, MFCC13) == segments
    found = list(iter_segments(io.BytesIO(wav_bytes(counting(samples))), MFCC13, 4))
    assert sum(len(part) for _, part in found) == segments


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_the_segments_are_the_track_in_order_whatever_the_batch(batch: int) -> None:
    pcm = counting(7 * SAMPLES + 100)
    parts = list(iter_segments(io.BytesIO(wav_bytes(pcm)), MFCC13, batch))
    assert [position for positions, _ in parts for position in positions] == list(range(7))
    assert all(len(positions) == len(part) <= batch for positions, part in parts)
    assert all(part.dtype == np.float32 and part.shape[1] == SAMPLES for _, part in parts)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]).ravel() * 32768, pcm[: 7 * SAMPLES])


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("limit", [1, 2, 4, 6])
def test_with_a_limit_only_the_chosen_segments_are_read(batch: int, limit: int) -> None:
    pcm = counting(7 * SAMPLES + 100)
    parts = list(iter_segments(io.BytesIO(wav_bytes(pcm)), MFCC13, batch, limit))
    positions = [position for positions, _ in parts for position in positions]
    assert positions == list(chosen_segments(7, limit))
    expected = pcm[: 7 * SAMPLES].reshape(7, SAMPLES)[positions]
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]) * 32768, expected)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 10, 100, 4801])
@pytest.mark.parametrize("limit", [1, 2, 3, 20, 100])
def test_chosen_segments_are_evenly_spaced_and_as_many_as_allowed(count: int, limit: int) -> None:
    chosen = list(chosen_segments(count, limit))
    assert len(chosen) == min(count, limit)
    assert chosen == [math.floor((i + 0.5) * count / len(chosen)) for i in range(len(chosen))]
    steps = np.diff([-1, *chosen, count])
    assert len(chosen) < 2 or steps[1:-1].max() - steps[1:-1].min() <= 1
    assert count == 0 or steps.max() <= -(-count // len(chosen)) + 1


def test_without_a_limit_every_segment_is_chosen_and_as_many_as_were_chosen_choose_the_same() -> None:
    assert list(chosen_segments(5, None)) == list(range(5))
    for count in range(50):
        chosen = chosen_segments(count, 12)
        assert list(chosen_segments(count, len(chosen) or None)) == list(chosen)


def test_a_track_is_read_through_fsspec(tmp_path: Path) -> None:
    (tmp_path / "track.wav").write_bytes(wav_bytes(counting(2 * SAMPLES)))
    with fsspec.open(f"file://{tmp_path}/track.wav", "rb") as file:
        assert [len(part) for _, part in iter_segments(file, MFCC13, 32)] == [2]
        assert not file.closed


def test_a_track_of_three_hours_is_never_in_memory_as_a_whole() -> None:
    tracemalloc.start()
    try:
        found = sum(len(part) for _, part in iter_segments(endless_wav(3.0), MFCC13, 8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 3600
    assert peak < 20 * 1024**2  # the whole track would take 950 MB


GOOD = wav_bytes(counting(SAMPLES))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"RIFF",
        b"not a wav file at all, but long enough to look at",
        GOOD[:30],
        GOOD[:-1],
        GOOD[:-20_000],
        wav_bytes(counting(SAMPLES), rate=44100),
        wav_bytes(counting(SAMPLES), channels=2),
    ],
    ids=["empty", "stub", "text", "half a header", "odd byte missing", "cut off", "44.1 kHz", "stereo"],
)
def test_a_bad_wav_is_corrupt_audio(bad: bytes) -> None:
    with pytest.raises(TonestreamError) as caught:
        list(iter_segments(io.BytesIO(bad), MFCC13, 4))
    assert caught.value.code is ErrorCode.CORRUPT_AUDIO


def test_digital_silence_dither_and_a_constant_offset_are_silent() -> None:
    random = np.random.default_rng(1)
    dither = (random.integers(-1, 2, SAMPLES) / 32768).astype(np.float32)
    assert is_silent(np.zeros(SAMPLES, np.float32))
    assert is_silent(dither)
    assert is_silent(np.full(SAMPLES, 0.1, np.float32) + dither)


def test_quiet_music_is_not_silent() -> None:
    time = np.arange(SAMPLES) / 22050
    assert not is_silent((0.001 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))


def test_levels_are_relative_to_full_scale() -> None:
    time = np.arange(SAMPLES) / 22050
    sine = np.sin(2 * np.pi * 441 * time).astype(np.float32)
    assert level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(sine * 0.1) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(np.empty(0, np.float32)) == float("-inf")


@pytest.mark.parametrize("spec", [MFCC13, MFCC40, LOG_MEL96], ids=lambda spec: spec.id)
def test_a_spec_is_one_json_object(spec: FeatureSpec) -> None:
    assert FeatureSpec.model_validate_json(spec.model_dump_json()) == spec
    assert FeatureSpec.model_validate(spec.model_dump(mode="json", exclude_none=True)) == spec


def test_a_spec_says_what_shape_its_features_have() -> None:
    assert [(spec.segment_samples, spec.frames, spec.coefficients) for spec in (MFCC13, MFCC40, LOG_MEL96)] == [
        (66150, 130, 13),
        (66150, 130, 40),
        (66150, 188, 96),
    ]


def test_a_spec_is_written_without_what_its_kind_does_not_have() -> None:
    assert set(MFCC13.model_dump()) == {
        "id", "sample_rate", "segment_s", "n_mfcc", "n_fft", "hop_length", "n_mels", "level_dbfs"
    }  # fmt: skip
    assert set(LOG_MEL96.model_dump()) == {
        "id", "kind", "sample_rate", "analysis_rate", "segment_s", "n_fft", "hop_length", "n_mels", "level_dbfs"
    }  # fmt: skip
    assert "level_dbfs" not in FeatureSpec(id="one-from-before-there-was-a-level").model_dump()


@pytest.mark.parametrize(
    "wrong",
    [
        {"analysis_rate": 16000},
        {"n_mfcc": 129},
        {"kind": "log_mel"},
        {"kind": "log_mel", "analysis_rate": 44100},
        {"kind": "log_mel", "analysis_rate": 16000, "n_mfcc": 13},
        {"kind": "chroma"},
    ],
    ids=str,
)
def test_a_spec_whose_fields_do_not_fit_together_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FeatureSpec(id="x", **wrong)


def test_a_spec_cannot_change() -> None:
    with pytest.raises(ValidationError):
        MFCC13.n_mfcc = 20  # type: ignore[misc]
