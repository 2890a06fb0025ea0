"""The one thread that reads the topics for all clients of the gateway."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from services.gateway.feed import Feed
from services.gateway.view import records
from services.gateway.view.database import Database, ViewUnavailableError
from services.gateway.view.records import Absorber, Change
from shared.bus.base import Bus, BusError, Reader, Record
from shared.contracts.topics import Channel, Topics

log = logging.getLogger(__name__)

#: Takes records, or raises ViewUnavailableError; then it gets them again.
Take = Callable[[Sequence[Record]], None]

#: What is read. Requests and tracks say how far a track is; results are the answers.
FOLLOWED: Final = (Channel.REQUESTS, Channel.REQUESTS_RETRY, Channel.TRACKS, Channel.RESULTS)
_AT_ONCE: Final = 200
_POLL_S: Final = 0.2
_PAUSE_S: Final = 1.0
_STOP_S: Final = 1.0
#: How often the broker is asked whether it is there while nothing comes, in seconds.
_ASK_EVERY_S: Final = 5.0


class Follower:
    """Reads from where the view ends, writes into it, and shows what changed. ``remembers``: the bus keeps records, so
    positions in it outlive this process. ``first`` gets all records before the view does; some come again.
    ``answered`` gets each answer once the view has it."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        database: Database,
        feed: Feed,
        remembers: bool,
        first: Take,
        answered: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self._bus = bus
        self._first = first
        self._answered = answered
        self._names = [topics.name(channel) for channel in FOLLOWED]
        self._database = database
        self._feed = feed
        self._remembers = remembers
        self._absorber = Absorber(topics)
        self._stopping = threading.Event()
        self._attached = threading.Event()
        self._caught_up = threading.Event()
        self._fault: str | None = "the gateway is starting"
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self, patience_s: float) -> None:
        """Begin, and wait at most so long until nothing can be missed."""
        self._thread.start()
        self._attached.wait(patience_s)

    def stop(self) -> None:
        """Ends the thread. One that is still trying to reach a broker is left to itself."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    @property
    def fault(self) -> str | None:
        """Why nothing is read at the moment."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set():
            return "the thread that reads the topics has ended"
        return self._fault

    @property
    def dead(self) -> bool:
        """Whether nothing will be read any more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def caught_up(self) -> bool:
        """Whether the view has once held everything that was on the topics."""
        return self._caught_up.is_set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (BusError, ViewUnavailableError) as error:
                self._pause(error)
            except Exception:
                log.exception("the topics are not read any more, because of a defect")
                return

    def _follow(self) -> None:
        """Read until something fails, or the end."""
        known = self._bus.existing(self._names)
        if missing := next((name for name in self._names if name not in known), None):
            raise BusError(f"there is no topic {missing!r}. `tonestream topics create` creates the topics")
        start = self._database.write(records.positions) if self._remembers else {}
        with self._bus.reader(self._names, positions=start) as reader:
            self._attached.set()
            self._fault = None
            heard = time.monotonic()
            while not self._stopping.is_set():
                found = reader.poll(_AT_ONCE, _POLL_S)
                if found:
                    self._keep(found)
                    heard = time.monotonic()
                elif not self._caught_up.is_set() or time.monotonic() - heard > _ASK_EVERY_S:
                    self._ask(reader)
                    heard = time.monotonic()

    def _keep(self, found: list[Record]) -> None:
        """Write the records into the view, however long it takes: the bus may not have them any more."""
        while True:
            try:
                self._first(found)
                changes = self._database.write(partial(self._absorber.absorb, records=found))
            except ViewUnavailableError as error:
                self._pause(error)
                if self._stopping.is_set():
                    raise
                continue
            self._fault = None
            self._feed.publish(changes)
            for change in changes:
                if change.row is not None:
                    self._answered(change)
            return

    def _pause(self, error: Exception) -> None:
        if str(error) != self._fault:
            log.warning("the topics are not read: %s", error)
        self._fault = str(error)
        self._stopping.wait(_PAUSE_S)

    def _ask(self, reader: Reader) -> None:
        """Raises BusError if the broker is away: polling alone would not say so."""
        if reader.at_end():
            self._caught_up.set()
