"""The flows of `protocol.py` on httpx: blocking, and with asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from shared.contracts.messages import TrackResult
from tonestream.client import protocol
from tonestream.client.answers import Page, Ticket, TrackState
from tonestream.client.errors import NotFound, Refused, TimedOut, Unavailable
from tonestream.client.protocol import Answer, Call, EventParser, Flow, NoAnswer, Pause
from tonestream.client.sources import Submission, invalid
from tonestream.client.streams import Arrival

T = TypeVar("T")

#: How much of a file is read at a time, in bytes.
_PIECE_BYTES: Final = 256 * 1024
#: How long a stream waits for the result that an event announces, in seconds.
_ANNOUNCED_S: Final = 30.0


class HttpEnd:
    """A gateway, through a pool of connections that threads may share."""

    def __init__(self, address: str, api_key: str | None, timeout_s: float, retries: int) -> None:
        self._timeout_s = timeout_s
        self._retries = retries
        self._http = httpx.Client(base_url=_address(address), headers=_headers(api_key), timeout=timeout_s)

    def submit(self, submission: Submission) -> Ticket:
        return self._run(protocol.submit(submission, self._retries))

    def wait(self, ticket: Ticket, timeout_s: float | None) -> TrackResult:
        return self._run(protocol.wait(ticket.request_id, timeout_s, self._retries))

    def state(self, request_id: str) -> TrackState:
        return self._run(protocol.state(request_id, self._retries))

    def remove(self, request_id: str) -> None:
        self._run(protocol.remove(request_id, self._retries))

    def page(self, filters: Mapping[str, Any], after: str | None) -> Page:
        return self._run(protocol.page(filters, after, self._retries))

    def stream(self, after: str | None, timeout_s: float | None) -> Iterator[Arrival | None]:
        watch = _Watch(after, timeout_s, self._retries)
        while True:
            call = protocol.events_call(watch.cursor)
            try:
                with self._http.stream(
                    call.method, call.path, headers=call.headers, timeout=self._stream_timeout(watch)
                ) as response:
                    if response.status_code != 200:
                        watch.refused(Answer(response.status_code, response.headers, response.read()))
                    else:
                        for line in response.iter_lines():
                            if watch.begins():
                                yield None
                            if (event := watch.feed(line)) and (arrival := self._arrival(event)):
                                yield arrival
                                watch.reset()
            except httpx.TransportError as error:
                watch.broke(_reason(error))
            time.sleep(watch.pause_s())

    def close(self) -> None:
        self._http.close()

    def _arrival(self, event: protocol.Event) -> Arrival | None:
        request_id = protocol.finished_request(event)
        if request_id is None:
            return None
        try:
            result = self._run(protocol.wait(request_id, _ANNOUNCED_S, self._retries))
        except NotFound:
            return None  # its row was removed since
        return Arrival(result, event.id)

    def _stream_timeout(self, watch: _Watch) -> httpx.Timeout:
        return httpx.Timeout(self._timeout_s, read=watch.silence_s())

    def _run(self, flow: Flow[T]) -> T:
        answer: Answer | NoAnswer | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                answer = None
            else:
                answer = self._send(step)

    def _send(self, call: Call) -> Answer | NoAnswer:
        try:
            arguments = _arguments(call, self._timeout_s)
            if call.file is None:
                response = self._http.request(call.method, call.path, **arguments)
            else:
                with call.file.open("rb") as file:
                    response = self._http.request(call.method, call.path, content=file, **arguments)
        except httpx.TransportError as error:
            return NoAnswer(f"{self._http.base_url}: {_reason(error)}")
        except OSError as error:
            raise _gone(error) from None
        return Answer(response.status_code, response.headers, response.content)


class AsyncHttpEnd:
    """The same with asyncio."""

    def __init__(self, address: str, api_key: str | None, timeout_s: float, retries: int) -> None:
        self._timeout_s = timeout_s
        self._retries = retries
        self._http = httpx.AsyncClient(base_url=_address(address), headers=_headers(api_key), timeout=timeout_s)

    async def submit(self, submission: Submission) -> Ticket:
        return await self._run(protocol.submit(submission, self._retries))

    async def wait(self, ticket: Ticket, timeout_s: float | None) -> TrackResult:
        return await self._run(protocol.wait(ticket.request_id, timeout_s, self._retries))

    async def state(self, request_id: str) -> TrackState:
        return await self._run(protocol.state(request_id, self._retries))

    async def remove(self, request_id: str) -> None:
        await self._run(protocol.remove(request_id, self._retries))

    async def page(self, filters: Mapping[str, Any], after: str | None) -> Page:
        return await self._run(protocol.page(filters, after, self._retries))

    async def stream(self, after: str | None, timeout_s: float | None) -> AsyncIterator[Arrival | None]:
        watch = _Watch(after, timeout_s, self._retries)
        while True:
            call = protocol.events_call(watch.cursor)
            try:
                async with self._http.stream(
                    call.method,
                    call.path,
                    headers=call.headers,
                    timeout=httpx.Timeout(self._timeout_s, read=watch.silence_s()),
                ) as response:
                    if response.status_code != 200:
                        watch.refused(Answer(response.status_code, response.headers, await response.aread()))
                    else:
                        async for line in response.aiter_lines():
                            if watch.begins():
                                yield None
                            if (event := watch.feed(line)) and (arrival := await self._arrival(event)):
                                yield arrival
                                watch.reset()
            except httpx.TransportError as error:
                watch.broke(_reason(error))
            await asyncio.sleep(watch.pause_s())

    async def close(self) -> None:
        await self._http.aclose()

    async def _arrival(self, event: protocol.Event) -> Arrival | None:
        request_id = protocol.finished_request(event)
        if request_id is None:
            return None
        try:
            result = await self._run(protocol.wait(request_id, _ANNOUNCED_S, self._retries))
        except NotFound:
            return None
        return Arrival(result, event.id)

    async def _run(self, flow: Flow[T]) -> T:
        answer: Answer | NoAnswer | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                answer = None
            else:
                answer = await self._send(step)

    async def _send(self, call: Call) -> Answer | NoAnswer:
        try:
            arguments = _arguments(call, self._timeout_s)
            if call.file is not None:
                arguments["content"] = _pieces(call.file)
            response = await self._http.request(call.method, call.path, **arguments)
        except httpx.TransportError as error:
            return NoAnswer(f"{self._http.base_url}: {_reason(error)}")
        except OSError as error:
            raise _gone(error) from None
        return Answer(response.status_code, response.headers, response.content)


class _Watch:
    """How a stream of events stands: where it goes on, how often it broke, and when its time is up."""

    def __init__(self, after: str | None, timeout_s: float | None, retries: int) -> None:
        self._timeout_s = timeout_s
        self._retries = retries
        self._parser = EventParser(after)
        self._attempt = 0
        self._fault: Unavailable | None = None
        self._begun = False
        self.reset()

    @property
    def cursor(self) -> str | None:
        return self._parser.last_id

    def reset(self) -> None:
        """A result came: the time begins again."""
        self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def silence_s(self) -> float:
        """The longest silence to wait through, in seconds."""
        if self._deadline is None:
            return protocol.SILENCE_S
        return max(0.01, min(protocol.SILENCE_S, self._deadline - time.monotonic()))

    def begins(self) -> bool:
        """Whether this line is the first of all: the gateway sends one as soon as it listens for this stream."""
        begun, self._begun = self._begun, True
        return not begun

    def feed(self, line: str) -> protocol.Event | None:
        """The event that ends with this line. Raises TimedOut if the time is up and there is none."""
        self._attempt, self._fault = 0, None
        event = self._parser.feed(line)
        if event is None:
            self._require_time()
        return event

    def refused(self, answer: Answer) -> None:
        """The stream did not open. Raises if it never will."""
        self._fault = protocol.failure(answer)
        if self._fault is None:
            protocol.require_success(answer)
            self._fault = Unavailable(f"the stream of events was answered with HTTP status {answer.status}")

    def broke(self, reason: str) -> None:
        self._fault = Unavailable(f"the stream of events broke: {reason}")

    def pause_s(self) -> float:
        """How long to wait before the stream is opened again, in seconds. Raises TimedOut or Unavailable."""
        self._require_time()
        self._parser = EventParser(self._parser.last_id)
        self._attempt += 1
        fault = self._fault or Unavailable("the stream of events ended")
        pause = protocol.pause_s(self._attempt, fault.retry_after_s)
        if self._attempt > self._retries or pause > protocol.LONGEST_PAUSE_S:
            raise fault
        return pause

    def _require_time(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimedOut(f"no result within {self._timeout_s:g} s")


def _address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError("the address of a gateway begins with http:// or https://, that of brokers with kafka://")
    return address


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _arguments(call: Call, timeout_s: float) -> dict[str, Any]:
    headers = dict(call.headers)
    if call.file is not None:
        headers["Content-Length"] = str(call.file.stat().st_size)
    return {
        "params": dict(call.query),
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, read=timeout_s + call.extra_s),
        **({} if call.body is None else {"json": dict(call.body)}),
    }


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """The file in pieces, read beside the event loop."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
    finally:
        file.close()


def _gone(error: OSError) -> Refused:
    """The refusal of a file that could be read a moment ago."""
    return invalid(f"the file cannot be read any more: {error}")


def _reason(error: httpx.TransportError) -> str:
    """Why there is no answer, for a person."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
