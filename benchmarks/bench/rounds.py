"""Several rounds in which everybody has a turn, so that whatever else the machine does disturbs all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from benchmarks.bench.measurement import NotMeasuredError, Usage

Work = Callable[[], Usage]


@dataclass(frozen=True, slots=True)
class Series:
    """What the same work took, round by round."""

    usages: tuple[Usage, ...]

    @property
    def median(self) -> Usage:
        """Each figure by itself: the median over the rounds, of memory the largest."""
        return Usage(
            statistics.median(one.cpu_s for one in self.usages),
            statistics.median(one.wall_s for one in self.usages),
            max(one.peak_mb for one in self.usages),
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of two figures of the same round: the median over the rounds, the least and the greatest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """What came of each work, and why there is nothing of some."""

    series: Mapping[str, Series]
    missing: Mapping[str, str]

    def cpu_ratio(self, name: str, other: str) -> Ratio | None:
        """CPU of one as a multiple of the other's; None if one of them is missing."""
        return self._ratio(name, other, lambda usage: usage.cpu_s)

    def wall_ratio(self, name: str, other: str) -> Ratio | None:
        """The same for the wall time."""
        return self._ratio(name, other, lambda usage: usage.wall_s)

    def _ratio(self, name: str, other: str, figure: Callable[[Usage], float]) -> Ratio | None:
        if name not in self.series or other not in self.series:
            return None
        pairs = zip(self.series[name].usages, self.series[other].usages, strict=True)
        each = [figure(one) / figure(two) for one, two in pairs]
        return Ratio(statistics.median(each), min(each), max(each))


def alternate(works: Mapping[str, Work], rounds: int, warm_up: Collection[str] | None = None) -> Rounds:
    """Do the works ``rounds`` times in turn, every other round in reverse order.

    Those in ``warm_up`` (default all) are done once before.
    """
    missing: dict[str, str] = {}
    taken: dict[str, list[Usage]] = {name: [] for name in works}

    def turn(name: str) -> Usage | None:
        if name in missing:
            return None
        try:
            return works[name]()
        except NotMeasuredError as error:
            missing[name] = str(error)
            return None

    for name in works if warm_up is None else warm_up:
        turn(name)
    for number in range(rounds):
        for name in reversed([*works]) if number % 2 else works:
            if (usage := turn(name)) is not None:
                taken[name].append(usage)
    series = {name: Series(tuple(usages)) for name, usages in taken.items() if name not in missing}
    return Rounds(series, missing)
