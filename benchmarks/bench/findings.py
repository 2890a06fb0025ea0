"""What was found: rows of figures, the targets, and what could not be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.bench.rounds import Ratio, Rounds


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one contender, a track; None where there is none. ``times`` is its CPU by that of the reference."""

    name: str
    cpu_s: float | None = None
    wall_s: float | None = None
    peak_mb: float | None = None
    times: Ratio | None = None

    def figures(self) -> dict[str, float]:
        """Those that there are, by name."""
        given = {"cpu_s": self.cpu_s, "wall_s": self.wall_s, "peak_mb": self.peak_mb}
        if self.times is not None:
            given |= {"times": self.times.median, "times_low": self.times.low, "times_high": self.times.high}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and what it has to be. ``unit`` is ``x`` for a ratio."""

    name: str
    value: float
    relation: Literal["<=", ">="]
    bound: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.relation == "<=" else self.value >= self.bound

    @property
    def share(self) -> float:
        """How much of its bound is used: at most 1 if the target is met."""
        return self.value / self.bound if self.relation == "<=" else self.bound / self.value


@dataclass(slots=True)
class Section:
    """One question. ``missing`` says by name why something was not measured; ``notes`` are further figures by name."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)

    def add_rounds(self, rounds: Rounds, tracks: int, reference: str) -> None:
        """A row for each contender of the rounds, whose works were of so many tracks."""
        self.missing |= rounds.missing
        for name, series in rounds.series.items():
            took = series.median
            times = rounds.cpu_ratio(name, reference)
            self.rows.append(Row(name, took.cpu_s / tracks, took.wall_s / tracks, took.peak_mb, times))

    def add_target(
        self, name: str, value: Ratio | float | None, relation: Literal["<=", ">="], bound: float, unit: str = "x"
    ) -> None:
        """A target, or a line that says that it was not measured."""
        if value is None:
            self.missing[name] = "one of the two sides was not measured"
        else:
            figure = value.median if isinstance(value, Ratio) else value
            self.targets.append(Target(name, figure, relation, bound, unit))


def as_json(sections: Sequence[Section], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for one line of JSON."""
    return {
        "schema": 1,
        **machine,
        "sections": {
            section.name: {
                "title": section.title,
                "rows": {
                    row.name.strip(): {name: round(value, 4) for name, value in row.figures().items()}
                    for row in section.rows
                },
                "targets": {
                    target.name: {
                        "value": round(target.value, 4),
                        "relation": target.relation,
                        "bound": target.bound,
                        "unit": target.unit,
                        "share": round(target.share, 4),
                        "met": target.met,
                    }
                    for target in section.targets
                },
                "notes": {name: round(value, 5) for name, value in section.notes.items()},
                "not_measured": section.missing,
            }
            for section in sections
        },
    }
