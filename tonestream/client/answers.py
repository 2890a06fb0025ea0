"""What a client returns besides results: tickets, states, rows and problems. All are frozen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from shared.contracts.messages import TrackResult


@dataclass(frozen=True, slots=True)
class Ticket:
    """A submitted request. ``request_id`` is all that another process needs to wait for it.

    ``source`` is what was submitted. ``cursor``, over Kafka, is a place in the results topic before the result, so that
    waiting does not read older ones; None over HTTP, and if the caller chose the request ID, because its result may be
    there already.
    """

    request_id: str
    source: str = ""
    cursor: str | None = None


class _Answer(BaseModel):
    """Part of the HTTP API. A newer gateway may send more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Problem(_Answer):
    """Why a request was refused (RFC 9457). ``code`` is to branch on; ``status`` is HTTP's, 0 if none was sent."""

    code: str = "unknown"
    title: str = ""
    status: int = 0
    detail: str = ""
    type: str = "about:blank"
    request_id: str | None = None

    @property
    def sentence(self) -> str:
        """What to show a person."""
        return f"{self.detail or self.title or 'refused'} ({self.code})"


class TrackState(_Answer):
    """How far a request is: ``queued``, ``fetching``, ``listening``, ``ok``, ``partial`` or ``failed``."""

    request_id: str
    stage: str
    source: str = ""
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    timings: dict[str, float] | None = None
    result: TrackResult | None = None


class Row(_Answer):
    """One result as a row of the library. Numbers between 0 and 1 unless their name has a unit.

    ``bpm``: beats per minute. ``key``: such as ``F minor``. ``loudness``: dB relative to full scale. ``error``: the
    code of the first error. What a failed track lacks is None.
    """

    id: str
    source: str
    status: str
    title: str | None = None
    artist: str | None = None
    duration_s: float | None = None
    finished_at: datetime | None = None
    genre: str | None = None
    genre_confidence: float | None = None
    genre_uncertain: bool | None = None
    fit: float | None = None
    outside: bool | None = None
    mood: str | None = None
    mood_confidence: float | None = None
    mood_uncertain: bool | None = None
    bpm: float | None = None
    key: str | None = None
    key_confidence: float | None = None
    loudness: float | None = None
    energy: float | None = None
    valence: float | None = None
    danceability: float | None = None
    acousticness: float | None = None
    instrumentalness: float | None = None
    liveness: float | None = None
    speechiness: float | None = None
    content: str | None = None
    tags: tuple[str, ...] = ()
    error: str | None = None
    error_message: str | None = None


class Accepted(_Answer):
    """The gateway's answer to a submission."""

    request_id: str
    source: str = ""


class Page(_Answer):
    """One page of rows. ``next`` is the cursor of the page after it."""

    results: tuple[Row, ...]
    next: str | None = None
