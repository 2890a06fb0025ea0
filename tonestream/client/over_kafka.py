"""Requests and results over Kafka, without a gateway.

One reader per client follows the results topic from before the first submission, and keeps the results of the requests
that wait. What it does not have (a request of another process, a result that was let go) is searched for from the
ticket's place in the topic, or from its beginning.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from shared.blobs.store import UPLOADS, BlobStore
from shared.bus.base import (
    Bus,
    BusError,
    BusSecurityError,
    BusUnavailableError,
    MessageTooLargeError,
    Positions,
    Publisher,
    Reader,
    Record,
)
from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.errors import DependencyError
from shared.contracts.messages import TrackResult
from shared.contracts.topics import Channel, Topics
from shared.runtime import traces
from shared.runtime.envelope import REQUEST_ID_HEADER, outgoing, salvaged_request_id
from tonestream.client.answers import Page, Problem, Ticket, TrackState
from tonestream.client.errors import NotOffered, Refused, TonestreamClientError, Unavailable, UnexpectedAnswer
from tonestream.client.protocol import late
from tonestream.client.sources import Submission, invalid
from tonestream.client.streams import Arrival

log = logging.getLogger(__name__)

#: The longest single poll, so that closing and time limits are noticed.
_SLICE_S: Final = 0.25
_RECORDS_AT_ONCE: Final = 500
#: How many submitted requests a client looks out for, and how many bytes of results it keeps, the newest. Others are
#: searched for when somebody waits for them.
_MOST_EXPECTED: Final = 100_000
_MOST_BYTES: Final = 64 * 1024 * 1024
_NO_LIBRARY: Final = "only a client over HTTP can do this: give the address of a gateway, http://..."


class FilePlace:
    """Where local files go so that ingestion can read them: a folder that both share, or a blob store."""

    def __init__(self, folder: Path | None, blob_url: str | None) -> None:
        self._folder = folder
        self._blob_url = blob_url
        self._blobs: BlobStore | None = None

    def put(self, file: Path, request_id: str) -> str:
        """The URL under which ingestion finds the file. Raises Refused, Unavailable."""
        whole = Path(os.path.normpath(file.absolute()))
        if self._folder is not None and whole.is_relative_to(self._folder.absolute()):
            return whole.as_uri()
        if self._blob_url is None:
            raise invalid(
                "a local file needs a folder or a blob store that the workers share: Client.kafka(servers,"
                " local_files=...) or Client.kafka(servers, blob_url=...); over HTTP it is uploaded"
            )
        try:
            self._blobs = self._blobs or BlobStore(self._blob_url)
            return self._blobs.put(file, f"{UPLOADS}/{request_id}")
        except DependencyError as error:
            raise Unavailable(str(error)) from error


class KafkaEnd:
    """The topics of one installation. Threads may share it; each stream belongs to one thread."""

    def __init__(self, bus: Bus, topics: Topics, files: FilePlace, timeout_s: float) -> None:
        self._bus = bus
        self._topics = topics
        self._files = files
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._inbox: _Inbox | None = None
        self._publisher: Publisher | None = None
        self._closed = False

    def submit(self, submission: Submission) -> Ticket:
        inbox, publisher = self._roles()
        # Taken before the request leaves, so that its result can only come after it.
        cursor = _cursor_of(inbox.positions) if submission.own_id else None
        audio = "" if submission.file is None else self._files.put(submission.file, submission.request_id)
        request = submission.request(audio)
        if submission.own_id and inbox.has_room:
            inbox.expect(submission.request_id).covered = True
        with _translated(), traces.sending([outgoing(self._topics, request)]) as records:
            try:
                publisher.publish(records, self._timeout_s)
            except BusUnavailableError:
                # It may be stored or not. Once more is no second request: the ID is the same.
                publisher.publish(records, self._timeout_s)
        return Ticket(submission.request_id, submission.shown, cursor)

    def wait(self, ticket: Ticket, timeout_s: float | None) -> TrackResult:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        future = self.future(ticket, lambda: deadline is not None and time.monotonic() > deadline)
        try:
            value = future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            raise late(ticket.request_id, timeout_s) from None
        return self.taken(ticket, value)

    def future(self, ticket: Ticket, given_up: Callable[[], bool] = lambda: False) -> Future[bytes]:
        """The result that is to come, as its bytes; searched for first if it may have come already.

        The search ends early if ``given_up`` says so.
        """
        inbox, _ = self._roles()
        expected = inbox.expect(ticket.request_id)
        if not (expected.covered or expected.value.done()) and self._search(inbox, ticket, given_up):
            expected.covered = True
        return expected.value

    def taken(self, ticket: Ticket, value: bytes) -> TrackResult:
        """The result in ``value``; the client keeps it no longer."""
        if self._inbox is not None:
            self._inbox.forget(ticket.request_id)
        try:
            return _decoded(value)
        except MalformedMessageError as error:
            raise UnexpectedAnswer(f"the result of {ticket.request_id} cannot be read: {error.reason}") from None

    def state(self, request_id: str) -> NoReturn:
        raise NotOffered(_NO_LIBRARY)

    def remove(self, request_id: str) -> NoReturn:
        raise NotOffered(_NO_LIBRARY)

    def page(self, filters: Mapping[str, Any], after: str | None) -> NoReturn:
        raise NotOffered(_NO_LIBRARY)

    def stream(
        self, after: str | None, timeout_s: float | None, ended: threading.Event | None = None
    ) -> Generator[Arrival | None, None, None]:
        with self._reader(_positions_of(self._topics, after), from_beginning=False) as reader:
            cursor = dict(reader.positions())
            yield None
            heard = time.monotonic()
            while not self._closed and not (ended is not None and ended.is_set()):
                with _translated():
                    records = reader.poll(_RECORDS_AT_ONCE, _SLICE_S)
                for record in records:
                    cursor[(record.topic, record.partition)] = record.offset + 1
                    try:
                        result = _decoded(record.value)
                    except MalformedMessageError as error:
                        whose = salvaged_request_id(record) or record.coordinates
                        log.warning("skipped: the result of %s cannot be read: %s", whose, error.reason)
                        continue
                    yield Arrival(result, _cursor_of(cursor))
                    heard = time.monotonic()
                if timeout_s is not None and not records and time.monotonic() - heard > timeout_s:
                    raise late("any request", timeout_s)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            inbox, publisher = self._inbox, self._publisher
            self._inbox = self._publisher = None
        if inbox is not None:
            inbox.close()
        if publisher is not None:
            publisher.close()
        self._bus.close()

    def _roles(self) -> tuple[_Inbox, Publisher]:
        """The reader and the publisher. They connect when they are first needed."""
        with self._lock, _translated():
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._inbox is None or self._inbox.fault is not None:
                self._inbox = _Inbox(self._reader(None, from_beginning=False))
            if self._publisher is None:
                self._publisher = self._bus.publisher()
            return self._inbox, self._publisher

    def _reader(self, positions: Positions | None, from_beginning: bool) -> Reader:
        with _translated():
            return self._bus.reader([self._topics.name(Channel.RESULTS)], from_beginning, positions)

    def _search(self, inbox: _Inbox, ticket: Ticket, given_up: Callable[[], bool]) -> bool:
        """Look for a result between the ticket's place and the end of the topic. False if the search ended early."""
        with self._reader(_positions_of(self._topics, ticket.cursor), from_beginning=True) as reader, _translated():
            while not given_up() and not self._closed:
                for record in reader.poll(_RECORDS_AT_ONCE, _SLICE_S):
                    if _request_of(record) == ticket.request_id:
                        inbox.deliver(ticket.request_id, record.value)
                        return True
                if reader.at_end():
                    return True
        return False


