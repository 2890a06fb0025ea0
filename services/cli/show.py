"""Results for people: a table that grows row by row, and progress while they wait."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, Self

from services.cli.output import complain, encodable, has, printable
from services.cli.pace import Pace, shown_rate, span
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import Genre, Mood, Status, TrackResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.text import Text

_GAP: Final = "  "
_NARROWEST_NAME: Final = 12
#: Where standard output has no width to keep to, longer names push their own row to the right.
_WIDEST_NAME: Final = 100
#: Columns for the name of the last track beside the bar.
_BAR_NAME: Final = 24
#: Columns beside the name: heading, width, side. ``jazz 100%``, or ``jazz? 49%``.
_Column = tuple[str, int, Literal["left", "right"]]
_ANSWER: Final[tuple[_Column, ...]] = (
    ("length", 6, "right"),
    ("genre", max(map(len, GENRES)) + len(" 100%"), "left"),
    ("agree", 5, "right"),
    ("mood", max(map(len, MOODS)) + len(" 100%"), "left"),
    ("from", len("spotify"), "left"),
    ("status", len("partial"), "left"),
)
#: What is left out where the terminal is narrow, the first first: the name gives way first, the answer never.
_GIVES_WAY: Final = ("from", "agree", "length")
#: If one of so many tags names the genre, the track is of it.
_TAGS_THAT_NAME_IT: Final = 2
#: Tags that describe a track of none of the genres.
_TAGS_SHOWN: Final = 4
_STYLES: Final = {Status.OK: "green", Status.PARTIAL: "yellow", Status.FAILED: "red"}


class Board:
    """What a person sees of a run: the rows of the table on standard output as they come, and a bar below them.

    The bar is shown where a terminal is, and ``bar`` allows it. ``names`` are those of the tracks that are to come, or
    None if nobody knows them.
    """

    def __init__(self, names: Sequence[str] | None, rows: bool, bar: bool) -> None:
        from rich.console import Console

        self._total = None if names is None else len(names)
        self._done = self._ok = self._failed = 0
        self._pace = Pace()
        self._console: Console | None = Console(highlight=False, soft_wrap=True) if rows else None
        self._columns, self._name_width = _layout(names, _width())
        self._headed = False
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if bar and names is not None:
            self._bar, self._task = _progress(self._console, len(names))

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No bar from here on."""
        if self._bar is not None:
            self._bar.stop()

    def add(self, result: TrackResult, shown: bool = True, known: bool = False) -> None:
        """One more result. It has a row if it is ``shown``; if it is ``known``, it took no time."""
        self._done += 1
        self._ok += result.status is Status.OK
        self._failed += result.status is Status.FAILED
        if not known:
            self._pace.add()
        self._advance(result)
        if self._console is None or not shown:
            return
        if not self._headed:
            self._headed = True
            self._print(self._heading())
        self._print(self._row(result))
        if remark := _remark(result):
            self._print(_text(encodable(f"{_GAP}{remark}"), "yellow"))
        for fault in result.errors:
            said = f"{_GAP}{fault.code.value} ({fault.stage.value}): {fault.message}"
            self._print(_text(encodable(printable(said))))

    def note(self, lines: Sequence[str]) -> None:
        """Lines below the row of the last result; without rows, on standard error."""
        for line in lines:
            if self._console is None:
                complain(line.strip())
            else:
                self._print(_text(encodable(printable(line))))

    def summary(self) -> str:
        """How many of the tracks are done, and well."""
        if self._total is None:
            return f"{self._done} track{'' if self._done == 1 else 's'} done, {self._ok} ok"
        if self._done == self._total:
            return f"{self._ok} of {self._total} tracks ok"
        return f"{self._done} of {self._total} tracks done, {self._ok} ok"

    def close(self, remarks: Iterable[str] = ()) -> None:
        """Print the summary, if there may be more than one track, and the remarks below it."""
        if self._console is not None and self._total != 1:
            print(self.summary(), flush=True)
        if self._console is not None:
            for remark in remarks:
                print(remark, flush=True)

    def _advance(self, result: TrackResult) -> None:
        if self._bar is None or self._task is None or self._total is None:
            return
        from rich.markup import escape

        rate, left = self._pace.rate, self._pace.left_s(self._total - self._done)
        self._bar.update(
            self._task,
            advance=1,
            description=escape(_fitted(_name(result), _BAR_NAME)),
            left="" if rate is None or left is None else f"{shown_rate(rate)}, {span(left)} left",
            failed=f"{self._failed} failed" if self._failed else "",
        )

    def _print(self, text: Text) -> None:
        if self._console is not None and self._console.is_terminal:
            self._console.print(text)
        else:
            # What an interrupted rich has in its buffer it would print again.
            print(text.plain, flush=True)

    def _heading(self) -> Text:
        cells = [_padded("track", self._name_width), *(_side(name, width, side) for name, width, side in self._columns)]
        return _text(_GAP.join(cells).rstrip(), "bold")

    def _row(self, result: TrackResult) -> Text:
        genre, mood = result.genre, result.mood
        cells = {
            "length": _length(result.track.duration_s),
            "genre": _answer(genre),
            "agree": "" if genre is None else f"{genre.agreement:.0%}",
            "mood": _answer(mood),
            "from": "" if mood is None else mood.source,
        }
        name = _name(result) if _width() is None else _fitted(_name(result), self._name_width)
        shown = [_padded(name, self._name_width)]
        shown += [_side(cells[name], width, side) for name, width, side in self._columns if name in cells]
        row = _text(_GAP.join(shown) + _GAP)
        row.append(result.status.value, _STYLES[result.status])
        return row


