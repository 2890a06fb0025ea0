"""Stands for the workers where only the ends of the topics matter: answers every request as soon as it comes."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from kafka import KafkaProducer

from shared.bus.base import Bus
from shared.bus.topics import topic_specs
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.codec import decode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    ErrorReport,
    Genre,
    Mood,
    SegmentGenre,
    Stage,
    Status,
    Track,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing

_GROUP: Final = "answering"


def whole_result(request_id: str, source: str = "song.mp3") -> TrackResult:
    """A result with both halves: jazz, calm."""
    genres = {genre: 0.91 if genre == "jazz" else 0.01 for genre in GENRES}
    segment = SegmentGenre(start_s=0.0, end_s=3.0, label="jazz", confidence=0.91)
    return TrackResult(
        request_id=request_id,
        status=Status.OK,
        track=Track(key=f"url:{request_id}", source=source, duration_s=3.0),
        genre=Genre(
            label="jazz", confidence=0.91, agreement=1.0, probabilities=genres, segments=(segment,), model="genre-model"
        ),
        mood=Mood(
            label="calm",
            confidence=0.7,
            probabilities={"calm": 0.7, "energetic": 0.1, "happy": 0.1, "sad": 0.1},
            features=dict.fromkeys(AUDIO_FEATURES, 0.5),
            source="audio",
            model="mood-model",
        ),
    )


def failed_result(request_id: str, source: str = "song.mp3") -> TrackResult:
    """A result without either half."""
    error = ErrorReport(code=ErrorCode.CORRUPT_AUDIO, stage=Stage.INGESTION, message="nothing in it can be decoded")
    track = Track(key=f"url:{request_id}", source=source)
    return TrackResult(request_id=request_id, status=Status.FAILED, track=track, errors=(error,))


def abort_result(bootstrap_servers: str, topics: Topics, request_id: str) -> None:
    """A result that a worker published and never committed."""
    sent = outgoing(topics, failed_result(request_id))
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id=f"{topics.prefix}-aborted")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(sent.topic, sent.value, sent.key, list(sent.headers)).get(timeout=30)
    producer.abort_transaction()
    producer.close()


class Answering:
    """A context manager over a bus: creates the topics, and answers each request once, in a unit with its offset.

    Requests whose ID begins with ``later`` wait until ``release``. ``seen`` are the requests in their order.
    """

    def __init__(self, bus: Bus, topics: Topics) -> None:
        self._bus = bus
        self._topics = topics
        self._stopped = threading.Event()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self.seen: list[TrackRequest] = []

    def release(self) -> None:
        self._released.set()

    def __enter__(self) -> Self:
        self._bus.create_topics(topic_specs(self._topics))
        requests = self._topics.name(Channel.REQUESTS)
        self._membership = self._bus.join(self._topics.group(_GROUP), [requests])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(20)
        self._membership.close()

    def _answer(self) -> None:
        answered: set[str] = set()
        held: list[TrackRequest] = []
        while not self._stopped.is_set():
            records = self._membership.poll(100, 0.05)
            requests = [decode_message(Channel.REQUESTS, record.value) for record in records]
            due: list[TrackResult] = []
            for request in requests:
                assert isinstance(request, TrackRequest)
                self.seen.append(request)
                if request.request_id in answered:
                    continue
                answered.add(request.request_id)
                if request.request_id.startswith("later"):
                    held.append(request)
                else:
                    due.append(whole_result(request.request_id, request.shown_source))
            if self._released.is_set():
                due += [whole_result(request.request_id, request.shown_source) for request in held]
                held.clear()
            if due or records:
                self._membership.commit([outgoing(self._topics, result) for result in due], records)
