"""From the segments' probabilities to the genre of the track: three ways to vote. Pure functions over arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.settings import VoteStrategy

Probabilities = npt.NDArray[np.float64]

#: Length of a part for the strategy ``parts``, in seconds.
PART_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class VoteResult:
    """``probabilities`` [classes] add up to 1; ``agreement`` is the share of segments that name the winner."""

    winner: int
    probabilities: Probabilities
    agreement: float


def soft(segments: Probabilities, starts_s: npt.NDArray[np.float64]) -> Probabilities:
    """The mean of the segments' probabilities: a segment that is sure counts for more than one that is not."""
    del starts_s
    return _normalised(segments.mean(axis=0))


def majority(segments: Probabilities, starts_s: npt.NDArray[np.float64]) -> Probabilities:
    """The share of segments that name each class."""
    del starts_s
    return _shares(segments.argmax(axis=1), segments.shape[1])


def parts(segments: Probabilities, starts_s: npt.NDArray[np.float64]) -> Probabilities:
    """The track is cut into 30-second parts; the segments of a part vote for its class, then the parts vote."""
    part_of = (starts_s // PART_S).astype(int)
    labels = [
        _winner(majority(segments[part_of == part], starts_s[part_of == part]), segments[part_of == part])
        for part in np.unique(part_of)
    ]
    return _shares(np.array(labels), segments.shape[1])


STRATEGIES: Final[Mapping[VoteStrategy, Callable[[Probabilities, npt.NDArray[np.float64]], Probabilities]]] = {
    "soft": soft,
    "majority": majority,
    "parts": parts,
}


def known_strategy(name: str) -> VoteStrategy | None:
    """The strategy of that name; None if this version has no such strategy."""
    return next((strategy for strategy in STRATEGIES if strategy == name), None)


def vote(
    segments: Probabilities, starts_s: npt.NDArray[np.float64], strategy: VoteStrategy, temperature: float = 1.0
) -> VoteResult:
    """The genre that ``segments`` [n, classes] elect, n > 0, each row a distribution; ``starts_s`` [n] in seconds.

    ``temperature`` calibrates the mean probabilities of ``soft``: p^(1 / temperature), normalised. The two other
    strategies give shares of votes; shares are not calibrated. A draw goes to the class with the higher mean
    probability. Raises ValueError without segments.
    """
    if segments.ndim != 2 or len(segments) == 0 or starts_s.shape != (len(segments),):
        raise ValueError(f"segments [n, classes] and starts [n] are needed, not {segments.shape} and {starts_s.shape}")
    probabilities = STRATEGIES[strategy](segments, starts_s)
    winner = _winner(probabilities, segments)
    agreement = float(np.mean(segments.argmax(axis=1) == winner))
    if strategy == "soft":
        probabilities = calibrated(probabilities, temperature)
    return VoteResult(winner, probabilities, agreement)


def calibrated(probabilities: Probabilities, temperature: float) -> Probabilities:
    """``probabilities`` [classes] raised to 1 / ``temperature`` and normalised: below 1 surer, above 1 less sure."""
    # Relative to the largest, so that a low temperature leaves no sum of zero.
    return _normalised((probabilities / probabilities.max()) ** (1.0 / temperature))


def _winner(probabilities: Probabilities, segments: Probabilities) -> int:
    tied = np.flatnonzero(probabilities == probabilities.max())
    return int(tied[segments.mean(axis=0)[tied].argmax()])


def _shares(labels: npt.NDArray[np.int_], classes: int) -> Probabilities:
    return _normalised(np.bincount(labels, minlength=classes).astype(np.float64))


def _normalised(weights: Probabilities) -> Probabilities:
    normalised: Probabilities = weights / weights.sum()
    return normalised
