"""The picture of a track: its answer, the segments along time, the ten audio features, and the plane of moods."""

from __future__ import annotations

import functools
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from services.cli.answer import Answer
from shared.contracts.messages import Genre, Mood, TrackResult

#: Inches, and dots an inch: 1,320 by 880 pixels.
_SIZE: Final = (12.0, 8.0)
_DOTS: Final = 110
_INK: Final = "#22252b"
_QUIET: Final = "#7a808c"
_LINE: Final = "#d9dce2"
_PAPER: Final = "#ffffff"
_PANEL: Final = "#f6f7f9"
_ENERGY: Final = "#d1495b"
_VALENCE: Final = "#00798c"
_BAR: Final = "#5b7db1"
_SILENT: Final = "#c3c7cf"
#: A shorter rest, in seconds, is no whole segment.
_SHORTEST_GAP_S: Final = 3.0
#: Genres that are often confused have colours far apart.
_GENRES: Final = {
    "blues": "#3b6fb6", "classical": "#c9a227", "country": "#b5793a", "disco": "#d65fa9", "hiphop": "#7a4fa3",
    "jazz": "#1f9e89", "metal": "#4a4e57", "pop": "#f2708a", "reggae": "#6aa84f", "rock": "#c0392b",
}  # fmt: skip
_MOODS: Final = {"calm": "#1f9e89", "energetic": "#d1495b", "happy": "#e3a008", "sad": "#3b6fb6"}
#: Fonts with the scripts that the first one lacks, as Linux, macOS and Windows name them. Those installed are used.
_FONTS: Final = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR",
    "Source Han Sans", "IPAGothic", "IPAexGothic", "TakaoPGothic", "VL PGothic", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo",
    "Arial Unicode MS", "Yu Gothic", "Meiryo", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Unifont", "Noto Emoji", "Symbola",
)  # fmt: skip
_LONGEST_TITLE: Final = 62
_LONGEST_LINE: Final = 125
#: Where text begins, as a share of the width; and the mood beside the genre.
_LEFT: Final = 0.06
_MOOD: Final = 0.3
#: A segment is drawn at least this wide, as a share of the track; else those of a long mix could not be seen.
_NARROWEST: Final = 0.004


@dataclass(frozen=True, slots=True)
class _Feature:
    """How a feature is shown: its name, the ends of its bar, its unit."""

    name: str
    low: float = 0.0
    high: float = 1.0
    unit: str = ""


_FEATURES: Final = (
    _Feature("energy"),
    _Feature("valence"),
    _Feature("danceability"),
    _Feature("acousticness"),
    _Feature("instrumentalness"),
    _Feature("liveness"),
    _Feature("speechiness"),
    _Feature("tempo", 40.0, 220.0, "BPM"),
    _Feature("loudness", -60.0, 0.0, "dB"),
    _Feature("duration_ms", 0.0, 600_000.0),
)


def png(answer: Answer) -> bytes:
    """The picture as PNG, 1,320 by 880 pixels."""
    style = _style()
    with warnings.catch_warnings(), rc_context(style):
        # A script without a font shows as boxes. matplotlib would print a line for each sign.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph .* missing from")
        figure = Figure(figsize=_SIZE, dpi=_DOTS, facecolor=_PAPER)
        canvas = FigureCanvasAgg(figure)
        _headline(figure, answer)
        _timeline(figure.add_axes((0.06, 0.47, 0.905, 0.245)), answer.result)
        _features(figure.add_axes((0.155, 0.06, 0.395, 0.33)), answer.result)
        _mood_plane(figure.add_axes((0.625, 0.06, 0.34, 0.33)), answer.result.mood)
        drawn = io.BytesIO()
        canvas.print_figure(
            drawn,
            format="png",
            dpi=_DOTS,
            facecolor=_PAPER,
            metadata={"Title": answer.row.title or answer.row.source, "Software": "Tonestream"},
        )
    return drawn.getvalue()


@functools.cache
def _style() -> dict[Any, Any]:
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return {
        "font.family": [name for name in _FONTS if name in installed],
        "font.size": 10,
        "text.color": _INK,
        "text.parse_math": False,  # a dollar sign in a title begins no formula
    }


