"""The whole pipeline inside one process: the same services and the same loop on the memory bus, on all cores."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from services.topology import build_services
from shared.blobs.store import UPLOADS, BlobStore
from shared.bus.base import Reader
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message
from shared.contracts.messages import Stage, TrackRequest, TrackResult
from shared.contracts.topics import Channel, Topics
from shared.runtime import traces
from shared.runtime.envelope import outgoing, salvaged_request_id
from shared.runtime.health import Pulse
from shared.runtime.loop import ServiceLoop
from shared.runtime.loops import LoopThread, loop_class
from shared.runtime.policy import LoopPolicy
from shared.runtime.service import AnyService
from shared.settings import Settings
from shared.state.connection import MEMORY_SCHEME
from shared.system.threads import worker_threads
from shared.system.work_folder import work_folder

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
#: How long a shared need, such as room for temporary files, may stop all tracks, in seconds.
_PATIENCE_S: Final = 20.0


class PipelineStoppedError(RuntimeError):
    """The services inside the process have stopped making progress. The message says why."""


class EmbeddedPipeline:
    """A context manager: services run in threads within the block.

    Blobs are in the folder ``blobs``, by default a temporary one. ``bus`` is for clients of the topics; whoever reads
    must go on reading, because the bus keeps every record until all readers have passed it. ``settings`` are those of
    the services, complete within the block. At its end, services that are busy are waited for at most ``stop_s``
    seconds.
    """

    def __init__(self, settings: Settings, blobs: Path | None = None, stop_s: float = 10.0) -> None:
        self.settings = settings
        self.bus = MemoryBus()
        self._blob_folder = blobs
        self._stop_s = stop_s
        self._topics = Topics(settings.topic_prefix)
        self._loops: list[ServiceLoop] = []
        self._threads: list[LoopThread] = []
        self._pulses: list[Pulse] = []
        self._ended = threading.Event()
        self._stuck_since: float | None = None
        self._exit = contextlib.ExitStack()
        self._reader: Reader | None = None
        self._retries: Reader | None = None
        self._blobs: BlobStore | None = None
        # Tracks in flight: enough to keep every core and the network busy, few enough to bound the disk.
        self.window = 4 * worker_threads(settings) + 4

    def __enter__(self) -> EmbeddedPipeline:
        with contextlib.ExitStack() as stack:
            folder = self._blob_folder or stack.enter_context(work_folder()) / "blobs"
            settings = self.settings.model_copy(
                update={
                    "blob_url": f"file://{folder}",
                    "redis_url": SecretStr(f"{MEMORY_SCHEME}{uuid.uuid4().hex}"),
                }
            )
            self.settings = settings
            self._blobs = BlobStore.of(settings)
            self.bus.create_topics(topic_specs(self._topics))
            services = self._build(settings)
            memberships = [
                self.bus.join(
                    self._topics.group(service.name), [self._topics.name(channel) for channel in service.inputs]
                )
                for service in services
            ]
            stack.callback(self._stop)
            for service, membership in zip(services, memberships, strict=True):
                policy = LoopPolicy(
                    batch_records=max(service.window(settings), self.window),
                    poll_s=_POLL_S,
                    retry_attempts=settings.retry_attempts,
                    retry_budget_s=settings.retry_budget_s,
                    keep_alive_s=None,
                    stop_grace_s=0.0,  # unanswered requests are abandoned
                )
                pulse = Pulse()
                loop = loop_class(service)(service, membership, self._topics, policy, pulse)
                thread = LoopThread(loop, service.name, self._ended)
                self._pulses.append(pulse)
                self._loops.append(loop)
                self._threads.append(thread)
                thread.start()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    @property
    def blobs(self) -> BlobStore:
        """The blob store of the services, within the block."""
        assert self._blobs is not None
        return self._blobs

    def upload(self, file: Path) -> str:
        """Put a local file where ingestion finds it, without a copy; returns the reference. Raises OSError."""
        assert self._blobs is not None
        with file.open("rb") as opened:  # errors of the file before errors of the store
            opened.read(1)
        return self._blobs.link(file, f"{UPLOADS}/{uuid.uuid4().hex}")

    def submit(self, request: TrackRequest) -> None:
        """Publish the request."""
        with self.bus.publisher() as publisher, traces.sending([outgoing(self._topics, request)]) as records:
            publisher.publish(records)

    def classify(self, requests: Iterable[TrackRequest | TrackResult | None]) -> Iterator[TrackResult]:
        """The results of ``requests``, in the order they finish.

        Requests are taken as there is room; slow sources take no room. A result among the requests is passed on. None
        among them means that the next one is not there yet, and is asked for again after a moment. Raises
        PipelineStoppedError instead of waiting for a dead service or a full disk.
        """
        if self._reader is None:  # before the first request, so that no result can be missed
            self._reader = self.bus.reader([self._topics.name(Channel.RESULTS)])
            self._retries = self.bus.reader([self._topics.name(Channel.REQUESTS_RETRY)])
        waiting: set[str] = set()
        slow: set[str] = set()
        source = iter(requests)
        exhausted = False
        while True:
            slow |= self._slow()
            while not exhausted and len(waiting - slow) < self.window:
                try:
                    request = next(source)
                except StopIteration:
                    exhausted = True
                    break
                if request is None:
                    break
                if isinstance(request, TrackResult):
                    yield request
                    continue
                waiting.add(request.request_id)
                self.submit(request)
            if exhausted and not waiting:
                return
            for result in self._results():
                if result.request_id in waiting:
                    waiting.remove(result.request_id)
                    yield result

    def _results(self) -> list[TrackResult]:
        """The results that have arrived; empty after a short wait."""
        assert self._reader is not None
        results = [decode_message(Channel.RESULTS, record.value) for record in self._reader.poll(100, _POLL_S)]
        if results:
            self._stuck_since = None
        else:
            self._require_progress()
        return [result for result in results if isinstance(result, TrackResult)]

    def ended_because(self) -> str | None:
        """Which of the services has ended, and why; None while all run."""
        for thread in self._threads:
            if not thread.is_alive():
                return f"{thread.name} ended: {thread.error!r}"
        return None

    def _require_progress(self) -> None:
        """Raise PipelineStoppedError if no further result can be expected."""
        if (ended := self.ended_because()) is not None:
            raise PipelineStoppedError(ended)
        reason = next((pulse.waiting_for for pulse in self._pulses if pulse.waiting_for), None)
        if reason is None:
            return
        now = time.monotonic()
        self._stuck_since = self._stuck_since or now
        if now - self._stuck_since > _PATIENCE_S:
            raise PipelineStoppedError(f"{reason}. The variable TMPDIR names another folder for temporary files")

    def _slow(self) -> set[str]:
        """The requests that have moved to the retry lane since the last call."""
        assert self._retries is not None
        moved = (salvaged_request_id(record) for record in self._retries.poll(1000, 0.0))
        return {request_id for request_id in moved if request_id is not None}

    def _build(self, settings: Settings) -> list[AnyService]:
        services = [service for stage in Stage for service in build_services(stage, settings)]
        for service in services:
            service.start()
        return services

    def _stop(self) -> None:
        for loop in self._loops:
            loop.stop()
        self.bus.close()
        deadline = time.monotonic() + self._stop_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for reader in (self._reader, self._retries):
            if reader is not None:
                reader.close()
