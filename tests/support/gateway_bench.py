"""The gateway as a real server over the bus in memory, with a test in the place of the pipeline."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from services.gateway.gateway import Gateway, Mode
from services.gateway.server import GatewayServer
from shared.blobs.store import BlobStore
from shared.bus.base import Outgoing
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message, encode_message
from shared.contracts.messages import IngestedAudio, IngestedTrack, TrackRequest, TrackResult
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing
from shared.settings import Settings
from tests.support.rows import ok_result

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class SentEvent:
    """A server-sent event."""

    id: str
    name: str
    data: dict[str, Any]


class GatewayBench:
    """A context manager. ``client`` speaks HTTP; ``asked`` has the requests that reached the pipeline."""

    def __init__(self, folder: Path, bus: MemoryBus | None = None, mode: Mode = "embedded", **settings: Any) -> None:
        self.folder = folder
        self.topics = Topics("t")
        self.bus = bus or MemoryBus()
        self.bus.create_topics(topic_specs(self.topics))
        settings = {"redis_url": SecretStr("memory://"), **settings}
        self.settings = Settings(topic_prefix="t", blob_url=f"file://{folder}/blobs", **settings)
        self.blobs = BlobStore(self.settings.blob_url)
        self.view = folder / "library.sqlite"
        self.pipeline_fault: str | None = None
        self._requests = self.bus.reader([self.topics.name(Channel.REQUESTS)])
        self._mode: Mode = mode

    def __enter__(self) -> Self:
        self.gateway = Gateway(
            self.settings, self.bus, self.blobs, self.view, self._mode, pipeline_fault=lambda: self.pipeline_fault
        )
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        answering = threading.Event()
        self._server = GatewayServer(self.gateway, answering.set)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        assert answering.wait(PATIENCE_S)
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._requests.close()

    # The pipeline's part

    def asked(self, count: int = 1) -> list[TrackRequest]:
        """The next requests that were published."""
        found: list[TrackRequest] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < count and time.monotonic() < deadline:
            for record in self._requests.poll(count - len(found), 0.1):
                message = decode_message(Channel.REQUESTS, record.value)
                assert isinstance(message, TrackRequest)
                found.append(message)
        assert len(found) == count
        return found

    def nothing_asked(self) -> bool:
        """Whether no further request was published."""
        return not self._requests.poll(1, 0.0)

    def publish(self, *messages: TrackRequest | IngestedTrack | TrackResult) -> None:
        """On the topic of each."""
        with self.bus.publisher() as publisher:
            publisher.publish([outgoing(self.topics, message) for message in messages])

    def retried(self, request: TrackRequest) -> None:
        """The request moves to the second lane."""
        name = self.topics.name(Channel.REQUESTS_RETRY)
        with self.bus.publisher() as publisher:
            publisher.publish([Outgoing(name, request.track_key.encode(), encode_message(request))])

    def heard(self, request: TrackRequest, sha256: str = "ab" * 32, follows: str | None = None) -> None:
        """The track is decoded."""
        audio = None
        if follows is None:
            audio = IngestedAudio(blob=f"blob:audio/{sha256}.wav", sha256=sha256, duration_s=30.0, segments=10)
        self.publish(
            IngestedTrack(
                request_id=request.request_id,
                track_key=request.track_key,
                source=request.shown_source,
                audio=audio,
                follows=follows,
            )
        )

    def answered(self, *results: TrackResult) -> None:
        """The results are published, and in the view."""
        before = self.gateway.feed.now()
        self.publish(*results)
        ids = {result.request_id for result in results}

        def arrived() -> bool:
            found = self.gateway.feed.after(before) or []
            return ids <= {event.request_id for _, event in found if event.name == "result"}

        self.until(arrived)

    @staticmethod
    def until(holds: Callable[[], bool]) -> None:
        """Wait until it does."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.01)

    # The client's part

    def post(self, fields: object, **headers: str) -> httpx.Response:
        """Tracks as JSON."""
        return self.client.post("/v1/tracks", json=fields, headers=headers)

    def stage(self, request_id: str) -> str:
        """How far a track is."""
        return str(self.client.get(f"/v1/tracks/{request_id}").json()["stage"])

    def results(self, **filters: Any) -> dict[str, Any]:
        """A page of results."""
        answer = self.client.get("/v1/results", params=filters)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    @contextmanager
    def events(self, last: str | None = None) -> Iterator[Iterator[SentEvent]]:
        """The stream of events, connected."""
        headers = {} if last is None else {"Last-Event-ID": last}
        with self.client.stream("GET", "/v1/events", headers=headers) as stream:
            assert stream.status_code == 200 and stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert next(lines).startswith(":")
            yield _events(lines)


def _events(lines: Iterator[str]) -> Iterator[SentEvent]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            yield SentEvent(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
        fields = {}


def answer(request_id: str, **changes: Any) -> TrackResult:
    """A result with a key of its own."""
    result = ok_result(request_id=request_id, **changes)
    return result.model_copy(update={"track": result.track.model_copy(update={"key": f"url:{request_id}"})})


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error document, which is checked."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"urn:tonestream:error:{document['code']}"
    assert document["status"] == answer.status_code and document["detail"] and document["title"]
    return answer.status_code, document["code"]
