"""Log-mel spectrograms of batches of segments. Each depends on its own segment only."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from shared.audio.segment_features.mfcc import mel_power
from shared.audio.spec import FeatureSpec

Array = npt.NDArray[np.float32]

#: Factor of the power before the logarithm: quiet bands stay distinct and silence is 0.
_GAIN: Final = np.float32(10_000.0)


def log_mel(segments: Array, spec: FeatureSpec) -> Array:
    """log10(1 + 10000 * mel power) of ``segments``, float32 [n, samples] in [-1, 1], as float32 [n, frames, n_mels].

    The power is that of ``librosa.feature.melspectrogram(y=resampled, sr=..., n_fft=..., hop_length=..., n_mels=...)``,
    transposed. Each segment is resampled by itself, so its features never depend on its neighbours. Raises ValueError
    if the segments do not have the spec's length, or for a spec of another kind.

    >>> from shared.audio.spec import LOG_MEL96
    >>> log_mel(np.zeros((2, LOG_MEL96.segment_samples), np.float32), LOG_MEL96).shape
    (2, 188, 96)
    """
    if spec.analysis_rate is None:
        raise ValueError(f"{spec.id!r} is no log_mel spec: it has no analysis_rate")
    if segments.ndim != 2 or segments.shape[1] != spec.segment_samples:
        raise ValueError(f"segments [n, {spec.segment_samples}] are needed, not {segments.shape}")
    features = np.empty((len(segments), spec.frames, spec.n_mels), np.float32)
    for position, segment in enumerate(segments):
        resampled = resample(segment, spec.sample_rate, spec.analysis_rate)
        power = mel_power(resampled, spec.analysis_rate, spec.n_fft, spec.hop_length, spec.n_mels)
        features[position] = np.log10(1 + _GAIN * power)
    return features


def resample(samples: Array, from_hz: int, to_hz: int) -> Array:
    """``samples`` [n] at another rate, float32 [ceil(n * to_hz / from_hz)].

    Uses soxr, whose passband is flat to 0.91 of the lower Nyquist frequency, with aliases below -130 dB.
    """
    wanted = -(-len(samples) * to_hz // from_hz)
    resampled: Array = soxr.resample(samples, from_hz, to_hz, quality="HQ")[:wanted]
    return np.pad(resampled, (0, wanted - len(resampled)))
