"""Requests on their way to the pipeline: entered in the view, published, and entered only once."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.gateway.problems import GatewayCode, Problem, unavailable
from services.gateway.view import removal, requests
from services.gateway.view.database import Database, ViewUnavailableError
from services.gateway.view.records import fingerprint
from services.gateway.view.requests import Asked, Known, Published, TrackStage
from shared.bus.base import Bus, BusError, BusUnavailableError, Publisher
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import Topics
from shared.runtime import traces
from shared.runtime.envelope import outgoing

log = logging.getLogger(__name__)

#: How long a client waits for the bus to take its requests, in seconds.
_PUBLISH_S: Final = 8.0
#: Requests that are sent again at once after a restart.
_RESUMED_AT_ONCE: Final = 50
_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request that the pipeline has, or had before under the same ID (``repeated``)."""

    request_id: str
    source: str
    stage: TrackStage
    repeated: bool = False


class UnconfirmedError(Problem):
    """The broker did not say whether it has the requests. It may answer them yet, so they and their files are kept.

    They are published again until it does. A client that repeats them under the same ID gets the one answer.
    """

    def __init__(self, error: BusUnavailableError) -> None:
        super().__init__(
            GatewayCode.UNAVAILABLE,
            f"the broker has not confirmed the request, which is kept and sent again: {error}. "
            "Repeat it with the same Idempotency-Key",
        )


class Submissions:
    """Publishes requests. Safe from many threads."""

    def __init__(self, bus: Bus, topics: Topics, database: Database) -> None:
        self._bus = bus
        self._topics = topics
        self._database = database
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None
        self._closing = threading.Event()
        self._left_lock = threading.Lock()
        self._left: list[TrackRequest] = []
        self._resuming: threading.Thread | None = None

    def submit(self, wanted: Sequence[TrackRequest], fingerprints: Sequence[str] | None = None) -> list[Submitted]:
        """Have the requests answered. One whose ID is known is not published again.

        Raises Problem: conflict if an ID belongs to another request or to a removed one, unavailable if the bus takes
        nothing. Then nothing of it is entered. UnconfirmedError if the bus may have taken some: then all stay entered.
        """
        now = time.time()
        marks = [fingerprint(one) for one in wanted] if fingerprints is None else fingerprints
        asked = [Asked(request, mark, now) for request, mark in zip(wanted, marks, strict=True)]
        before = self._database.write(lambda connection: _entered(connection, asked))
        for one, known in zip(asked, before, strict=True):
            if known is not None and not known.asks_for(one):
                self._withdraw([other.request for other, had in zip(asked, before, strict=True) if had is None])
                raise Problem(
                    GatewayCode.CONFLICT,
                    f"the request ID {one.request.request_id!r} belongs to another request; use a new one",
                    request_id=one.request.request_id,
                )
        # A known one may not have been published: the process ended in between, or another thread is about to do it. A
        # request that is published twice is answered once.
        new = [
            one.request if known is None else known.spec or one.request
            for one, known in zip(asked, before, strict=True)
            if known is None or (known.published is Published.ENTERED and not known.stage.finished)
        ]
        try:
            self._publish_or_keep(new)
        except BusError as error:
            self._withdraw(new)
            raise unavailable(f"the request could not be published: {error}") from error
        self._confirm(new)
        return [
            Submitted(one.request.request_id, one.request.shown_source, TrackStage.QUEUED)
            if known is None
            else Submitted(known.request_id, known.source, known.stage, repeated=True)
            for one, known in zip(asked, before, strict=True)
        ]

    def resume(self, everything: bool) -> None:
        """Publish what an earlier process left unpublished, or ``everything`` that it left unfinished, in a thread of
        its own."""
        with self._database.reading() as connection:
            unfinished = requests.unfinished(connection)
        left = [known for known in unfinished if everything or known.published is Published.ENTERED]
        if everything:
            self._database.write(requests.queue_again)
        if left:
            log.info("%d requests of the last run go on", len(left))
            self._send_again([known.spec for known in left if known.spec is not None])

    def close(self) -> None:
        """Release the connection."""
        self._closing.set()
        with self._left_lock:
            resuming = self._resuming
        if resuming is not None:
            resuming.join(_PAUSE_S)
        with self._lock:
            if self._publisher is not None:
                self._publisher.close()
                self._publisher = None

    def _send_again(self, wanted: Sequence[TrackRequest]) -> None:
        """Publish them in a thread of its own, for as long as it takes."""
        with self._left_lock:
            self._left.extend(wanted)
            if self._resuming is None and self._left:
                self._resuming = threading.Thread(target=self._resume, name="resume", daemon=True)
                self._resuming.start()

    def _resume(self) -> None:
        while not self._closing.is_set():
            with self._left_lock:
                some = self._left[:_RESUMED_AT_ONCE]
                if not some:
                    self._resuming = None
                    return
            try:
                wanted = self._not_removed(some)
                self._publish(wanted, timeout_s=_PAUSE_S)
                self._confirm(wanted)
            except (BusError, ViewUnavailableError) as error:
                log.debug("the bus takes nothing at the moment: %s", error)
                self._closing.wait(_PAUSE_S)
            else:
                with self._left_lock:
                    del self._left[: len(some)]

    def _not_removed(self, waiting: Sequence[TrackRequest]) -> list[TrackRequest]:
        """Those that nobody has removed while they waited: their files are gone."""
        with self._database.reading() as connection:
            return [one for one in waiting if not removal.is_removed(connection, one.request_id)]

    def _publish_or_keep(self, wanted: Sequence[TrackRequest]) -> None:
        """Raises BusError if nothing was sent, UnconfirmedError if it may have been."""
        if not wanted:
            return
        self._connect()  # whatever fails here, nothing was sent
        try:
            self._publish(wanted)
        except BusUnavailableError as error:
            self._send_again(wanted)
            raise UnconfirmedError(error) from error

    def _publish(self, wanted: Sequence[TrackRequest], timeout_s: float = _PUBLISH_S) -> None:
        publisher = self._connect()
        records = [outgoing(self._topics, one) for one in wanted]
        with traces.sending(records) as traced:
            publisher.publish(traced, timeout_s)

    def _connect(self) -> Publisher:
        with self._lock:
            if self._publisher is None:
                self._publisher = self._bus.publisher()
            return self._publisher

    def _confirm(self, wanted: Sequence[TrackRequest]) -> None:
        ids = [one.request_id for one in wanted]
        self._database.write(lambda connection: requests.confirm(connection, ids, Published.ACKNOWLEDGED))

    def _withdraw(self, wanted: Sequence[TrackRequest]) -> None:
        try:
            self._database.write(lambda connection: requests.withdraw(connection, [one.request_id for one in wanted]))
        except ViewUnavailableError as error:
            log.warning("requests that were not published stay in the view: %s", error)


def _entered(connection: sqlite3.Connection, asked: Sequence[Asked]) -> list[Known | None]:
    """A job for the writer. Raises Problem (conflict)."""
    for one in asked:
        if removal.is_removed(connection, one.request.request_id):
            # The pipeline has answered this ID, and answers none twice.
            raise Problem(
                GatewayCode.CONFLICT,
                f"the request ID {one.request.request_id!r} belongs to a track that was removed; use a new one",
                request_id=one.request.request_id,
            )
    return requests.enter(connection, asked, Published.ENTERED)
