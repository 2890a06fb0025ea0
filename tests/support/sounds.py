"""Made-up sounds whose measures are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 22050


Array = npt.NDArray[np.float32]


def sine(hertz: float, dbfs: float, length_s: float = 10.0, rate: int = RATE) -> Array:
    """A sine whose peak is ``dbfs`` below full scale."""
    time_s = np.arange(round(length_s * rate)) / rate
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)


def clicks(bpm: float, length_s: float = 30.0) -> Array:
    """Short bursts of noise, ``bpm`` a minute, the first after a quarter of a second."""
    random = np.random.default_rng(3)
    track = np.zeros(round(length_s * RATE))
    burst = random.standard_normal(800) * np.exp(-np.arange(800) / 150) * 0.15
    for beat in np.arange(0.25, length_s - 0.1, 60.0 / bpm):
        start = round(beat * RATE)
        track[start : start + 800] += burst[: len(track) - start]
    return track.astype(np.float32)


def noise(level: float, length_s: float = 15.0) -> Array:
    return (np.random.default_rng(5).standard_normal(round(length_s * RATE)) * level).astype(np.float32)
