"""Loudness of a mono track as broadcast measures it: ITU-R BS.1770-4, integrated, gated."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.fft

_BLOCK_S: Final = 0.4
_STEP_S: Final = 0.1
_ABSOLUTE_GATE_LUFS: Final = -70.0
_RELATIVE_GATE_LU: Final = -10.0
_OFFSET_DB: Final = -0.691
#: Samples of a spectrum, and for how many seconds the filters answer to a sample: after that, by less than 1e-12.
_SPECTRUM: Final = 1 << 15
_RESPONSE_S: Final = 0.15


def block_powers(samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float64]:
    """Mean squares of K-weighted ``samples`` [n] in [-1, 1], over blocks of 400 ms, one every 100 ms.

    Fewer samples than a block count as one block; no samples count as a block of silence.
    """
    if len(samples) == 0:
        return np.zeros(1)
    weighted = k_weighted(samples, sample_rate)
    step = round(_STEP_S * sample_rate)
    steps_a_block = round(_BLOCK_S / _STEP_S)
    if len(weighted) < steps_a_block * step:
        return np.atleast_1d(np.mean(np.square(weighted)))
    whole = weighted[: len(weighted) // step * step].reshape(-1, step)
    steps = np.mean(np.square(whole), axis=1)
    powers: npt.NDArray[np.float64] = np.convolve(steps, np.full(steps_a_block, 1.0 / steps_a_block), mode="valid")
    return powers


def k_weighted(samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
    """``samples`` [n] through the two filters of BS.1770, [n].

    They are applied to spectra, piece by piece with overlapping responses (overlap-add), because the recursive filters
    of ``scipy.signal`` take half a second to import.
    """
    step = _SPECTRUM - round(_RESPONSE_S * sample_rate)
    response = _frequency_response(sample_rate)
    weighted = np.zeros(len(samples), np.float32)
    for start in range(0, len(samples), step):
        spectrum = scipy.fft.rfft(samples[start : start + step], _SPECTRUM)
        filtered = scipy.fft.irfft(spectrum * response, _SPECTRUM)
        weighted[start : start + _SPECTRUM] += filtered[: len(samples) - start]
    return weighted


def integrated_loudness(powers: npt.NDArray[np.float64]) -> float:
    """Integrated loudness in LUFS of the blocks of a whole track; negative infinity if all are below -70 LUFS.

    A sine of 997 Hz at full scale is -3.01 LUFS. A mono mix reads about 3 dB lower than the stereo it came from.
    """
    audible = powers[_lufs(powers) > _ABSOLUTE_GATE_LUFS]
    if audible.size == 0:
        return float("-inf")
    gate = float(_lufs(np.mean(audible))) + _RELATIVE_GATE_LU
    return float(_lufs(np.mean(audible[_lufs(audible) > gate])))


def _lufs(power: npt.ArrayLike) -> npt.NDArray[np.float64]:
    lufs: npt.NDArray[np.float64] = _OFFSET_DB + 10.0 * np.log10(np.maximum(power, 1e-20))
    return lufs


@lru_cache(maxsize=8)
def _frequency_response(sample_rate: int) -> npt.NDArray[np.complex64]:
    """The response of both filters at the frequencies of a spectrum."""
    delay = np.exp(-2j * np.pi * np.arange(_SPECTRUM // 2 + 1) / _SPECTRUM)
    response = np.ones(len(delay), np.complex128)
    for b0, b1, b2, a0, a1, a2 in _k_weighting(sample_rate):
        response *= (b0 + delay * (b1 + delay * b2)) / (a0 + delay * (a1 + delay * a2))
    return response.astype(np.complex64)


def _k_weighting(sample_rate: int) -> npt.NDArray[np.float64]:
    """The two filters of BS.1770 (head shelf, high pass) at any rate, as second-order sections.

    The standard gives coefficients at 48 kHz only. These are its analogue prototypes through the bilinear transform,
    with the constants of Brecht De Man, "Evaluation of implementations of the EBU R128 loudness measurement" (2018).
    """
    return np.stack([_shelf(sample_rate, 1681.9744509555319, 3.99984385397, 0.7071752369554193),
                     _high_pass(sample_rate, 38.13547087613982, 0.5003270373253953)])  # fmt: skip


def _shelf(sample_rate: int, frequency: float, gain_db: float, quality: float) -> npt.NDArray[np.float64]:
    k = np.tan(np.pi * frequency / sample_rate)
    high = 10.0 ** (gain_db / 20.0)
    band = high**0.499666774155
    a0 = 1.0 + k / quality + k * k
    return np.array(
        [
            (high + band * k / quality + k * k) / a0,
            2.0 * (k * k - high) / a0,
            (high - band * k / quality + k * k) / a0,
            1.0,
            2.0 * (k * k - 1.0) / a0,
            (1.0 - k / quality + k * k) / a0,
        ]
    )


def _high_pass(sample_rate: int, frequency: float, quality: float) -> npt.NDArray[np.float64]:
    k = np.tan(np.pi * frequency / sample_rate)
    a0 = 1.0 + k / quality + k * k
    return np.array([1.0, -2.0, 1.0, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / quality + k * k) / a0])
