"""How a track is cut into segments, and when a segment counts as silent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.audio.spec import FeatureSpec

#: A segment whose RMS level is below this, in dB relative to full scale, is silence. It lies above the noise of
#: 16-bit quantisation (about -98 dBFS) and of lossy coding of silence, and below the quietest passages of music.
SILENCE_DBFS: Final = -70.0


def segment_count(samples: int, spec: FeatureSpec) -> int:
    """Whole segments in a track of that many samples at the spec's rate; a shorter rest is dropped."""
    return samples // spec.segment_samples


def chosen_segments(count: int, limit: int | None) -> Sequence[int]:
    """Which of ``count`` segments stand for the track: all, or ``limit`` of them, evenly spaced and in order.

    Each is the middle one of an equal part of the track. The same numbers give the same choice.

    >>> list(chosen_segments(10, 4))
    [1, 3, 6, 8]
    """
    if limit is None or count <= limit:
        return range(count)
    return [(2 * part + 1) * count // (2 * limit) for part in range(limit)]


def heard_segments(count: int, limit: int | None, spec: FeatureSpec, levels_dbfs: Sequence[float]) -> Sequence[int]:
    """As ``chosen_segments``, but among those in which something sounds; silent ones only where these are too few.

    ``levels_dbfs`` are the levels of the track's seconds, without their constant offset.
    """
    chosen = chosen_segments(count, limit)
    if limit is None or len(chosen) == count:
        return chosen
    sounding = [number for number in range(count) if _sounds(number, spec, levels_dbfs)]
    if len(sounding) == count or not sounding:
        return chosen
    heard = {sounding[number] for number in chosen_segments(len(sounding), limit)}
    silent = [number for number in range(count) if number not in heard]
    return sorted(heard | {silent[number] for number in chosen_segments(len(silent), limit - len(heard))})


def _sounds(number: int, spec: FeatureSpec, levels_dbfs: Sequence[float]) -> bool:
    first, last = int(number * spec.segment_s), math.ceil((number + 1) * spec.segment_s)
    return any(level >= SILENCE_DBFS for level in levels_dbfs[first:last])


def level_dbfs(samples: npt.NDArray[np.float32]) -> float:
    """RMS level of ``samples`` [n] in [-1, 1], dB relative to full scale (a full-scale square wave is 0 dBFS).

    Negative infinity for digital silence, and for no samples at all.
    """
    if samples.size == 0:
        return float("-inf")
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10.0 * float(np.log10(power)) if power > 0.0 else float("-inf")


def is_silent(samples: npt.NDArray[np.float32]) -> bool:
    """Whether nothing sounds in ``samples`` [n] in [-1, 1]. A constant offset is no sound."""
    return level_dbfs(samples - samples.mean(dtype=np.float64).astype(np.float32)) < SILENCE_DBFS
