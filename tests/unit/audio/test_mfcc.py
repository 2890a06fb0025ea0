"""The features are librosa's, segment by segment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from shared.audio.segment_features.mfcc import mfcc
from shared.audio.spec import MFCC13, MFCC40, FeatureSpec


@pytest.fixture(scope="module")
def segments() -> npt.NDArray[np.float32]:
    """Noise, quiet noise, silence, sound that stops, a chord, a click, full-scale noise, one loud sample."""
    random = np.random.default_rng(7)
    time = np.arange(MFCC13.segment_samples) / MFCC13.sample_rate
    made = random.standard_normal((8, MFCC13.segment_samples)) * 0.1
    made[1] *= 1e-3
    made[2] = 0.0
    made[3, 30_000:] = 0.0
    made[4] = 0.2 * sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
    made[5] = 0.0
    made[5, 40_000:40_010] = 0.9
    made[6] = np.clip(made[6] * 20, -1.0, 1.0)
    made[7] *= 1e-5
    made[7, 100] = 1.0
    return made.astype(np.float32)


def test_the_features_of_a_segment_are_those_librosa_computes_for_it_alone(segments: npt.NDArray[np.float32]) -> None:
    librosa = pytest.importorskip("librosa")
    computed = mfcc(segments, MFCC13)
    for segment, features in zip(segments, computed, strict=True):
        expected = librosa.feature.mfcc(y=segment, sr=22050, n_mfcc=13, n_fft=2048, hop_length=512).T
        np.testing.assert_allclose(features, expected, atol=1e-3)


def test_forty_coefficients_are_librosas_too(segments: npt.NDArray[np.float32]) -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.feature.mfcc(y=segments[0], sr=22050, n_mfcc=40, n_fft=2048, hop_length=512).T
    np.testing.assert_allclose(mfcc(segments[:1], MFCC40)[0], expected, atol=1e-3)


def test_another_spec_gives_librosas_features_too(segments: npt.NDArray[np.float32]) -> None:
    librosa = pytest.importorskip("librosa")
    spec = FeatureSpec(id="other", segment_s=1.5, n_mfcc=20, n_fft=1024, hop_length=256, n_mels=64)
    segment = segments[:1, : spec.segment_samples]
    expected = librosa.feature.mfcc(y=segment[0], sr=22050, n_mfcc=20, n_fft=1024, hop_length=256, n_mels=64).T
    features = mfcc(segment, spec)
    assert features.shape == (1, spec.frames, spec.n_mfcc)
    np.testing.assert_allclose(features[0], expected, atol=1e-3)


def test_the_features_of_a_segment_are_the_same_bits_in_every_batch(segments: npt.NDArray[np.float32]) -> None:
    together = mfcc(segments, MFCC13)
    reversed_batch = mfcc(segments[::-1], MFCC13)[::-1]
    alone = np.concatenate([mfcc(segment[None], MFCC13) for segment in segments])
    assert together.tobytes() == np.ascontiguousarray(reversed_batch).tobytes() == alone.tobytes()


def test_features_are_finite_float32_also_for_silence(segments: npt.NDArray[np.float32]) -> None:
    features = mfcc(segments, MFCC13)
    assert features.dtype == np.float32
    assert features.shape == (len(segments), 130, 13)
    assert np.isfinite(features).all()


def test_a_segment_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="66150"):
        mfcc(np.zeros((1, 66_149), np.float32), MFCC13)


def test_no_segments_have_no_features() -> None:
    assert mfcc(np.empty((0, MFCC13.segment_samples), np.float32), MFCC13).shape == (0, 130, 13)