class AsyncKafkaEnd:
    """The same for asyncio. What blocks runs in threads; a result that is waited for takes none."""

    def __init__(self, end: KafkaEnd) -> None:
        self._end = end

    async def submit(self, submission: Submission) -> Ticket:
        return await asyncio.to_thread(self._end.submit, submission)

    async def wait(self, ticket: Ticket, timeout_s: float | None) -> TrackResult:
        abandoned = threading.Event()
        try:
            async with asyncio.timeout(timeout_s):
                future = await asyncio.to_thread(self._end.future, ticket, abandoned.is_set)
                # Shielded: others may wait for the same result.
                value = await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            raise late(ticket.request_id, timeout_s) from None
        finally:
            abandoned.set()
        return self._end.taken(ticket, value)

    async def state(self, request_id: str) -> TrackState:
        raise NotOffered(_NO_LIBRARY)

    async def remove(self, request_id: str) -> None:
        raise NotOffered(_NO_LIBRARY)

    async def page(self, filters: Mapping[str, Any], after: str | None) -> Page:
        raise NotOffered(_NO_LIBRARY)

    async def stream(self, after: str | None, timeout_s: float | None) -> AsyncIterator[Arrival | None]:
        ended = threading.Event()
        arrivals = self._end.stream(after, timeout_s, ended)
        lock = threading.Lock()

        def following() -> Arrival | None:
            with lock:
                return next(arrivals, None)

        def finish() -> None:
            with lock:
                arrivals.close()

        try:
            yield await asyncio.to_thread(following)
            while (arrival := await asyncio.to_thread(following)) is not None:
                yield arrival
        finally:
            ended.set()
            await asyncio.shield(asyncio.to_thread(finish))

    async def close(self) -> None:
        await asyncio.to_thread(self._end.close)


