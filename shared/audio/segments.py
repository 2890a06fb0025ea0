"""How a track is cut into segments, and when a segment counts as silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.audio.level import BLOCK_S, SILENCE_DBFS, mean_squares, silence_dbfs, track_level
from shared.audio.spec import FeatureSpec

#: Silence shorter than this, in seconds, belongs to the music around it.
LONG_SILENCE_S: Final = 15
#: The most stretches that a message can carry.
MOST_STRETCHES: Final = 64


def segment_count(samples: int, spec: FeatureSpec) -> int:
    """The number of whole segments in a track of this many samples at the spec's rate."""
    return samples // spec.segment_samples


def chosen_segments(count: int, limit: int | None) -> Sequence[int]:
    """Which of ``count`` segments represent the track: all, or ``limit`` of them, evenly spaced and in order.

    Each is the middle one of an equal part of the track. The same numbers give the same choice.

    >>> list(chosen_segments(10, 4))
    [1, 3, 6, 8]
    """
    if limit is None or count <= limit:
        return range(count)
    return [(2 * part + 1) * count // (2 * limit) for part in range(limit)]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the track from ``start_s`` to ``end_s``, in whole seconds."""

    start_s: int
    end_s: int


def sounding_stretches(levels_dbfs: Sequence[float]) -> tuple[Stretch, ...]:
    """The sounding parts of a track, in order.

    ``levels_dbfs`` are the levels of the track's seconds without DC offset. Silence shorter than ``LONG_SILENCE_S``
    belongs to the stretches around it: ordinary pauses and fades are part of the music. At most ``MOST_STRETCHES`` are
    kept apart. The silence threshold depends on the level of the track (`shared.audio.level.silence_dbfs`). A track
    below -70 dBFS is silent as a whole.

    >>> sounding_stretches([-20.0] * 30 + [float("-inf")] * 60 + [-20.0] * 9)
    (Stretch(start_s=0, end_s=30), Stretch(start_s=90, end_s=99))
    """
    level, seconds = track_level(levels_dbfs), len(levels_dbfs)
    if level < SILENCE_DBFS:
        return ()
    # The mean over the length of a segment, so that this rule and ``is_silent`` agree.
    sounds = np.flatnonzero(mean_squares(levels_dbfs) >= 10.0 ** (silence_dbfs(level) / 10.0)) * BLOCK_S
    found = [Stretch(int(start), min(int(start) + BLOCK_S, seconds)) for start in sounds]
    least = LONG_SILENCE_S
    if found[0].start_s < least:
        found[0] = Stretch(0, found[0].end_s)
    if seconds - found[-1].end_s < least:
        found[-1] = Stretch(found[-1].start_s, seconds)
    joined = _joined(found, least)
    while len(joined) > MOST_STRETCHES:
        least *= 2
        joined = _joined(joined, least)
    return tuple(joined)


def silent_stretches(levels_dbfs: Sequence[float]) -> tuple[Stretch, ...]:
    """The silent segments of a track, those side by side as one, in order; the longest ``MOST_STRETCHES``.

    Unlike the gaps between ``sounding_stretches`` they include short silences. ``levels_dbfs`` as there.

    >>> silent_stretches([-20.0] * 30 + [float("-inf")] * 7 + [-20.0] * 9)
    (Stretch(start_s=30, end_s=36),)
    """
    seconds = len(levels_dbfs)
    silence = 10.0 ** (silence_dbfs(track_level(levels_dbfs)) / 10.0)
    blocks = np.flatnonzero(mean_squares(levels_dbfs) < silence) * BLOCK_S
    found = [Stretch(int(start), min(int(start) + BLOCK_S, seconds)) for start in blocks]
    longest = sorted(_joined(found, 1), key=lambda one: one.start_s - one.end_s)[:MOST_STRETCHES] if found else []
    return tuple(sorted(longest, key=lambda one: one.start_s))


def _joined(stretches: Sequence[Stretch], least_gap_s: int) -> list[Stretch]:
    joined = [stretches[0]]
    for stretch in stretches[1:]:
        if stretch.start_s - joined[-1].end_s < least_gap_s:
            joined[-1] = Stretch(joined[-1].start_s, stretch.end_s)
        else:
            joined.append(stretch)
    return joined


def heard_segments(count: int, limit: int | None, spec: FeatureSpec, sounding: Sequence[Stretch]) -> Sequence[int]:
    """Like ``chosen_segments``, but among the sounding segments.

    Silent segments fill up only if these are too few. ``sounding`` are the track's ``sounding_stretches``. If they are
    unknown or cover the whole track, the choice is that of ``chosen_segments``.
    """
    chosen = chosen_segments(count, limit)
    if limit is None or len(chosen) == count:
        return chosen
    heard = [number for number in range(count) if _within(number, spec, sounding)]
    if len(heard) == count or not heard:
        return chosen
    taken = {heard[number] for number in chosen_segments(len(heard), limit)}
    silent = [number for number in range(count) if number not in taken]
    return sorted(taken | {silent[number] for number in chosen_segments(len(silent), limit - len(taken))})


def _within(number: int, spec: FeatureSpec, stretches: Sequence[Stretch]) -> bool:
    first_s, last_s = number * spec.segment_s, (number + 1) * spec.segment_s
    return any(stretch.start_s < last_s and first_s < stretch.end_s for stretch in stretches)


def level_dbfs(samples: npt.NDArray[np.float32]) -> float:
    """RMS level of ``samples`` [n] in [-1, 1], dB relative to full scale (a full-scale square wave is 0 dBFS).

    Negative infinity for digital silence, and for no samples at all.
    """
    if samples.size == 0:
        return float("-inf")
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10.0 * float(np.log10(power)) if power > 0.0 else float("-inf")


def is_silent(samples: npt.NDArray[np.float32], track_level_dbfs: float | None = None) -> bool:
    """Whether ``samples`` [n] in [-1, 1], part of a track of this level, are silent. A DC offset is no sound."""
    offset = samples.mean(dtype=np.float64).astype(np.float32)
    return level_dbfs(samples - offset) < silence_dbfs(track_level_dbfs)