def _headline(figure: Figure, answer: Answer) -> None:
    """Title and facts; genre and mood side by side; what supports them."""
    row, result = answer.row, answer.result
    genre, mood = result.genre, result.mood
    figure.text(
        _LEFT,
        0.95,
        _short(row.title or Path(row.source).name or row.source, _LONGEST_TITLE),
        size=20,
        weight="bold",
        va="center",
    )
    facts = [row.artist, _length(row.duration_s), row.key, None if row.bpm is None else f"{row.bpm:.0f} BPM"]
    _quiet(figure, 0.905, _joined(facts), size=11.5)
    for x, half, colours in ((_LEFT, genre, _GENRES), (_MOOD, mood, _MOODS)):
        if half is None:
            figure.text(x, 0.85, "no mood" if x == _MOOD else "no genre", size=17, color=_QUIET, va="center")
            continue
        label = f"{half.label}{'?' if half.uncertain else ''} {half.confidence:.0%}"
        figure.text(x, 0.85, label, size=18, weight="bold", color=colours.get(half.label, _INK), va="center")
    _quiet(figure, 0.81, "" if genre is None else _beside_genre(genre, bool(result.none_of_the_ten)))
    tags = ", ".join(tag.label for tag in result.tags)
    content = result.content
    speech = f"no music? {content.label} {content.confidence:.0%}" if content and content.label != "music" else None
    _quiet(figure, 0.78, _joined([speech, f"heard: {tags}" if tags else None]))


def _quiet(figure: Figure, y: float, text: str, size: float = 10) -> None:
    figure.text(_LEFT, y, _short(text, _LONGEST_LINE), size=size, color=_QUIET, va="center")


def _joined(parts: Sequence[str | None]) -> str:
    return "   ·   ".join(part for part in parts if part)


def _beside_genre(genre: Genre, none_of_the_ten: bool) -> str:
    others = ", ".join(f"{one.label} {one.confidence:.0%}" for one in genre.alternatives if one.confidence >= 0.005)
    parts = [f"then {others}"] if others else []
    parts.append(f"{genre.agreement:.0%} of segments agree")
    if genre.fit is not None:
        parts.append("none of the ten?" if none_of_the_ten else f"fit {genre.fit.probability:.0%}")
    return _joined(parts)


def _timeline(axes: Axes, result: TrackResult) -> None:
    """Segments at their time: height is confidence, colour is genre; over them energy and valence."""
    genre, mood = result.genre, result.mood
    ends = [one.end_s for half in (genre, mood) if half is not None for one in half.segments]
    length = max([result.track.duration_s or 0.0, *ends, 1.0])
    _panel(axes)
    axes.set_title("segments", loc="left", size=11, color=_INK, pad=9)
    axes.set_ylabel("confidence", size=9, color=_QUIET, labelpad=1)
    axes.set_xlim(0, length)
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    step = _step(length)
    marks = [step * number for number in range(int(length / step) + 1)]
    axes.set_xticks(marks, [_length(mark) for mark in marks])
    keys: list[Patch | Line2D] = []
    keys += _gaps(axes, result, length)
    if genre is not None:
        for one in genre.segments:
            width = max(one.end_s - one.start_s, _NARROWEST * length)
            axes.add_patch(
                Rectangle(
                    (one.start_s, 0), width, one.confidence, facecolor=_GENRES.get(one.label, _QUIET),
                    edgecolor=_PANEL, linewidth=0.8, alpha=0.82,
                )
            )  # fmt: skip
        seen = dict.fromkeys(one.label for one in genre.segments)
        keys += [Patch(color=_GENRES.get(label, _QUIET), label=label) for label in seen]
    if mood is not None and mood.segments:
        middles = [(one.start_s + one.end_s) / 2 for one in mood.segments]
        for name, colour in (("energy", _ENERGY), ("valence", _VALENCE)):
            values = [getattr(one, name) for one in mood.segments]
            # The white line below keeps the curve apart from a bar of a like colour.
            axes.plot(middles, values, color=_PAPER, linewidth=4.2, solid_capstyle="round")
            axes.plot(middles, values, color=colour, linewidth=2.2, marker="o", markersize=4, solid_capstyle="round")
            keys.append(Line2D([], [], color=colour, linewidth=2.2, marker="o", markersize=4, label=name))
    if keys:
        axes.legend(
            handles=keys, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(keys), frameon=False, fontsize=9.5,
            handlelength=1.3, handletextpad=0.5, columnspacing=1.2, borderaxespad=0.2,
        )  # fmt: skip


def _gaps(axes: Axes, result: TrackResult, length: float) -> list[Patch]:
    """Grey where the track is silent, hatched where it was not heard; returns their keys. Nothing if the answer does
    not say which is which."""
    silences = result.track.silences
    if silences is None or result.genre is None:
        return []
    heard = [(one.start_s, one.end_s) for one in result.genre.segments]
    silent = [(one.start_s, min(one.end_s, length)) for one in silences]
    keys = []
    if silent:
        keys.append(_spans(axes, silent, label="silent", facecolor=_SILENT, linewidth=0))
    gaps, end = [], 0.0
    for start, until in [*sorted([*heard, *silent]), (length, length)]:
        if start - end >= _SHORTEST_GAP_S:
            gaps.append((end, start))
        end = max(end, until)
    if gaps:
        keys.append(_spans(axes, gaps, label="not heard", facecolor="none", edgecolor=_LINE, hatch="////", linewidth=0))
    return keys


