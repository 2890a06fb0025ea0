"""What came out of a run over many tracks, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from services.cli.answer import Answer
from services.cli.exports import Wishes
from services.cli.pace import shown_rate, span
from shared.contracts.messages import Status

#: A shorter list of tracks needs no summary: one sees it at a glance.
_MANY: Final = 10
_GAP: Final = "  "


class Tally:
    """Counts answers."""

    def __init__(self) -> None:
        self.done = self.known = self.not_ok = 0
        self._selected = self._failed_selected = 0
        self._genres: Counter[str] = Counter()
        self._moods: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def add(self, answer: Answer, selected: bool) -> None:
        """One more answer; ``selected``: the filter lets it through."""
        row = answer.row
        self.done += 1
        self.known += answer.known
        self.not_ok += row.status != Status.OK
        self._selected += selected
        self._failed_selected += selected and row.status == Status.FAILED
        self._genres.update([row.genre] if row.genre is not None else [])
        self._moods.update([row.mood] if row.mood is not None else [])
        self._errors.update({error.code.value for error in answer.result.errors})

    def left_out(self, wishes: Wishes) -> list[str]:
        """What a filter or a format left out, in sentences."""
        remarks = []
        if count := self.done - self._selected:
            remarks.append(f"{self._selected} shown, {count} left out by --where")
        if wishes.format == "m3u8" and self._failed_selected:
            remarks.append(f"{self._failed_selected} failed, and not in the playlist")
        return remarks

    def lines(self, seconds: float, width: int) -> Iterator[str]:
        """The summary of many tracks, none wider than ``width`` columns. ``seconds``: how long it took."""
        if self.done <= _MANY:
            return
        fresh = self.done - self.known
        if self.known:
            yield f"{self.known} classified before, {fresh} now"
        if fresh:
            yield f"{span(seconds)}, {shown_rate(fresh / max(seconds, 1e-3))}"
        for name, counted in (("genre", self._genres), ("mood", self._moods), ("error", self._errors)):
            parts = [f"{label} {count}" for label, count in sorted(counted.items(), key=lambda one: (-one[1], one[0]))]
            yield from _wrapped(name, parts, width)


def _wrapped(name: str, parts: Sequence[str], width: int) -> Iterator[str]:
    """``name`` and the parts on as few lines as they need, the parts one below the other."""
    indent = " " * (len("genre") + len(_GAP))
    line = name.ljust(len(indent))
    begun = False
    for part in parts:
        addition = f"{_GAP}{part}" if begun else part
        if begun and len(line) + len(addition) > width:
            yield line
            line, addition = indent, part
        line += addition
        begun = True
    if begun:
        yield line
