"""Log-mel spectrograms: librosa's of the resampled segment, and of nothing else."""

from __future__ import annotations

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soxr

from shared.audio.segment_features.extraction import segment_features
from shared.audio.segment_features.log_mel import log_mel, resample
from shared.audio.segment_features.mfcc import mfcc
from shared.audio.spec import LOG_MEL96, MFCC13, MFCC40

Array = npt.NDArray[np.float32]


def tone(hertz: float) -> Array:
    time = np.arange(LOG_MEL96.segment_samples) / LOG_MEL96.sample_rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.fixture(scope="module")
def segments() -> Array:
    """Noise, quiet noise, silence, sound that stops, a tone, full-scale noise."""
    made = np.random.default_rng(7).standard_normal((6, LOG_MEL96.segment_samples)).astype(np.float32) * 0.1
    made[1] *= 1e-3
    made[2] = 0.0
    made[3, 30_000:] = 0.0
    made[4] = tone(440.0)
    made[5] = np.clip(made[5] * 20, -1.0, 1.0)
    return made


def test_a_segment_of_three_seconds_has_188_frames_of_96_bands(segments: Array) -> None:
    computed = segment_features(segments, LOG_MEL96)
    assert computed.shape == (6, 188, 96) == (6, LOG_MEL96.frames, LOG_MEL96.coefficients)
    assert computed.dtype == np.float32


def test_the_features_of_a_segment_follow_from_librosas_mel_spectrogram_of_it_alone(segments: Array) -> None:
    for segment, computed in zip(segments, log_mel(segments, LOG_MEL96), strict=True):
        resampled = soxr.resample(segment, 22050, 16000, quality="HQ")
        power = librosa.feature.melspectrogram(y=resampled, sr=16000, n_fft=512, hop_length=256, n_mels=96)
        np.testing.assert_allclose(computed, np.log10(1 + 10000 * power.T), atol=1e-4)


def test_a_segment_has_the_same_features_alone_and_in_any_company(segments: Array) -> None:
    together = segment_features(segments, LOG_MEL96)
    for position in range(len(segments)):
        np.testing.assert_array_equal(
            segment_features(segments[position : position + 1], LOG_MEL96)[0], together[position]
        )
    np.testing.assert_array_equal(segment_features(segments[::-1], LOG_MEL96)[::-1], together)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 4000.0, 7000.0])
def test_a_tone_is_loudest_in_its_own_band(hertz: float) -> None:
    centres = librosa.mel_frequencies(n_mels=98, fmin=0.0, fmax=8000.0)[1:-1]
    loudest = segment_features(tone(hertz)[None], LOG_MEL96)[0, 10:-10].mean(axis=0).argmax()
    assert abs(int(loudest) - int(np.abs(centres - hertz).argmin())) <= 1


@pytest.mark.parametrize("hertz", [8200.0, 9000.0, 10500.0])
def test_a_tone_above_eight_kilohertz_is_not_heard(hertz: float) -> None:
    assert segment_features(tone(hertz)[None], LOG_MEL96)[0, 10:-10].max() < 1e-4


@pytest.mark.parametrize("hertz", [8200.0, 9000.0, 10500.0])
def test_what_would_alias_is_80_decibels_down(hertz: float) -> None:
    rest = resample(tone(hertz), 22050, 16000)[4000:-4000]
    assert 20 * np.log10(np.sqrt(np.mean(rest**2)) / 0.354) < -80


@pytest.mark.parametrize("samples", [1, 7, 100, 66149, 66150])
@pytest.mark.parametrize("rates", [(22050, 16000), (44100, 16000), (22050, 11025)])
def test_resampling_gives_the_length_the_spec_counts_on(samples: int, rates: tuple[int, int]) -> None:
    resampled = resample(tone(440.0)[:samples], *rates)
    assert resampled.shape == (-(-samples * rates[1] // rates[0]),)
    assert resampled.dtype == np.float32


def test_no_segments_have_no_features() -> None:
    assert segment_features(np.empty((0, LOG_MEL96.segment_samples), np.float32), LOG_MEL96).shape == (0, 188, 96)


@pytest.mark.parametrize("spec", [MFCC13, LOG_MEL96], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("shape", [(1, 66149), (1, 48000), (66150,)])
def test_a_segment_of_another_length_is_refused(spec: object, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="66150"):
        segment_features(np.zeros(shape, np.float32), spec)  # type: ignore[arg-type]


def test_each_spec_gets_the_features_of_its_kind(segments: Array) -> None:
    np.testing.assert_array_equal(segment_features(segments, MFCC40), mfcc(segments, MFCC40))
    np.testing.assert_array_equal(segment_features(segments, MFCC40)[..., :13], mfcc(segments, MFCC13))
    with pytest.raises(ValueError, match="analysis_rate"):
        log_mel(segments, MFCC13)
