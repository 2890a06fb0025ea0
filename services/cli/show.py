"""Results for people: a table, and progress while they wait."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from shared.contracts.messages import Genre, Mood, Status, TrackResult

#: Standard output that is no terminal has no width to keep to.
_WIDTH_OF_FILES: Final = 240
_ANSWER_COLUMNS: Final[tuple[tuple[str, Literal["left", "right"]], ...]] = (
    ("length", "right"),
    ("genre", "left"),
    ("agree", "right"),
    ("mood", "left"),
    ("from", "left"),
    ("status", "left"),
)
#: Columns the answers take with the gaps between them.
_ANSWER_WIDTH: Final = 66


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[[str], None]]:
    """Yields a function to call after each track with its name. Shows nothing where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda name: bar.update(task, advance=1, description=escape(_short(name, 40)))


def table(results: Sequence[TrackResult]) -> None:
    """One row a track on standard output; what went wrong stands below."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    shown = Table(box=None, pad_edge=False, header_style="bold")
    # Where the terminal is narrow the name gives way, never the answer.
    shown.add_column("track", overflow="ellipsis", no_wrap=True)
    for name, justify in _ANSWER_COLUMNS:
        shown.add_column(name, justify=justify, no_wrap=True, min_width=len(name))
    for result in results:
        shown.add_row(
            Text(_short_name(result, console.width - _ANSWER_WIDTH)),
            _length(result.track.duration_s),
            _answer(result.genre),
            "" if result.genre is None else f"{result.genre.agreement:.0%}",
            _answer(result.mood),
            "" if result.mood is None else result.mood.source,
            Text(result.status.value, style={"ok": "green", "partial": "yellow", "failed": "red"}[result.status.value]),
        )
    console.print(shown)
    for result in results:
        for error in result.errors:
            console.print(
                Text(f"{_name(result)}: {error.code.value} ({error.stage.value}): {error.message}"), soft_wrap=True
            )
    done = sum(result.status is Status.OK for result in results)
    if len(results) > 1:
        console.print(f"{done} of {len(results)} tracks ok")


def _short_name(result: TrackResult, width: int) -> str:
    """The track's name in ``width`` columns at most: its end tells more than its beginning."""
    name = _name(result)
    return name if len(name) <= max(width, 12) else "…" + name[-(max(width, 12) - 1) :]


def line(result: TrackResult) -> str:
    """One result as a line of text, for a terminal that follows."""
    why = "; ".join(f"{error.code.value}: {error.message}" for error in result.errors)
    parts = (result.request_id, result.status.value, _name(result), _answer(result.genre), _answer(result.mood), why)
    return "\t".join(part for part in parts if part)


def _name(result: TrackResult) -> str:
    """A file is known by its path; what came from the web by artist and title, where they are known."""
    track = result.track
    if track.title is None or track.key.startswith(("blob:", "input:")):
        return _printable(track.source)
    return _printable(f"{track.artist} – {track.title}" if track.artist else track.title)


def _answer(half: Genre | Mood | None) -> str:
    """``jazz 81%``; ``jazz? 31%`` where that is a guess."""
    return "–" if half is None else f"{half.label}{'?' if half.uncertain else ''} {half.confidence:.0%}"


def _length(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _short(text: str, length: int) -> str:
    text = _printable(text)
    return text if len(text) <= length else "…" + text[-(length - 1) :]


def _printable(text: str) -> str:
    """Names of files may hold anything, control sequences for the terminal included."""
    return "".join(character if character.isprintable() else "�" for character in text)
