"""Results for people: a table, and progress while they wait."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from shared.contracts.messages import Genre, Mood, Status, TrackResult


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
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("track", overflow="ellipsis", no_wrap=True, ratio=3 if console.is_terminal else None)
    shown.add_column("length", justify="right")
    shown.add_column("genre")
    shown.add_column("agree", justify="right")
    shown.add_column("mood")
    shown.add_column("mood from")
    shown.add_column("status")
    for result in results:
        shown.add_row(
            Text(_name(result)),
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


def line(result: TrackResult) -> str:
    """One result as a line of text, for a terminal that follows."""
    why = "; ".join(f"{error.code.value}: {error.message}" for error in result.errors)
    parts = (result.request_id, result.status.value, _name(result), _answer(result.genre), _answer(result.mood), why)
    return "\t".join(part for part in parts if part)


def _name(result: TrackResult) -> str:
    source = _printable(result.track.source)
    if result.track.title is None:
        return source
    artist = f"{result.track.artist} – " if result.track.artist else ""
    return f"{_printable(artist + result.track.title)} ({source})"


def _answer(half: Genre | Mood | None) -> str:
    return "–" if half is None else f"{half.label} {half.confidence:.0%}"


def _length(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _short(text: str, length: int) -> str:
    text = _printable(text)
    return text if len(text) <= length else "…" + text[-(length - 1) :]


def _printable(text: str) -> str:
    """Names of files may hold anything, control sequences for the terminal included."""
    return "".join(character if character.isprintable() else "�" for character in text)