@dataclass(slots=True)
class _Expected:
    """A result that somebody looks out for, as its bytes.

    ``covered``: what came before that is known to hold no result, because the request is newer or a search is done.
    """

    value: Future[bytes] = field(default_factory=Future)
    covered: bool = False


class _Inbox:
    """Follows the results topic in a thread of its own, and keeps the results that are expected."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._expected: dict[str, _Expected] = {}
        self._bytes = 0
        self._stopped = threading.Event()
        #: Where the reader stands: before every result that has not been looked at.
        self.positions = reader.positions()
        self.fault: TonestreamClientError | None = None
        self._thread = threading.Thread(target=self._follow, name="tonestream-results", daemon=True)
        self._thread.start()

    def expect(self, request_id: str) -> _Expected:
        """Look out for a result from now on, if that is not done yet."""
        with self._lock:
            expected = self._expected.setdefault(request_id, _Expected())
            if self.fault is not None and not expected.value.done():
                expected.value.set_exception(self.fault)
            return expected

    @property
    def has_room(self) -> bool:
        """Whether requests may be expected that nobody waits for yet."""
        return len(self._expected) < _MOST_EXPECTED

    def forget(self, request_id: str) -> None:
        with self._lock:
            self._remove(request_id)

    def deliver(self, request_id: str, value: bytes) -> None:
        with self._lock:
            expected = self._expected.get(request_id)
            if expected is None or expected.value.done():
                return
            expected.value.set_result(value)
            self._bytes += len(value)
            if self._bytes > _MOST_BYTES:
                for one in [one for one, held in self._expected.items() if held.value.done()]:
                    self._remove(one)
                    if self._bytes <= _MOST_BYTES:
                        break

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=10.0)
        self._fail(Unavailable("the client was closed"))

    def _remove(self, request_id: str) -> None:
        expected = self._expected.pop(request_id, None)
        if expected is not None and expected.value.done() and expected.value.exception() is None:
            self._bytes -= len(expected.value.result())

    def _follow(self) -> None:
        with self._reader as reader:
            while not self._stopped.is_set():
                try:
                    records = reader.poll(_RECORDS_AT_ONCE, _SLICE_S)
                except BusUnavailableError as error:
                    log.warning("the results cannot be read at the moment: %s", error)
                    self._stopped.wait(1.0)
                    continue
                except Exception as error:
                    log.exception("the results cannot be read any more")
                    self._fail(_client_error(error) if isinstance(error, BusError) else Unavailable(str(error)))
                    return
                for record in records:
                    if (request_id := _request_of(record)) is not None:
                        self.deliver(request_id, record.value)
                self.positions = reader.positions()

    def _fail(self, fault: TonestreamClientError) -> None:
        with self._lock:
            self.fault = fault
            for expected in self._expected.values():
                if not expected.value.done():
                    expected.value.set_exception(fault)


def _request_of(record: Record) -> str | None:
    """The request of a result. Its header says so, which is faster than reading the result."""
    header = record.header(REQUEST_ID_HEADER)
    return header.decode("utf-8", "replace") if header else salvaged_request_id(record)


def _decoded(value: bytes) -> TrackResult:
    result = decode_message(Channel.RESULTS, value)
    assert isinstance(result, TrackResult)
    return result


def _cursor_of(positions: Positions) -> str:
    """A place in the results topic as a text: partition and offset, separated by commas."""
    return ",".join(f"{partition}:{offset}" for (_, partition), offset in sorted(positions.items()))


def _positions_of(topics: Topics, cursor: str | None) -> Positions | None:
    """The place that a text names. Raises Refused for another text."""
    if cursor is None:
        return None
    topic = topics.name(Channel.RESULTS)
    try:
        pairs = [pair.split(":") for pair in cursor.split(",") if pair]
        return {(topic, int(partition)): int(offset) for partition, offset in pairs}
    except ValueError:
        raise invalid("the cursor is not one of this client; over HTTP and over Kafka they differ") from None


@contextmanager
def _translated() -> Iterator[None]:
    """The errors of the bus as those of the client."""
    try:
        yield
    except BusError as error:
        raise _client_error(error) from error


def _client_error(error: BusError) -> TonestreamClientError:
    if isinstance(error, MessageTooLargeError):
        return Refused(Problem(code="too_large", title="Too large", detail=str(error)))
    if isinstance(error, BusSecurityError):
        return Refused(Problem(code="unauthorized", title="The brokers refuse this client", detail=str(error)))
    return Unavailable(str(error))
