"""All that the gateway holds while it runs: the bus, the blob store, its view, and the thread that fills it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from services.gateway.feed import Feed
from services.gateway.follower import Follower
from services.gateway.heard import HeardAudio
from services.gateway.removals import Removals
from services.gateway.submissions import Submissions
from services.gateway.uploads import INCOMING
from services.gateway.view import records
from services.gateway.view.database import Database
from services.gateway.view.library_map import LibraryMap
from services.gateway.view.records import Change
from services.gateway.view.similar import Neighbours
from services.gateway.webhooks.service import Webhooks, beside
from shared.blobs.store import UPLOADS, BlobStore
from shared.bus.base import Bus
from shared.contracts.errors import ErrorCode
from shared.contracts.topics import Topics
from shared.runtime import metrics
from shared.settings import Settings

log = logging.getLogger(__name__)

Mode = Literal["embedded", "kafka"]

#: How long the start waits until the topics are read: at once in memory, later where Kafka is away, in seconds.
_ATTACH_S: Final = 3.0


class Gateway:
    """What ``create_app`` serves.

    ``mode`` says where the pipeline is: ``embedded`` in this process, whose bus forgets, or behind ``kafka``.
    ``pipeline_fault`` says why the pipeline of this process has stopped, or None. Raises ViewError.
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        blobs: BlobStore,
        view: Path,
        mode: Mode,
        pipeline_fault: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.bus = bus
        self.blobs = blobs
        self.mode = mode
        self.topics = Topics(settings.topic_prefix)
        #: Where uploads lie. Ingestion deletes what it has read from its own folder; the state of a pipeline in this
        #: process ends with it, so there an upload stays until its answer is in the view.
        self.uploads = INCOMING if mode == "embedded" else UPLOADS
        self.neighbours = Neighbours()
        self.library_map = LibraryMap()
        self._pipeline_fault = pipeline_fault
        self.database = Database(view)
        with self.database.reading() as connection:
            self.feed = Feed(records.last_seq(connection))
        remembers = mode == "kafka"
        try:
            self.webhooks = Webhooks.of(settings, beside(view), remembers)
        except BaseException:
            self.database.close()
            raise
        self.submissions = Submissions(bus, self.topics, self.database)
        self.heard = HeardAudio(settings, blobs, self.database)
        self.removals = Removals(settings, self.database, blobs, self.feed, self.neighbours, self.heard)
        self.follower = Follower(
            bus, self.topics, self.database, self.feed, remembers, self.webhooks.take, self._answered
        )

    def start(self) -> None:
        """Begin to follow the topics. What an earlier process accepted and did not publish is published; where the bus
        forgets, so is everything that it left unfinished."""
        metrics.begin(metrics.GATEWAY, version("tonestream"))
        self.webhooks.start()
        self.follower.start(_ATTACH_S)
        self.submissions.resume(everything=self.mode == "embedded")
        self.removals.start()

    def _answered(self, change: Change) -> None:
        """An upload that was heard is not needed any more. After a defect it stays for another try, until it
        expires."""
        if change.upload is not None and self.mode == "embedded" and change.error != ErrorCode.INTERNAL:
            self.removals.delete_upload(change.upload)

    def hang_up(self) -> None:
        """End all answers that wait for something."""
        self.feed.close()

    def close(self) -> None:
        """End the threads, and release the files."""
        self.hang_up()
        with contextlib.ExitStack() as stack:
            stack.callback(self.database.close)
            stack.callback(self.webhooks.close)
            stack.callback(self.heard.close)
            stack.callback(self.submissions.close)
            stack.callback(self.follower.stop)
            stack.callback(self.removals.stop)

    def dead_because(self) -> str | None:
        """Why no request can be answered any more; None if all is well, or may become so."""
        if not self.database.alive:
            return "the gateway is ending"
        if self.follower.dead:
            return "the thread that reads the topics has ended; restart the gateway"
        return self._pipeline_fault()

    def not_ready_because(self) -> str | None:
        """Why the gateway cannot do all of its work at the moment."""
        return self.dead_because() or self.follower.fault
