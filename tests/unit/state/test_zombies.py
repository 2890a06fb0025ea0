"""What a worker writes to Redis before its commit does no harm when it comes late, after others did its work.

A zombie here is a worker whose partition has another owner by now: the epoch of its records is no longer the one that
is noted. Its writes are refused, and nothing of it is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from shared.blobs.store import BlobStore
from shared.bus.base import FencedError, Record
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import ErrorReport, IngestedTrack, MoodPrediction, Stage, Status, Track, TrackResult
from shared.state.audio import SharedAudio
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.fences import FenceKeeper, Fences
from shared.state.in_flight import RedisInFlightRegistry
from shared.state.keys import Keys
from shared.state.requests import Requests
from shared.state.results import KnownSource, ResultCache
from tests.support.state import left_over

SHA = "ab" * 32
KEYS = Keys("t")
ERROR = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="x")
RECORD = Record("t.requests", 0, 7, b"k", b"")
ZOMBIE, OWNER = replace(RECORD, epoch="zombie#1"), replace(RECORD, epoch="owner#1")
LATER = replace(OWNER, offset=8)


class Desk:
    """The state as one service sees it."""

    def __init__(self, folder: Path) -> None:
        self.redis: redis.Redis = connect(f"memory://{time.monotonic_ns()}")
        self.requests = Requests.open(self.redis, KEYS, "s", 1000, 100.0)
        self.coalescing = Coalescing(self.requests)
        self.blobs = BlobStore(f"file://{folder}/blobs")
        self.audio = SharedAudio(self.blobs, self.requests, 1000)
        self.wav = folder / "a.wav"
        self.wav.write_bytes(b"audio")

    def own(self, record: Record) -> None:
        """The worker to which ``record`` was delivered is the owner of its partition from now on."""
        assert FenceKeeper(self.redis, Fences(KEYS, "s"), 1000).note([record])

    def answer(self, request_id: str = "r1", record: Record = OWNER) -> list[str]:
        """Answered, committed and cleaned up, as the aggregator does it; who followed."""
        assert self.requests.answer(request_id, record)
        followers = self.coalescing.end(request_id, result(request_id))
        self.close(request_id, record)
        return followers

    def close(self, request_id: str = "r1", record: Record = OWNER) -> None:
        assert self.requests.close(request_id, record.coordinates)
        self.audio.release(request_id)
        self.requests.forget(request_id, record.coordinates)

    def left(self) -> dict[str, int]:
        return left_over(self.redis, KEYS)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.own(OWNER)
    return made


def result(request_id: str) -> TrackResult:
    track = Track(key="k", source="s")
    return TrackResult(request_id=request_id, status=Status.FAILED, track=track, errors=(ERROR,))


def announced(request_id: str = "r1") -> IngestedTrack:
    return IngestedTrack(request_id=request_id, track_key="k", source="s", error=ERROR)


def mood(request_id: str = "r1") -> MoodPrediction:
    return MoodPrediction(request_id=request_id, track_key="k", error=ERROR)


WRITES: dict[str, Callable[[Desk, Record], object]] = {
    "the claim to make a request": lambda desk, record: desk.requests.accept("r1", record),
    "the claim to answer it": lambda desk, record: desk.requests.answer("r1", record),
    "a lead": lambda desk, record: desk.coalescing.lead_or_follow("r1", "source:a", record),
    "parts": lambda desk, record: desk.requests.add([(announced(), record), (mood(), record)]),
    "the owner of audio": lambda desk, record: desk.audio.keep(desk.wav, SHA, "r1", record),
    "what is in hand": lambda desk, record: RedisInFlightRegistry(desk.redis, KEYS, "s", 1000).begin([record]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_zombies_write_is_refused_and_leaves_nothing(desk: Desk, write: Callable[[Desk, Record], object]) -> None:
    with pytest.raises(FencedError):
        write(desk, ZOMBIE)
    assert desk.left() == {}
    assert desk.redis.keys(KEYS.request("*")) == []
    assert not desk.blobs.exists(desk.audio.reference(SHA))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_that_came_in_time_and_was_not_committed_is_done_again_by_the_next_owner_and_cleaned_up(
    desk: Desk, write: Callable[[Desk, Record], object]
) -> None:
    desk.own(ZOMBIE)
    write(desk, ZOMBIE)
    desk.own(OWNER)
    registry = RedisInFlightRegistry(desk.redis, KEYS, "s", 1000)
    registry.begin([OWNER])
    assert desk.requests.accept("r1", OWNER)
    assert desk.coalescing.lead_or_follow("r1", "source:a", OWNER) is None
    desk.audio.keep(desk.wav, SHA, "r1", OWNER)
    desk.requests.add([(announced(), OWNER), (mood(), OWNER)])
    desk.answer()
    registry.finished([OWNER])
    registry.flush()
    assert desk.left() == {}
    assert not desk.blobs.exists(desk.audio.reference(SHA))


@pytest.mark.parametrize("write", list(WRITES.values())[:-1], ids=list(WRITES)[:-1])
def test_no_record_does_anything_for_a_closed_request_whatever_the_offsets_say(
    desk: Desk, write: Callable[[Desk, Record], object]
) -> None:
    """Not even the record that made it or answered it, should the group's offsets ever go back."""
    assert desk.requests.accept("r1", OWNER)
    desk.answer()
    for record in (OWNER, LATER):
        assert write(desk, record) in (False, None, desk.audio.reference(SHA))
    assert desk.left() == {}
    assert not desk.blobs.exists(desk.audio.reference(SHA))


