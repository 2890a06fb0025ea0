"""Beat of a track: onset strength, its periodicity, tempo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]

#: Range of tempi, BPM.
_SLOWEST_BPM: Final = 50.0
_FASTEST_BPM: Final = 220.0
_TEMPI: Final = np.geomspace(_SLOWEST_BPM, _FASTEST_BPM, 600)
#: People tap near 120 BPM, with a spread of about an octave (Ellis 2007, "Beat Tracking by Dynamic Programming").
_PREFERRED_BPM: Final = 120.0
_SPREAD_OCTAVES: Final = 0.9
#: Beats over which a tempo must hold. A long comb separates 120.0 from 121 BPM, although one beat has only 21 frames.
_COMB_BEATS: Final = 4
_TREND_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Rhythm:
    """``tempo`` in BPM, 0 without a beat; ``clarity`` in 0..1, the periodicity of the onsets at that tempo."""

    tempo: float
    clarity: float


def onset_strength(mel_db: Array) -> Array:
    """Rise in level per frame, mean over the bands, dB, [frames], from a mel spectrogram in dB [frames, bands]."""
    rise = np.maximum(0.0, np.diff(mel_db, axis=0, prepend=mel_db[:1]))
    strength: Array = rise.mean(axis=1)
    return strength


def rhythm(onsets: Sequence[Array], frame_rate: float) -> Rhythm:
    """Tempo and its clarity from the onset strengths of one or more excerpts, ``frame_rate`` frames a second.

    The excerpts' autocorrelations are added up, so each need only be long enough for ``_COMB_BEATS`` of the slowest
    beat to matter (some ten seconds). Accuracy: within 1% for a steady beat; the octave (half or double) may differ
    from a listener's.
    """
    longest = int(np.ceil(60.0 / _SLOWEST_BPM * frame_rate * _COMB_BEATS)) + 2
    correlation = np.zeros(longest)
    for onset in onsets:
        correlation += _autocorrelation(_detrended(onset, frame_rate), longest)
    if correlation[0] <= 1e-9:
        return Rhythm(0.0, 0.0)
    correlation /= correlation[0]
    lags = 60.0 / _TEMPI * frame_rate
    comb = np.mean(
        [np.interp(lags * beat, np.arange(longest), correlation) for beat in range(1, _COMB_BEATS + 1)], axis=0
    )
    octaves = np.log2(_TEMPI / _PREFERRED_BPM) / _SPREAD_OCTAVES
    best = int(np.argmax(np.maximum(comb, 0.0) * np.exp(-0.5 * np.square(octaves))))
    clarity = float(np.clip(comb[best], 0.0, 1.0))
    return Rhythm(float(_TEMPI[best]) if clarity > 0.0 else 0.0, clarity)


def _detrended(onset: Array, frame_rate: float) -> Floats:
    width = max(1, round(_TREND_S * frame_rate))
    trend = np.convolve(onset, np.full(width, 1.0 / width), mode="same")
    return np.maximum(0.0, onset - trend) if len(onset) >= width else np.zeros_like(onset)


def _autocorrelation(onset: Floats, lags: int) -> Floats:
    centred = onset - onset.mean()
    size = 1 << int(np.ceil(np.log2(2 * len(centred) + lags)))
    spectrum = np.fft.rfft(centred, size)
    raw = np.fft.irfft(np.square(np.abs(spectrum)), size)[:lags]
    # Unbiased: long lags have fewer pairs, which must not make them look weaker. Otherwise fast tempi would win.
    pairs = np.maximum(len(centred) - np.arange(lags), max(1, len(centred) // 4))
    unbiased: Floats = raw * len(centred) / pairs
    return unbiased
