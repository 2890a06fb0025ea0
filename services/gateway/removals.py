"""Tracks leave: somebody removes them, or the library keeps no more. A thread does what may take long."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from services.gateway.feed import Feed
from services.gateway.heard import HeardAudio
from services.gateway.uploads import INCOMING
from services.gateway.view import removal, requests
from services.gateway.view.database import Database, ViewUnavailableError
from services.gateway.view.removal import Retention
from services.gateway.view.search import Wanted
from services.gateway.view.similar import Neighbours
from shared.blobs.store import BlobStore
from shared.contracts.errors import DependencyError
from shared.settings import Settings
from shared.state.audio import SharedAudio
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Requests

log = logging.getLogger(__name__)

#: Tracks that leave in one transaction: between two of them, whatever else is to be written gets its turn.
_AT_ONCE: Final = 100
#: How often the library is looked through, in seconds; also when somebody has removed something.
_LOOK_EVERY_S: Final = 60.0
#: How long to wait before the next try while the disk or Redis does not answer, and between two steps, in seconds.
_PAUSE_S: Final = 30.0
_BREATH_S: Final = 0.02
_STOP_S: Final = 2.0


class Removals:
    """Removes tracks from the view, and what was kept of them elsewhere. Safe from many threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        feed: Feed,
        neighbours: Neighbours,
        heard: HeardAudio,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._feed = feed
        self._neighbours = neighbours
        self._heard = heard
        self._retention = Retention(settings.library_keep_s, settings.library_keep_rows)
        self._remembered_s = max(removal.REMEMBERED_S, settings.state_ttl_s)
        self._audio: SharedAudio | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._started_at = time.time()
        self._thread = threading.Thread(target=self._run, name="removals", daemon=True)

    def start(self) -> None:
        """Begin to look after the library."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. One that waits for Redis is left to itself."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    # Removing

    def remove(self, request_ids: Sequence[str]) -> int:
        """Remove these requests, finished or not; returns how many there were. Raises ViewUnavailableError."""
        count = 0
        for start in range(0, len(request_ids), _AT_ONCE):
            some = request_ids[start : start + _AT_ONCE]
            job = partial(removal.remove, request_ids=some, now=time.time())
            removed = self._database.write(job)
            for upload in removed.uploads:
                self.delete_upload(upload)
            count += len(removed.ids)
            self._neighbours.forget_removed()
            self._feed.publish_removed(removed.ids)
        if count:
            self._wake.set()
        return count

    def remove_found(self, wanted: Wanted) -> int:
        """Remove all finished tracks that are wanted; returns how many. Raises ViewUnavailableError."""
        with self._database.reading() as connection:
            found = removal.found_ids(connection, wanted)
        return self.remove(found)

    def is_removed(self, request_id: str) -> bool:
        """Whether the request was removed not long ago. Raises ViewUnavailableError."""
        with self._database.reading() as connection:
            return removal.is_removed(connection, request_id)

    def delete_upload(self, reference: str) -> None:
        """Nobody waits for this upload any more."""
        try:
            self._blobs.delete(reference)
        except DependencyError as error:
            log.warning("an upload stays until it expires: %s", error)

    # In the background

    def _run(self) -> None:
        with contextlib.suppress(DependencyError, ViewUnavailableError):
            self._delete_left_uploads()
        while not self._stopping.is_set():
            self._wake.clear()
            pause_s = _LOOK_EVERY_S
            for step in (self._keep_no_more, self._forget_audio, self._expire, self._shrink):
                try:
                    step()
                except (DependencyError, ViewUnavailableError) as error:
                    log.debug("to be tried again: %s", error)
                    pause_s = _PAUSE_S
                except Exception:
                    log.exception("a defect where tracks are removed")
            self._wake.wait(pause_s)

    def _delete_left_uploads(self) -> None:
        """Delete uploads of an earlier process that nobody waits for: it ended between two steps."""
        with self._database.reading() as connection:
            needed = requests.uploads_needed(connection)
        for blob in self._blobs.listed(INCOMING):
            if blob.written_at < self._started_at and blob.reference not in needed:
                self._blobs.delete(blob.reference)

    def _keep_no_more(self) -> None:
        """Remove what is older, or more, than the library keeps."""
        while not self._stopping.is_set():
            with self._database.reading() as connection:
                surplus = self._retention.surplus(connection, time.time(), _AT_ONCE)
            if not surplus:
                return
            log.info("the library keeps no more: %d tracks leave", len(surplus))
            self.remove(surplus)
            self._stopping.wait(_BREATH_S)

    def _forget_audio(self) -> None:
        """Delete the audio that only removed tracks have heard, unless the pipeline needs it at the moment."""
        with self._database.reading() as connection:
            unneeded = removal.unneeded_audio(connection)
        for sha256 in unneeded:
            if self._stopping.is_set():
                return
            with self._database.reading() as connection:
                needed = removal.needed(connection, sha256)
            if not needed:
                self._heard.forget(sha256)
                if not self._kept().forget(sha256):
                    continue
            self._database.write(partial(removal.settle_audio, sha256=sha256))

    def _expire(self) -> None:
        self._database.write(partial(removal.expire_marks, before=time.time() - self._remembered_s))

    def _shrink(self) -> None:
        while not self._stopping.is_set() and self._database.shrink():
            self._stopping.wait(_BREATH_S)

    def _kept(self) -> SharedAudio:
        """What the pipeline keeps of what it heard. Raises DependencyError."""
        if self._audio is None:
            settings = self._settings
            state = Requests.open(
                connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix), "gateway",
                settings.state_ttl_s, settings.result_deadline_s,
            )  # fmt: skip
            self._audio = SharedAudio(self._blobs, state, settings.blob_ttl_s)
        return self._audio
