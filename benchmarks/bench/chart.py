"""The findings as a picture: CPU by that of the embedded pipeline, and how much of each target is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.bench.findings import Section

_DPI: Final = 110
_GOOD, _BAD, _PLAIN = "#1f5f99", "#b8622c", "0.6"


def write_chart(file: Path, sections: Sequence[Section], title: str) -> None:
    """Write the PNG."""
    matplotlib.use("agg")
    ratios = [
        (f"{section.name}: {row.name.strip()}", row.times.median)
        for section in sections
        for row in section.rows
        if row.times is not None and row.times.median > 0
    ]
    targets = [(target.name, target.share, target.met) for section in sections for target in section.targets]
    height = 1.6 + 0.26 * max(len(ratios), len(targets), 4)
    plot = Figure(figsize=(15, height), layout="constrained")
    plot.suptitle(title)
    left, right = plot.subplots(1, 2)
    _bars(left, [name for name, _ in ratios], [value for _, value in ratios], [_PLAIN] * len(ratios))
    left.set_title('CPU a track; embedded and warm, in "eight" one by one, is 1')
    colours = [_GOOD if met else _BAD for _, _, met in targets]
    _bars(right, [name for name, _, _ in targets], [share for _, share, _ in targets], colours)
    right.set_title("share of the target that is used (at most 1)")
    plot.savefig(file, dpi=_DPI)


def _bars(axes: Axes, names: list[str], values: list[float], colours: list[str]) -> None:
    places = range(len(names))
    bars = axes.barh(places, values, color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
    axes.set_yticks(places, names, fontsize="small")
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=1)
    if values:
        axes.set_xscale("log")
    axes.margins(x=0.15)
