"""A result on its way to the outputs of a command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.library.row import Row
from services.library.store import Print
from shared.contracts.messages import TrackResult


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, and its row.

    ``place`` is the path or address that the track is played from, and ``file`` the local file, if it is one.
    ``print`` is the content that was heard, if it was noted for a store. ``known``: it was classified in an earlier
    run.
    """

    result: TrackResult
    row: Row
    place: str
    file: Path | None = None
    print: Print | None = None
    known: bool = False

    @classmethod
    def of(
        cls,
        result: TrackResult,
        finished_at: float,
        place: str,
        file: Path | None = None,
        print: Print | None = None,
        known: bool = False,
    ) -> Self:
        """``finished_at`` in seconds since 1970."""
        return cls(result, Row.of(result, finished_at), place, file, print, known)