def _spans(axes: Axes, parts: Sequence[tuple[float, float]], label: str, **look: Any) -> Patch:
    """Draw the parts of the track from bottom to top; returns their key."""
    for start, end in parts:
        axes.add_patch(Rectangle((start, 0), end - start, 1.04, **look))
    return Patch(label=label, **look)


def _features(axes: Axes, result: TrackResult) -> None:
    _panel(axes)
    axes.set_title("audio features", loc="left", size=11, color=_INK, pad=9)
    axes.set_xlim(0, 1.24)
    axes.set_ylim(len(_FEATURES) - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks(range(len(_FEATURES)), [_shown(feature) for feature in _FEATURES], size=10)
    features = result.audio_features
    for place, feature in enumerate(_FEATURES):
        axes.barh(place, 1.0, height=0.56, color=_LINE, alpha=0.6)
        if features is None:
            continue
        value = float(getattr(features, feature.name))
        share = min(max((value - feature.low) / (feature.high - feature.low), 0.0), 1.0)
        colour = {"energy": _ENERGY, "valence": _VALENCE}.get(feature.name, _BAR)
        if feature.name != "tempo" or value:
            axes.barh(place, share, height=0.56, color=colour)
        axes.text(1.225, place, _value(feature, value), size=10, va="center", ha="right")
    if features is None:
        axes.text(0.5, (len(_FEATURES) - 1) / 2, "not measured", size=12, color=_QUIET, ha="center", va="center")


def _mood_plane(axes: Axes, mood: Mood | None) -> None:
    """Energy over valence: the track as a large dot, its segments as small ones in the order of time."""
    _panel(axes)
    axes.set_title("mood plane", loc="left", size=11, color=_INK, pad=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "valence", "1"], color=_QUIET)
    axes.set_yticks([0, 0.5, 1], ["0", "energy", "1"], color=_QUIET, rotation=90, va="center")
    axes.axhline(0.5, color=_LINE, linewidth=1)
    axes.axvline(0.5, color=_LINE, linewidth=1)
    corners = {"tense": (0.03, 0.96, "left", "top"), "lively": (0.97, 0.96, "right", "top"),
               "gloomy": (0.03, 0.04, "left", "bottom"), "relaxed": (0.97, 0.04, "right", "bottom")}  # fmt: skip
    for name, (x, y, side, height) in corners.items():
        axes.text(x, y, name, size=9.5, color=_QUIET, ha=side, va=height, style="italic")
    if mood is None:
        return
    if mood.segments:
        across, up = [one.valence for one in mood.segments], [one.energy for one in mood.segments]
        axes.plot(across, up, color=_QUIET, linewidth=0.9, alpha=0.55)
        colours = [_MOODS.get(one.label, _QUIET) for one in mood.segments]
        axes.scatter(across, up, s=26, c=colours, alpha=0.8, edgecolors=_PANEL, linewidths=0.6, zorder=3)
    x, y = mood.features["valence"], mood.features["energy"]
    axes.scatter([x], [y], s=230, c=[_MOODS.get(mood.label, _INK)], edgecolors=_INK, linewidths=1.6, zorder=4)
    side = "right" if x > 0.75 else "left"
    axes.text( x + (-0.04 if side == "right" else 0.04), y, mood.label, size=11, weight="bold", ha=side, va="center",
        zorder=5, bbox={"facecolor": _PANEL, "edgecolor": "none", "alpha": 0.75, "pad": 1.5},
    )  # fmt: skip


def _panel(axes: Axes) -> None:
    axes.set_facecolor(_PANEL)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelcolor=_INK, pad=5)


def _shown(feature: _Feature) -> str:
    return "duration" if feature.name == "duration_ms" else feature.name


def _value(feature: _Feature, value: float) -> str:
    if feature.name == "duration_ms":
        return _length(value / 1000)
    if feature.name == "tempo" and not value:
        return "no beat"
    return f"{value:.0f} {feature.unit}" if feature.unit else f"{value:.2f}"


def _step(length: float) -> float:
    """The time between two marks, in seconds: about eight to twelve of them."""
    steps: Sequence[float] = (2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
    return next((step for step in steps if length / step <= 12), 3600)


def _length(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02d}"


def _short(text: str, most: int) -> str:
    """One printable line of at most so many columns; wide signs take two."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    shown = ""
    width = 0
    for sign in plain:
        width += 2 if sign > "\u2e80" else 1
        if width > most:
            return f"{shown}…"
        shown += sign
    return shown
