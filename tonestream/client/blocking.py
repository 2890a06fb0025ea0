"""The client for programs without asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from shared.contracts.messages import TrackResult
from tonestream.client import protocol
from tonestream.client.answers import Page, Row, Ticket, TrackState
from tonestream.client.connecting import KAFKA_SCHEME, http_end, kafka_end
from tonestream.client.sources import Source, Submission, Wishes
from tonestream.client.streams import Arrival


class End(Protocol):
    """What a client speaks to: a gateway, or the topics."""

    def submit(self, submission: Submission) -> Ticket: ...

    def wait(self, ticket: Ticket, timeout_s: float | None) -> TrackResult: ...

    def state(self, request_id: str) -> TrackState: ...

    def remove(self, request_id: str) -> None: ...

    def page(self, filters: Mapping[str, Any], after: str | None) -> Page: ...

    def stream(self, after: str | None, timeout_s: float | None) -> Iterator[Arrival | None]: ...

    def close(self) -> None: ...


class Client:
    """Submits tracks and fetches their results.

    ``address`` is a gateway's, ``http://localhost:8000``, or that of Kafka brokers, ``kafka://localhost:9092``.
    ``timeout_s`` is the longest silence of the other side during one call, in seconds. Calls without an answer are made
    again up to ``retries`` times, with growing pauses or the one that the server asks for (``Retry-After``). No retry
    makes a second request of a submission.

    Threads may share a client; each stream belongs to one thread. Close it, or use it in a ``with`` block.

    >>> with Client(address) as client:
    ...     result = client.classify(song)
    >>> result.status
    <Status.OK: 'ok'>
    >>> result.genre.label in {"blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "rock"}
    True
    """

    def __init__(
        self,
        address: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
    ) -> None:
        self._end: End
        if address.startswith(KAFKA_SCHEME):
            self._end = kafka_end(address, timeout_s)
        else:
            self._end = http_end(address, api_key, timeout_s, retries)

    @classmethod
    def kafka(cls, bootstrap_servers: str = "localhost:9092", *, timeout_s: float = 30.0, **settings: object) -> Self:
        """A client of the topics, without a gateway.

        ``settings`` are those of docs/settings.md without their prefix, such as ``topic_prefix``,
        ``kafka_security_protocol`` or ``blob_url``; the environment counts as for the workers. Local files need
        ``local_files``, a folder that ingestion reads as well, or ``blob_url``, the blob store of the workers.
        """
        return cls._of(kafka_end(bootstrap_servers, timeout_s, **settings))

    @classmethod
    def _of(cls, end: End) -> Self:
        client = cls.__new__(cls)
        client._end = end
        return client

    def submit(
        self,
        source: Source,
        *,
        request_id: str | None = None,
        track_id: str | None = None,
        model: str | None = None,
        force: bool = False,
        embedding: bool = False,
    ) -> Ticket:
        """Submit a URL, a Spotify track or a local file; returns when the request is stored, not when it is answered.

        A file is sent from the disk, whatever its size. ``request_id`` names the request, by default a new random ID:
        two submissions with one ID are one request. ``track_id`` is the Spotify track whose names a URL gets.
        ``model`` is another genre model than the installation's own, ``force`` computes what is cached anew, and
        ``embedding`` asks for the numbers by which tracks are compared.

        Raises Refused, Unavailable.

        >>> ticket = client.submit(song, request_id="my-first")
        >>> ticket.request_id
        'my-first'
        """
        wishes = Wishes(model, force, embedding)
        return self._end.submit(Submission.of(source, request_id, wishes, track_id))

    def wait(self, ticket: Ticket | str, timeout_s: float | None = None) -> TrackResult:
        """The result of a request, by its ticket or its ID, as soon as it is there.

        ``timeout_s`` None waits for as long as it takes. Over Kafka, an ID without its ticket has the results topic
        searched from its beginning, which holds 7 days.

        Raises TimedOut, NotFound (over HTTP), Unavailable.

        >>> client.wait(client.submit(song), timeout_s=60).status
        <Status.OK: 'ok'>
        """
        return self._end.wait(as_ticket(ticket), timeout_s)

    def classify(
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
        """Submit a track and wait for its result. For many tracks, submit all of them first, then wait for each.

        >>> tickets = [client.submit(file) for file in songs]
        >>> [client.wait(ticket).status.value for ticket in tickets]
        ['ok', 'ok']
        """
        ticket = self.submit(
            source, request_id=request_id, track_id=track_id, model=model, force=force, embedding=embedding
        )
        return self.wait(ticket, timeout_s)

    def state(self, ticket: Ticket | str) -> TrackState:
        """How far a request is. Over HTTP only.

        Raises NotFound, Unavailable, NotOffered.
        """
        return self._end.state(as_ticket(ticket).request_id)

    def remove(self, ticket: Ticket | str) -> None:
        """Remove a track from the library, with its evidence and the audio that was kept of it. Over HTTP only.

        Raises NotFound, Unavailable, NotOffered.

        >>> result = client.classify(song)
        >>> client.remove(result.request_id)
        >>> result.request_id in [row.id for row in client.results()]
        False
        """
        self._end.remove(as_ticket(ticket).request_id)

    def results(
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
    ) -> Iterator[Row]:
        """The rows of the library that pass every filter, page by page as they are taken. Over HTTP only.

        ``where`` is an expression such as ``mood == calm and energy < 0.4``. ``bpm`` is a range, ``90-120``. ``q`` are
        words in title, artist, source or tags. ``sort`` is a column, with ``-`` before it the other way round.

        Raises Refused for a filter that is none, Unavailable, NotOffered.

        >>> result = client.classify(song)
        >>> {row.status for row in client.results(genre=result.genre.label, where="bpm > 0", sort="-energy")}
        {'ok'}
        """
        filters = protocol.filters(
            genre, mood, status, where=where, min_confidence=min_confidence, bpm=bpm, key=key, q=q, sort=sort
        )
        after: str | None = None
        while True:
            page = self._end.page(filters, after)
            yield from page.results
            after = page.next
            if after is None:
                return

    def stream(self, *, after: str | None = None, timeout_s: float | None = None) -> ResultStream:
        """Results as they come, of everybody's requests, from now on or from the cursor of an earlier stream.

        A broken connection is made again, and the stream goes on where it broke. It never ends by itself; ``timeout_s``
        is the longest wait for the next result, after which it raises TimedOut. It raises Missed where a gateway cannot
        send again all that came since the cursor, and Unavailable.

        >>> with client.stream(timeout_s=60) as results:
        ...     ticket = client.submit(song)
        ...     next(results).request_id == ticket.request_id
        True
        >>> cursor = results.cursor
        """
        return ResultStream(self._end.stream(after, timeout_s), after)

    def close(self) -> None:
        """Close the connections. Whoever still waits gets Unavailable."""
        self._end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ResultStream(Iterator[TrackResult]):
    """Results as they come. ``cursor``, kept by whoever has handled the last result, resumes the stream after it."""

    def __init__(self, arrivals: Iterator[Arrival | None], cursor: str | None) -> None:
        self._arrivals = arrivals
        self.cursor = cursor
        next(arrivals)  # from here on no result is missed

    def __next__(self) -> TrackResult:
        arrival = next(self._arrivals)
        assert arrival is not None
        self.cursor = arrival.cursor
        return arrival.result

    def close(self) -> None:
        """End the stream and its connection."""
        close = getattr(self._arrivals, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_ticket(ticket: Ticket | str) -> Ticket:
    """A ticket as it is; one of a request ID that knows no more."""
    return Ticket(ticket) if isinstance(ticket, str) else ticket
