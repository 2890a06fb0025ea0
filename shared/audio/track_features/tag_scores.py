"""Contrasts between the tags of a track, on one scale: deviations from what is usual in music."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

#: Median and standard deviation of the log odds of each tag's mean probability in a clip, over 430 clips of real music
#: (110 of GTZAN, 320 of Emotify), by musicnn (models/music-tags). The usual probability differs between tags:
#: "rock" is likely in any song, "party" in none.
_USUAL: Final[Mapping[str, tuple[float, float]]] = {
    "acoustic": (-4.13, 1.42),
    "ambient": (-3.80, 1.78),
    "beautiful": (-3.88, 0.82),
    "catchy": (-5.71, 0.72),
    "chill": (-4.27, 0.80),
    "dance": (-4.48, 1.50),
    "electro": (-5.44, 1.60),
    "electronic": (-2.97, 1.53),
    "experimental": (-3.71, 0.99),
    "female vocalist": (-4.98, 0.77),
    "female vocalists": (-2.85, 0.85),
    "folk": (-3.24, 1.37),
    "funk": (-4.89, 1.19),
    "guitar": (-4.32, 0.97),
    "happy": (-5.92, 0.71),
    "hard rock": (-5.09, 1.37),
    "hip-hop": (-5.38, 1.45),
    "house": (-5.89, 1.75),
    "instrumental": (-3.38, 1.32),
    "jazz": (-3.20, 1.76),
    "male vocalists": (-4.49, 0.69),
    "mellow": (-4.04, 0.97),
    "metal": (-5.16, 1.35),
    "party": (-6.07, 0.97),
    "pop": (-2.38, 0.98),
    "punk": (-5.34, 1.28),
    "rock": (-1.94, 1.10),
    "sad": (-5.05, 0.91),
}
#: Probabilities are clipped to this distance from 0 and 1.
_NEAREST: Final = 1e-6


def contrast(tags: Mapping[str, float], more: Sequence[str], less: Sequence[str] = ()) -> float:
    """Mean of the tags ``more`` minus mean of the tags ``less``, each in deviations from what is usual in music.

    ``tags`` are probabilities by name. A missing tag counts as usual, so without any tags the result is 0. About
    -2 to 2 over real music. Raises KeyError for a name in ``more`` or ``less`` without a known usual value.

    >>> contrast({}, more=["party"], less=["sad", "mellow"])
    0.0
    """
    return _mean_deviation(tags, more) - _mean_deviation(tags, less)


def likely(tags: Mapping[str, float], more: Sequence[str], less: Sequence[str] = (), slope: float = 1.0) -> float:
    """The `contrast` mapped to 0..1 by a logistic function with this ``slope``: 0.5 if nothing is unusual."""
    return float(1.0 / (1.0 + np.exp(-slope * contrast(tags, more, less))))


def _mean_deviation(tags: Mapping[str, float], names: Sequence[str]) -> float:
    deviations = []
    for name in names:
        usual, spread = _USUAL[name]
        p = tags.get(name)
        deviations.append(0.0 if p is None else (_log_odds(p) - usual) / spread)
    return float(np.mean(deviations)) if deviations else 0.0


def _log_odds(probability: float) -> float:
    p = min(max(probability, _NEAREST), 1.0 - _NEAREST)
    return float(np.log(p / (1.0 - p)))