def _progress(console: Console | None, total: int) -> tuple[Progress | None, TaskID | None]:
    """A bar on the console of the rows, if that is a terminal, else on standard error; none if neither is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if console is None or not console.is_terminal:
        if not sys.stderr.isatty() or (console is None and sys.stdout.isatty()):
            return None, None
        console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[failed]}", style=_STYLES[Status.FAILED]),
    )
    # Not redirected: rich would print on the bar's terminal what is meant for the file behind standard output.
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False, expand=True)
    return bar, bar.add_task("starting", total=total, left="", failed="")


def terminal_width() -> int | None:
    """Columns of the terminal on standard output; None if it is none."""
    return _width()


def _width() -> int | None:
    """Columns of the terminal on standard output; None if it is none."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else None


def _layout(names: Sequence[str] | None, width: int | None) -> tuple[list[_Column], int]:
    """The columns beside the name that have room, and the width of the name."""
    widths = [_WIDEST_NAME] if names is None else [_cells(encodable(printable(name))) for name in names]
    wanted = max(_NARROWEST_NAME, *widths)
    columns = list(_ANSWER)
    if width is None:
        return columns, min(wanted, _WIDEST_NAME)
    for name in ("", *_GIVES_WAY):
        columns = [column for column in columns if column[0] != name]
        room = width - sum(len(_GAP) + column[1] for column in columns)
        if room >= _NARROWEST_NAME:
            break
    return columns, min(wanted, max(room, _NARROWEST_NAME))


def line(result: TrackResult) -> str:
    """One result as a line of text, for a terminal that follows."""
    why = "; ".join(f"{error.code.value}: {error.message}" for error in result.errors)
    parts = (result.request_id, result.status.value, _name(result), _answer(result.genre), _answer(result.mood))
    return "\t".join(part for part in (*parts, _remark(result), printable(why)) if part)


def _name(result: TrackResult) -> str:
    """A file is known by its path; what came from the web by artist and title, if they are known."""
    track = result.track
    if track.title is None or track.key.startswith(("blob:", "input:")):
        return encodable(printable(track.source))
    dash = "–" if has("–") else "-"
    return encodable(printable(f"{track.artist} {dash} {track.title}" if track.artist else track.title))


def _remark(result: TrackResult) -> str:
    """What the labels do not say: that there is no music, or music of another kind."""
    content = result.content
    if content is not None and content.label != "music":
        return f"no music? {'speech' if content.label == 'speech' else 'other sounds'} {content.confidence:.0%}"
    genre = result.genre
    if genre is None or genre.fit is None or not genre.fit.outside:
        return ""
    if any(genre.label in tag.label.replace("-", "") for tag in result.tags[:_TAGS_THAT_NAME_IT]):
        return ""  # far from the usual, and of the genre all the same: death metal
    tags = ", ".join(printable(tag.label) for tag in result.tags[:_TAGS_SHOWN])
    return f"none of the ten? {tags}" if tags else "none of the ten?"


def _answer(half: Genre | Mood | None) -> str:
    """``jazz 81%``; ``jazz? 31%`` where that is a guess."""
    if half is None:
        return "–" if has("–") else "-"
    return f"{half.label}{'?' if half.uncertain else ''} {half.confidence:.0%}"


def _length(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _fitted(text: str, width: int) -> str:
    """``text`` in ``width`` columns at most: its end tells more than its beginning."""
    if _cells(text) <= width:
        return text
    mark = "…" if has("…") else "..."
    while text and _cells(text) > width - len(mark):
        text = text[1:]
    return mark + text


def _side(text: str, width: int, side: Literal["left", "right"]) -> str:
    return text.rjust(width) if side == "right" else text.ljust(width)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))


def _cells(text: str) -> int:
    """Columns of a terminal that ``text`` takes: many characters of Asia take two."""
    from rich.cells import cell_len

    return cell_len(text)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)
