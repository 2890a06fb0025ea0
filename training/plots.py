"""The plots of a model folder, drawn from the figures that stand in its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.contracts.labels import GENRES

matplotlib.use("agg")

CONFUSION: Final = "confusion.png"
RELIABILITY: Final = "reliability.png"

_DPI: Final = 120
_BEFORE: Final = "#b8622c"
_AFTER: Final = "#1f5f99"
_BIN_WIDTH: Final = 0.1


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
    plot = Figure(figsize=(8, 7.4), layout="constrained")
    axes = plot.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                axes.text(x, y, str(count), ha="center", va="center", color="white" if shares[y][x] > 0.55 else "black")
    axes.set_xticks(range(len(GENRES)), GENRES, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(GENRES)), [f"{genre} ({sum(row)})" for genre, row in zip(GENRES, counts, strict=True)])
    axes.set_xlabel("answer")
    axes.set_ylabel("truth (tracks)")
    axes.set_title(f"{title}\n{_accuracy('tracks', figures['track_accuracy'])}")
    plot.colorbar(image, ax=axes, label="share of the genre's tracks", shrink=0.8)
    return plot


def reliability_plot(title: str, figures: Mapping[str, Any]) -> Figure:
    """Share of right answers against confidence, for tracks and segments, before and after calibration, with counts."""
    plot = Figure(figsize=(10, 6.6), layout="constrained")
    plot.suptitle(title)
    grid = plot.add_gridspec(2, 2, height_ratios=(3, 1))
    for column, what in enumerate(("track", "segment")):
        curves, counts = plot.add_subplot(grid[0, column]), plot.add_subplot(grid[1, column])
        _draw_curves(curves, what, figures)
        _draw_counts(counts, what, figures)
    return plot


def _draw_curves(axes: Axes, what: str, figures: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    for when, colour, marker in (("before", _BEFORE, "s"), ("after", _AFTER, "o")):
        bins: Sequence[Mapping[str, float]] = figures[f"{what}_reliability_{when}"]
        error = figures[f"{what}_ece_{when}"]
        axes.plot(
            [one["confidence"] for one in bins],
            [one["accuracy"] for one in bins],
            color=colour,
            marker=marker,
            label=f"{when} calibration (error {error:.3f})",
        )
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="share of right answers")
    axes.grid(alpha=0.3)
    axes.set_title(_accuracy(f"{what}s", figures[f"{what}_accuracy"]), fontsize="medium")
    axes.legend(loc="best", fontsize="small")


def _draw_counts(axes: Axes, what: str, figures: Mapping[str, Any]) -> None:
    for when, colour, offset in (("before", _BEFORE, 0.25), ("after", _AFTER, 0.75)):
        bins: Sequence[Mapping[str, float]] = figures[f"{what}_reliability_{when}"]
        left = [min(int(one["confidence"] / _BIN_WIDTH), 9) * _BIN_WIDTH + offset * _BIN_WIDTH for one in bins]
        bars = axes.bar(left, [one["count"] for one in bins], 0.45 * _BIN_WIDTH, color=colour)
        axes.bar_label(bars, fontsize="xx-small", padding=1)
    axes.set(xlim=(0, 1), xlabel="confidence", ylabel=f"{what}s")
    axes.margins(y=0.2)


def _accuracy(what: str, interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.2f} of {what} right (95% interval {interval['low']:.2f} to {interval['high']:.2f})"
