"""The level of a track. Genre and mood do not depend on it; the measured feature ``loudness`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

#: Each track is scaled to this level before it is analysed. It is the median level of the training clips of the genre
#: models.
REFERENCE_DBFS: Final = -18.0
#: Silence threshold of a track at the reference level. It lies below the quietest passages of music and above the noise
#: of lossy coding.
SILENCE_DBFS: Final = -70.0
#: Silence threshold at any volume. 16-bit quantisation alone has a noise floor of about -98 dBFS.
NOISE_DBFS: Final = -90.0
#: The length of a segment, in whole seconds.
BLOCK_S: Final = 3
_RELATIVE_GATE_DB: Final = 10.0


class LevelMeter:
    """Measures the level of each second of a track that arrives in pieces."""

    def __init__(self, sample_rate: int) -> None:
        """``sample_rate`` in Hz."""
        self._rate = sample_rate
        self._powers: list[float] = []
        self._rest = np.empty(0, np.float32)
        self._counts: list[int] = []

    def add(self, samples: Array) -> None:
        """The next samples, float32 [n] in [-1, 1]."""
        samples = np.concatenate((self._rest, samples))
        seconds = len(samples) // self._rate
        if seconds:
            self._append(samples[: seconds * self._rate].reshape(seconds, self._rate))
        self._rest = samples[seconds * self._rate :]

    def read(self) -> tuple[tuple[float, ...], float]:
        """The levels of the seconds and of the whole track without DC offset, dB relative to full scale."""
        if len(self._rest):
            self._append(self._rest[np.newaxis])
            self._rest = self._rest[:0]
        powers, counts = np.array(self._powers), np.array(self._counts)
        with np.errstate(divide="ignore"):
            each = 10.0 * np.log10(powers)
            whole = 10.0 * np.log10(np.average(powers, weights=counts)) if len(powers) else -np.inf
        return tuple(float(level) for level in each), float(whole)

    def _append(self, seconds: Array) -> None:
        self._powers += [float(power) for power in seconds.var(axis=1, dtype=np.float64)]
        self._counts += [seconds.shape[1]] * len(seconds)


def mean_squares(levels_dbfs: Sequence[float]) -> npt.NDArray[np.float64]:
    """Mean squares of the blocks of ``BLOCK_S`` seconds whose seconds have these levels; the last may be shorter."""
    powers = np.power(10.0, np.asarray(levels_dbfs, np.float64) / 10.0)
    return np.array([powers[start : start + BLOCK_S].mean() for start in range(0, len(powers), BLOCK_S)])


def track_level(levels_dbfs: Sequence[float]) -> float:
    """The level of a track, dB relative to full scale, from the levels of its seconds (`DecodedAudio.levels_dbfs`).

    It is the mean power of its blocks with the two gates of ITU-R BS.1770: first the blocks above ``NOISE_DBFS``, then
    those no more than 10 dB below their mean. Silence and quiet passages do not change it. Negative infinity if no
    block is above ``NOISE_DBFS``. A gain shifts the level by exactly that gain.

    >>> round(track_level([-20.0] * 30 + [float("-inf")] * 60), 3)
    -20.0
    """
    powers = mean_squares(levels_dbfs)
    audible = powers[powers > 10.0 ** (NOISE_DBFS / 10.0)]
    if not audible.size:
        return float("-inf")
    gate = audible.mean() / 10.0 ** (_RELATIVE_GATE_DB / 10.0)
    return 10.0 * float(np.log10(audible[audible >= gate].mean()))


def gain_db(level_dbfs: float | None, to_dbfs: float = REFERENCE_DBFS) -> float:
    """The gain in dB from ``level_dbfs`` to ``to_dbfs``; 0 if the level is unknown."""
    return to_dbfs - level_dbfs if level_dbfs is not None and np.isfinite(level_dbfs) else 0.0


def brought_to(to_dbfs: float | None, samples: Array, level_dbfs: float | None) -> Array:
    """``samples`` of a track at ``level_dbfs``, scaled to ``to_dbfs``; unchanged if either is None."""
    return samples if to_dbfs is None else at_gain(samples, gain_db(level_dbfs, to_dbfs))


def at_gain(samples: Array, db: float) -> Array:
    """``samples`` with a gain of ``db``. The result may exceed full scale."""
    return samples if db == 0.0 else samples * np.float32(10.0 ** (db / 20.0))


def silence_dbfs(track_level_dbfs: float | None = None) -> float:
    """The level below which a segment of a track is silent. An unknown track level counts as the reference level."""
    return max(NOISE_DBFS, SILENCE_DBFS - gain_db(track_level_dbfs))
