"""The plots of a model folder, drawn from the figures in its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.contracts.labels import GENRES
from training.reports.figures import GenreAnswers, Interval, Reliability

matplotlib.use("agg")

CONFUSION: Final = "confusion.png"
RELIABILITY: Final = "reliability.png"

_DPI: Final = 120
_BIN_WIDTH: Final = 0.1
#: Colour, marker and place within a bin.
_LOOKS: Final = {"before": ("#b8622c", "s", 0.25), "after": ("#1f5f99", "o", 0.75)}


def write_plots(folder: Path, title: str, figures: GenreAnswers) -> list[Path]:
    """Write both plots of a genre model into ``folder``; returns their paths."""
    return save_plots(folder, confusion_plot(title, figures), reliability_plot(title, figures))


def save_plots(folder: Path, confusion: Figure, reliability: Figure) -> list[Path]:
    """Write both plots of a model, of any kind, into ``folder``; returns their paths."""
    drawn = {CONFUSION: confusion, RELIABILITY: reliability}
    for name, plot in drawn.items():
        plot.savefig(folder / name, dpi=_DPI)
    return [folder / name for name in drawn]


def confusion_plot(title: str, figures: GenreAnswers) -> Figure:
    """Counts of tracks by genre, with the truth in rows and the answers in columns."""
    plot = Figure(figsize=(8, 7.4), layout="constrained")
    axes = plot.add_subplot()
    draw_confusion(axes, GENRES, figures.confusion, "tracks")
    axes.set_title(f"{title}\n{accuracy_of('tracks', figures.track_accuracy)}")
    return plot


def reliability_plot(title: str, figures: GenreAnswers) -> Figure:
    """Accuracy against confidence, for tracks and segments, before and after calibration, with counts."""
    plot = Figure(figsize=(10, 6.6), layout="constrained")
    plot.suptitle(title)
    grid = plot.add_gridspec(2, 2, height_ratios=(3, 1))
    for column, (what, reliability, accuracy) in enumerate(
        (
            ("tracks", figures.track_reliability, figures.track_accuracy),
            ("segments", figures.segment_reliability, figures.segment_accuracy),
        )
    ):
        curves, counts = plot.add_subplot(grid[0, column]), plot.add_subplot(grid[1, column])
        draw_reliability(curves, counts, reliability, what)
        curves.set_title(accuracy_of(what, accuracy), fontsize="medium")
    return plot


def draw_confusion(axes: Axes, labels: Sequence[str], confusion: Sequence[Sequence[int]], what: str) -> None:
    """``confusion`` counts ``what``, truth in rows and answers in columns; the colour is the share of the row."""
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for y, row in enumerate(confusion):
        for x, count in enumerate(row):
            if count:
                axes.text(x, y, str(count), ha="center", va="center", color="white" if shares[y][x] > 0.55 else "black")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), [f"{label} ({sum(row)})" for label, row in zip(labels, confusion, strict=True)])
    axes.set(xlabel="answer", ylabel=f"truth ({what})")
    if axes.figure is not None:
        axes.figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)


def draw_reliability(curves: Axes, counts: Axes, reliability: Reliability, what: str) -> None:
    """Accuracy against confidence, before and after calibration, and below it the number of ``what``."""
    curves.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    for when, bins, error in (
        ("before", reliability.reliability_before, reliability.ece_before),
        ("after", reliability.reliability_after, reliability.ece_after),
    ):
        colour, marker, place = _LOOKS[when]
        confidence, right = [one.confidence for one in bins], [one.accuracy for one in bins]
        label = f"{when} calibration (error {error:.3f})"
        curves.plot(confidence, right, color=colour, marker=marker, label=label)
        left = [(min(int(one / _BIN_WIDTH), 9) + place) * _BIN_WIDTH for one in confidence]
        bars = counts.bar(left, [one.count for one in bins], 0.45 * _BIN_WIDTH, color=colour)
        counts.bar_label(bars, fontsize="xx-small", padding=1)
    curves.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="share of right answers")
    curves.grid(alpha=0.3)
    curves.legend(loc="best", fontsize="small")
    counts.set(xlim=(0, 1), xlabel="confidence", ylabel=what)
    counts.margins(y=0.2)


def accuracy_of(what: str, interval: Interval) -> str:
    """The accuracy over ``what`` with its interval, for a title."""
    return f"{interval.value:.2f} of {what} right (95% interval {interval.low:.2f} to {interval.high:.2f})"
