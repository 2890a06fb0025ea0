"""The plots of a mood model, drawn from the figures that stand in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure

from shared.contracts.labels import MOODS
from training.plots import CONFUSION, RELIABILITY

matplotlib.use("agg")

_DPI: Final = 120
_BIN_WIDTH: Final = 0.1
_LOOKS: Final = {"before": ("#b8622c", "s", 0.25), "after": ("#1f5f99", "o", 0.75)}


def write_plots(folder: Path, title: str, figures: Mapping[str, Any]) -> list[Path]:
    """Write both plots into ``folder``; returns their paths."""
    drawn = {CONFUSION: confusion_plot(title, figures), RELIABILITY: reliability_plot(title, figures)}
    for name, plot in drawn.items():
        plot.savefig(folder / name, dpi=_DPI)
    return [folder / name for name in drawn]


def confusion_plot(title: str, figures: Mapping[str, Any]) -> Figure:
    """Counts of tracks, truth in rows and answers in columns; the colour is the share of the row."""
    counts = figures["confusion"]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    plot = Figure(figsize=(6, 5.4), layout="constrained")
    axes = plot.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            axes.text(x, y, str(count), ha="center", va="center", color="white" if shares[y][x] > 0.55 else "black")
    axes.set_xticks(range(len(MOODS)), MOODS)
    axes.set_yticks(range(len(MOODS)), [f"{mood} ({sum(row)})" for mood, row in zip(MOODS, counts, strict=True)])
    axes.set(xlabel="answer", ylabel="truth (tracks)", title=f"{title}\n{_accuracy(figures)}")
    plot.colorbar(image, ax=axes, label="share of the mood's tracks", shrink=0.8)
    return plot


def reliability_plot(title: str, figures: Mapping[str, Any]) -> Figure:
    """Share of right answers against confidence, before and after calibration, with the number of tracks below."""
    plot = Figure(figsize=(6, 6.6), layout="constrained")
    plot.suptitle(title)
    grid = plot.add_gridspec(2, 1, height_ratios=(3, 1))
    curves, counts = plot.add_subplot(grid[0]), plot.add_subplot(grid[1])
    curves.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    for when, (colour, marker, offset) in _LOOKS.items():
        bins = figures[f"reliability_{when}"]
        label = f"{when} calibration (error {figures[f'ece_{when}']:.3f})"
        confidence, right = ([one[name] for one in bins] for name in ("confidence", "accuracy"))
        curves.plot(confidence, right, color=colour, marker=marker, label=label)
        left = [(min(int(one["confidence"] / _BIN_WIDTH), 9) + offset) * _BIN_WIDTH for one in bins]
        bars = counts.bar(left, [one["count"] for one in bins], 0.45 * _BIN_WIDTH, color=colour)
        counts.bar_label(bars, fontsize="xx-small", padding=1)
    curves.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers")
    curves.set_title(_accuracy(figures), fontsize="medium")
    curves.grid(alpha=0.3)
    curves.legend(loc="upper left", fontsize="small")
    counts.set(xlim=(0, 1), xlabel="confidence", ylabel="tracks")
    counts.margins(y=0.2)
    return plot


def _accuracy(figures: Mapping[str, Any]) -> str:
    interval = figures["accuracy"]["all"]["accuracy"]
    return f"{interval['value']:.0%} of tracks right (95% interval {interval['low']:.0%} to {interval['high']:.0%})"
