"""The client for programs with asyncio. Over HTTP nothing blocks; over Kafka threads do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from shared.contracts.messages import TrackResult
from tonestream.client import protocol
from tonestream.client.answers import Page, Row, Ticket, TrackState
from tonestream.client.blocking import as_ticket
from tonestream.client.connecting import KAFKA_SCHEME, async_http_end, async_kafka_end
from tonestream.client.sources import Source, Submission, Wishes
from tonestream.client.streams import Arrival


class AsyncEnd(Protocol):
    """What a client speaks to: a gateway, or the topics."""

    async def submit(self, submission: Submission) -> Ticket: ...

    async def wait(self, ticket: Ticket, timeout_s: float | None) -> TrackResult: ...

    async def state(self, request_id: str) -> TrackState: ...

    async def remove(self, request_id: str) -> None: ...

    async def page(self, filters: Mapping[str, Any], after: str | None) -> Page: ...

    def stream(self, after: str | None, timeout_s: float | None) -> AsyncIterator[Arrival | None]: ...

    async def close(self) -> None: ...


class AsyncClient:
    """As `Client`, whose methods say what the arguments mean, with ``await`` before each call.

    One client belongs to one event loop. Tasks may share it.

    >>> async def genres() -> list[str]:
    ...     async with AsyncClient(address) as client:
    ...         results = await asyncio.gather(*(client.classify(song) for song in songs))
    ...     return [result.status.value for result in results]
    >>> asyncio.run(genres())
    ['ok', 'ok']
    """

    def __init__(
        self,
        address: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
    ) -> None:
        self._end: AsyncEnd
        if address.startswith(KAFKA_SCHEME):
            self._end = async_kafka_end(address, timeout_s)
        else:
            self._end = async_http_end(address, api_key, timeout_s, retries)

    @classmethod
    def kafka(cls, bootstrap_servers: str = "localhost:9092", *, timeout_s: float = 30.0, **settings: object) -> Self:
        """A client of the topics, without a gateway; see `Client.kafka`."""
        return cls._of(async_kafka_end(bootstrap_servers, timeout_s, **settings))

    @classmethod
    def _of(cls, end: AsyncEnd) -> Self:
        client = cls.__new__(cls)
        client._end = end
        return client

    async def submit(
        self,
        source: Source,
        *,
        request_id: str | None = None,
        track_id: str | None = None,
        model: str | None = None,
        force: bool = False,
        embedding: bool = False,
    ) -> Ticket:
        """Submit a URL, a Spotify track or a local file; see `Client.submit`."""
        wishes = Wishes(model, force, embedding)
        submission = await asyncio.to_thread(Submission.of, source, request_id, wishes, track_id)  # it opens the file
        return await self._end.submit(submission)

    async def wait(self, ticket: Ticket | str, timeout_s: float | None = None) -> TrackResult:
        """The result of a request, as soon as it is there; see `Client.wait`."""
        return await self._end.wait(as_ticket(ticket), timeout_s)

    async def classify(
        self,
        source: Source,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        track_id: str | None = None,
        model: str | None = None,
        force: bool = False,
        embedding: bool = False,
    ) -> TrackResult:
        """Submit a track and wait for its result."""
        ticket = await self.submit(
            source, request_id=request_id, track_id=track_id, model=model, force=force, embedding=embedding
        )
        return await self.wait(ticket, timeout_s)

    async def state(self, ticket: Ticket | str) -> TrackState:
        """How far a request is; see `Client.state`."""
        return await self._end.state(as_ticket(ticket).request_id)

    async def remove(self, ticket: Ticket | str) -> None:
        """Remove a track from the library; see `Client.remove`."""
        await self._end.remove(as_ticket(ticket).request_id)

    async def results(
        self,
        *,
        where: str | None = None,
        genre: str | Sequence[str] | None = None,
        mood: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        min_confidence: float | None = None,
        bpm: str | None = None,
        key: str | None = None,
        q: str | None = None,
        sort: str | None = None,
    ) -> AsyncIterator[Row]:
        """The rows of the library that pass every filter; see `Client.results`."""
        filters = protocol.filters(
            genre, mood, status, where=where, min_confidence=min_confidence, bpm=bpm, key=key, q=q, sort=sort
        )
        after: str | None = None
        while True:
            page = await self._end.page(filters, after)
            for row in page.results:
                yield row
            after = page.next
            if after is None:
                return

    def stream(self, *, after: str | None = None, timeout_s: float | None = None) -> AsyncResultStream:
        """Results as they come, from the moment at which the stream is entered; see `Client.stream`.

        >>> async def first() -> str:
        ...     async with AsyncClient(address) as client, client.stream(timeout_s=60) as results:
        ...         await client.submit(song)
        ...         return (await anext(results)).status.value
        >>> asyncio.run(first())
        'ok'
        """
        return AsyncResultStream(self._end.stream(after, timeout_s), after)

    async def close(self) -> None:
        """Close the connections."""
        await self._end.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncResultStream(AsyncIterator[TrackResult]):
    """Results as they come, to be used with ``async with``. ``cursor`` resumes the stream after the last one."""

    def __init__(self, arrivals: AsyncIterator[Arrival | None], cursor: str | None) -> None:
        self._arrivals = arrivals
        self.cursor = cursor

    async def __anext__(self) -> TrackResult:
        while (arrival := await anext(self._arrivals)) is None:
            pass
        self.cursor = arrival.cursor
        return arrival.result

    async def close(self) -> None:
        """End the stream and its connection."""
        close = getattr(self._arrivals, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        await anext(self._arrivals)  # from here on no result is missed
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
