"""What happens to tracks, as it happens: a ring of the last events that any number of readers follow.

A reader has a place in the ring and no buffer of its own. One that is so slow that the ring has moved on is cut off; it
comes back with the ID of its last event and gets the answers since then from the view.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.gateway.view.records import Change
from services.library.row import Row

_KEPT: Final = 10_000
_ID: Final = re.compile(r"(\d{1,18})-(\d{1,18})")

EventName = Literal["track", "result", "removed", "reset"]


@dataclass(frozen=True, slots=True)
class Event:
    """``id`` is the number of the newest answer of the view, and a number that grows with every event, also over
    restarts: ``1042-1767312000123``. ``data`` is a JSON object."""

    id: str
    name: EventName
    request_id: str
    data: str


class FeedClosedError(Exception):
    """The gateway ends."""


class Feed:
    """Written by one thread, followed by tasks of one or more event loops."""

    def __init__(self, seq: int = 0) -> None:
        self._lock = threading.Lock()
        self._ring: deque[tuple[int, Event]] = deque(maxlen=_KEPT)
        self._seq = seq
        self._numbers = itertools.count(int(time.time() * 1000))
        self._last = next(self._numbers)
        self._sleepers: set[_Sleeper] = set()
        #: Who waits for the answer of one request.
        self._expecting: dict[str, set[_Sleeper]] = {}
        self._closed = False

    # Written

    def publish(self, changes: Sequence[Change]) -> None:
        """Show the changes to all that follow."""
        if not changes:
            return
        with self._lock:
            for change in changes:
                self._add("track", change.request_id, _track(change))
                if change.row is not None and change.seq is not None:
                    self._seq = max(self._seq, change.seq)
                    self._add("result", change.request_id, result_data(change.row))
            answered = {change.request_id for change in changes if change.row is not None}
            awake = list(self._sleepers)
            for request_id in answered & self._expecting.keys():
                awake += self._expecting[request_id]
        for sleeper in awake:
            sleeper.wake()

    def publish_removed(self, request_ids: Sequence[str]) -> None:
        """Tell all that follow which tracks are gone."""
        if not request_ids:
            return
        with self._lock:
            self._add("removed", "", json.dumps({"request_ids": list(request_ids)}))
            awake = list(self._sleepers)
            for request_id in request_ids:
                awake += self._expecting.get(request_id, ())
        for sleeper in awake:
            sleeper.wake()

    @property
    def followers(self) -> int:
        """How many readers follow."""
        with self._lock:
            return len(self._sleepers)

    def close(self) -> None:
        """End every reader, and all waiting."""
        with self._lock:
            self._closed = True
            awake = [*self._sleepers, *(one for expecting in self._expecting.values() for one in expecting)]
        for sleeper in awake:
            sleeper.wake()

    def _add(self, name: EventName, request_id: str, data: str) -> None:
        self._last = next(self._numbers)
        self._ring.append((self._last, Event(f"{self._seq}-{self._last}", name, request_id, data)))

    # Followed

    def now(self) -> int:
        """The place behind the newest event."""
        with self._lock:
            return self._last

    def id_now(self) -> str:
        """The ID of the place behind the newest event."""
        with self._lock:
            return f"{self._seq}-{self._last}"

    def place_of(self, event_id: str) -> tuple[int | None, int] | None:
        """Where the event of that ID is: its place if the ring still follows on it, and the newest answer that its
        reader knows. None for what is no ID."""
        found = _ID.fullmatch(event_id.strip())
        if found is None:
            return None
        seq, number = int(found[1]), int(found[2])
        with self._lock:
            oldest = self._ring[0][0] if self._ring else self._last + 1
            return (number if oldest - 1 <= number <= self._last else None), seq

    def after(self, place: int) -> list[tuple[int, Event]] | None:
        """The events behind ``place``; None if some of them have left the ring. Raises FeedClosedError."""
        with self._lock:
            if self._closed:
                raise FeedClosedError
            if place >= self._last:
                return []
            oldest = self._ring[0][0] if self._ring else self._last + 1
            if place < oldest - 1:
                return None
            return list(itertools.islice(self._ring, place - oldest + 1, None))

    async def follow(self, place: int) -> AsyncIterator[Event]:
        """The events behind ``place``, for as long as the reader keeps up and the gateway runs."""
        with self._sleeper() as sleeper:
            while True:
                sleeper.clear()
                try:
                    found = self.after(place)
                except FeedClosedError:
                    return
                if found is None:
                    return
                for number, event in found:
                    place = number
                    yield event
                if not found:
                    await sleeper.sleep()

    @contextlib.contextmanager
    def expecting(self, request_id: str) -> Iterator[Callable[[float], Awaitable[None]]]:
        """A function that returns when the request's answer has come since the block began, or the given seconds have
        passed, or the gateway ends."""
        sleeper = _Sleeper()
        with self._lock:
            expecting = self._expecting.setdefault(request_id, set())
            expecting.add(sleeper)
            if self._closed:
                sleeper.wake()
        try:
            yield sleeper.sleep_for
        finally:
            with self._lock:
                expecting.discard(sleeper)
                if not expecting:
                    self._expecting.pop(request_id, None)

    @contextlib.contextmanager
    def _sleeper(self) -> Iterator[_Sleeper]:
        sleeper = _Sleeper()
        with self._lock:
            self._sleepers.add(sleeper)
        try:
            yield sleeper
        finally:
            with self._lock:
                self._sleepers.discard(sleeper)


class _Sleeper:
    """A task that waits for the next event, woken from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        self._event.clear()

    async def sleep(self) -> None:
        await self._event.wait()

    async def sleep_for(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.sleep()


def result_data(row: Row) -> str:
    """The data of a ``result`` event."""
    return f'{{"request_id": {json.dumps(row.id)}, "row": {row.as_json()}}}'


def _track(change: Change) -> str:
    fields = {
        "request_id": change.request_id,
        "stage": change.stage.value,
        "source": change.source,
        "at": round(change.at, 3),
    }
    return json.dumps(fields, ensure_ascii=False)
