"""Results as they come, whatever they come over.

An end gives an iterator of arrivals. Its first item is None: it has begun to listen.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts.messages import TrackResult


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result, and where a stream goes on after it."""

    result: TrackResult
    cursor: str | None
