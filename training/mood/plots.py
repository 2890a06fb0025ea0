"""The plots of a mood model, drawn from the figures in its manifest."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from shared.contracts.labels import MOODS
from training.reports.figures import Interval, ListenerFigures, MoodFigures
from training.reports.plots import accuracy_of, draw_confusion, draw_reliability, save_plots


def write_plots(folder: Path, title: str, figures: MoodFigures) -> list[Path]:
    """Write both plots into ``folder``: for Spotify's features and, if ``figures`` has them, for measured ones.

    Returns their paths.
    """
    audio = figures.audio
    return save_plots(folder, _confusion_plot(title, figures, audio), _reliability_plot(title, figures, audio))


def _confusion_plot(title: str, spotify: MoodFigures, audio: ListenerFigures | None) -> Figure:
    """Counts of tracks, with the truth in rows and the answers in columns."""
    plot = Figure(figsize=(12 if audio else 6, 5.2), layout="constrained")
    plot.suptitle(title)
    left, *right = plot.subplots(1, 2 if audio else 1, squeeze=False)[0]
    draw_confusion(left, MOODS, spotify.confusion, "tracks")
    left.set_title(_heading("Spotify's features", "tracks", spotify.accuracy["all"].accuracy), fontsize="medium")
    if audio:
        draw_confusion(right[0], MOODS, audio.clear_confusion, f"clear clips, {audio.repeats} times")
        heading = _heading("Measured features", "clear clips", audio.clear_accuracy)
        right[0].set_title(heading, fontsize="medium")
    return plot


def _reliability_plot(title: str, spotify: MoodFigures, audio: ListenerFigures | None) -> Figure:
    """Share of right answers against confidence, before and after calibration, with the number of tracks below."""
    plot = Figure(figsize=(12 if audio else 6, 6.6), layout="constrained")
    plot.suptitle(title)
    (left, *right), (left_below, *right_below) = plot.subplots(
        2, 2 if audio else 1, squeeze=False, gridspec_kw={"height_ratios": (3, 1)}
    )
    draw_reliability(left, left_below, spotify.reliability, "tracks")
    left.set_title(_heading("Spotify's features", "tracks", spotify.accuracy["all"].accuracy), fontsize="medium")
    if audio:
        draw_reliability(right[0], right_below[0], audio.reliability, f"clips, {audio.repeats} times")
        right[0].set_title(_heading("Measured features", "all clips", audio.accuracy), fontsize="medium")
    return plot


def _heading(source: str, what: str, accuracy: Interval | None) -> str:
    return f"{source}\n{accuracy_of(what, accuracy)}" if accuracy else source