def test_a_zombies_claim_of_a_record_that_was_committed_long_ago_does_not_keep_the_request_from_its_answer(
    desk: Desk,
) -> None:
    """The zombie holds a part that its successor committed, and wakes just as the last part completes the request."""
    desk.requests.add([(announced(), OWNER), (mood(), LATER)])
    with pytest.raises(FencedError):
        desk.requests.answer("r1", ZOMBIE)
    assert desk.requests.answer("r1", LATER)


def test_a_request_whose_answer_is_claimed_is_not_followed_any_more(desk: Desk) -> None:
    """Its followers are read after the claim: one that came later would never be answered."""
    follow = desk.coalescing.lead_or_follow
    assert follow("r1", "source:a", OWNER) is None
    assert follow("r2", "source:a", LATER) == "r1"
    assert desk.requests.answer("r1", OWNER)
    assert follow("r3", "source:a", LATER) is None
    assert desk.coalescing.end("r1", result("r1")) == ["r2"]
    assert follow("r4", "source:a", LATER) == "r3"


def test_a_lead_that_was_never_ended_is_taken_over_once_its_request_is_closed(desk: Desk) -> None:
    """As a zombie of an earlier version left it: the source is not poisoned."""
    desk.redis.set(KEYS.work("source:a"), "r1")
    desk.answer("r1")
    assert desk.coalescing.lead_or_follow("r2", "source:a", LATER) is None
    assert desk.redis.get(KEYS.work("source:a")) == "r2"


def test_a_lead_whose_request_never_gets_an_answer_lasts_no_longer_than_a_request_is_waited_for(desk: Desk) -> None:
    assert desk.coalescing.lead_or_follow("r1", "source:a", OWNER) is None
    assert 0 < int(desk.redis.ttl(KEYS.work("source:a"))) <= 100


def test_the_owner_that_a_zombie_locked_out_is_refused_once_and_notes_its_epoch_again(desk: Desk) -> None:
    keeper = FenceKeeper(desk.redis, Fences(KEYS, "s"), 1000)
    assert keeper.note([OWNER]) and not keeper.note([OWNER])
    desk.own(ZOMBIE)
    with pytest.raises(FencedError):
        desk.requests.accept("r1", OWNER)
    keeper.forget()
    assert keeper.note([OWNER])
    assert desk.requests.accept("r1", OWNER)


def test_a_request_that_was_replayed_since_is_not_closed_by_the_worker_of_before(desk: Desk) -> None:
    assert desk.requests.answer("r1", OWNER)
    desk.requests.reopen(["r1"])
    assert desk.requests.answer("r1", LATER)
    assert not desk.requests.close("r1", OWNER.coordinates)
    assert desk.requests.claims(["r1"])["r1"].answered_by == LATER.coordinates


def test_audio_is_removed_if_its_request_is_answered_while_it_is_still_being_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer slept longer than its lock lasts; its successor stored, answered and removed the same audio."""
    put = desk.blobs.put

    def put_late(file: Path, name: str) -> str:
        desk.redis.delete(KEYS.lock(SHA))
        desk.answer()
        return put(file, name)

    monkeypatch.setattr(desk.blobs, "put", put_late)
    with pytest.raises(Exception, match="lock"):
        desk.audio.keep(desk.wav, SHA, "r1", OWNER)
    assert not desk.blobs.exists(desk.audio.reference(SHA))
    assert desk.left() == {}


def test_what_is_known_of_a_source_is_confirmed_by_the_server_before_it_is_used_however_late_it_was_written(
    desk: Desk,
) -> None:
    """A zombie may write it at any time: it holds a validator and what that version held, which stays true."""
    cache = ResultCache(desk.redis, KEYS, 1000)
    cache.remember_source("k", KnownSource(etag='"new"', audio_sha256="cd" * 32))
    cache.remember_source("k", KnownSource(etag='"old"', audio_sha256=SHA))
    known = cache.known_source("k")
    assert known is not None and (known.etag, known.audio_sha256) == ('"old"', SHA)
    assert cache.find(["never kept"]) is None


def test_what_a_worker_had_in_hand_that_died_behind_its_commit_is_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.state.in_flight._TIDY_EVERY_S", 0.0)
    registry = RedisInFlightRegistry(desk.redis, KEYS, "s", 1000)
    registry.begin([OWNER, LATER])
    next_worker = RedisInFlightRegistry(desk.redis, KEYS, "s", 1000)
    next_worker.tidy(lambda places: dict.fromkeys(places, LATER.offset))
    assert desk.redis.hkeys(KEYS.in_flight("s")) == [LATER.coordinates]
    next_worker.tidy(lambda places: dict.fromkeys(places, LATER.offset + 1))
    assert desk.left() == {}
