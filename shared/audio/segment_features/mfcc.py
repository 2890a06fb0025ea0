"""MFCCs of batches of segments. Each equals librosa's MFCCs of its own segment."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.fft

from shared.audio.segment_features.mel_filters import mel_product
from shared.audio.spec import FeatureSpec
from shared.audio.windows import hann

Array = npt.NDArray[np.float32]

_AMIN: Final = 1e-10
_TOP_DB: Final = 80.0


def mfcc(segments: Array, spec: FeatureSpec) -> Array:
    """MFCCs of ``segments``, float32 [n, samples] in [-1, 1], as float32 [n, frames, n_mfcc].

    Equal to ``librosa.feature.mfcc(y=segment, sr=..., n_mfcc=..., n_fft=..., hop_length=...)`` transposed, for each
    segment alone: decibels are clipped relative to the loudest value of that segment, not of the batch, so a
    segment's features never depend on its neighbours. Raises ValueError if the segments do not have the spec's length.

    >>> from shared.audio.spec import MFCC13
    >>> mfcc(np.zeros((2, MFCC13.segment_samples), np.float32), MFCC13).shape
    (2, 130, 13)
    """
    if segments.ndim != 2 or segments.shape[1] != spec.segment_samples:
        raise ValueError(f"segments [n, {spec.segment_samples}] are needed, not {segments.shape}")
    features = np.empty((len(segments), spec.frames, spec.n_mfcc), np.float32)
    for position, segment in enumerate(segments):
        features[position] = _one(segment, spec)
    return features


def _one(segment: Array, spec: FeatureSpec) -> Array:
    # One segment at a time is faster than one large array, because its spectrum (1 MB) stays in the CPU cache.
    decibels = power_to_db(mel_power(segment, spec.sample_rate, spec.n_fft, spec.hop_length, spec.n_mels))
    cepstra: Array = scipy.fft.dct(decibels, axis=1, type=2, norm="ortho")[:, : spec.n_mfcc]
    return cepstra


def power_spectrum(samples: Array, n_fft: int, hop_length: int) -> Array:
    """Squared magnitudes [frames, 1 + n_fft // 2] of ``samples`` [n], Hann window, centred, zero-padded."""
    padded = np.pad(samples, n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    spectrum = scipy.fft.rfft(frames * hann(n_fft), axis=1)
    power: Array = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


def mel_power(samples: Array, sample_rate: int, n_fft: int, hop_length: int, n_mels: int) -> Array:
    """Mel spectrogram, power, [frames, n_mels]."""
    return mel_product(sample_rate, n_fft, n_mels)(power_spectrum(samples, n_fft, hop_length))


def power_to_db(power: Array) -> Array:
    """Decibels re 1.0, clipped 80 dB below the loudest value of this array."""
    decibels = 10.0 * np.log10(np.maximum(_AMIN, power))
    clipped: Array = np.maximum(decibels, decibels.max() - _TOP_DB)
    return clipped
