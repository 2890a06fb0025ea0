"""The lock under which decoded audio is stored and removed: renewed by whoever works, gone soon after a sleeper."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from shared.blobs.store import BlobStore
from shared.bus.base import Record
from shared.state import audio as audio_state
from shared.state.audio import Keeping, SharedAudio
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Requests

SHA = "ab" * 32
KEYS = Keys("t")
ENTRY = Record("t.requests", 0, 1, b"k", b"")


class Bench:
    def __init__(self, folder: Path) -> None:
        requests = Requests.open(connect(f"memory://{time.monotonic_ns()}"), KEYS, "s", 1000, 100.0)
        self.client = requests.client
        self.requests = requests
        self.blobs = BlobStore(f"file://{folder}/blobs")
        self.audio = SharedAudio(self.blobs, requests, 1000)
        self.wav = folder / "a.wav"
        self.wav.write_bytes(b"audio")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(audio_state, "_LOCK_S", 0.4)
    return Bench(tmp_path)


def test_storing_may_take_longer_than_the_lock_lasts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    put, inside = bench.blobs.put, threading.Event()

    def slow(file: Path, name: str) -> str:
        inside.set()
        time.sleep(1.5)
        return put(file, name)

    monkeypatch.setattr(bench.blobs, "put", slow)
    storing = threading.Thread(target=bench.audio.keep, args=(bench.wav, SHA, "r1", ENTRY))
    storing.start()
    assert inside.wait(5)
    time.sleep(0.8)
    assert bench.client.exists(KEYS.lock(SHA)), "renewed, although it outlasts its time"
    storing.join()
    assert bench.blobs.exists(bench.audio.reference(SHA)) and not bench.client.exists(KEYS.lock(SHA))


def test_a_worker_that_sleeps_with_the_lock_does_not_keep_others_waiting_for_long(bench: Bench) -> None:
    asleep = bench.client.lock(KEYS.lock(SHA), timeout=audio_state._LOCK_S)
    assert asleep.acquire()
    started = time.monotonic()
    bench.audio.keep(bench.wav, SHA, "r2", ENTRY)
    assert time.monotonic() - started < 3.0
    assert bench.blobs.exists(bench.audio.reference(SHA))


class KeepingBench(Bench):
    """Audio stays for a minute, and 250 bytes of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.audio = SharedAudio(self.blobs, self.requests, 1000, Keeping(60.0, 250))

    def heard(self, sha256: str, request_id: str, record: Record = ENTRY) -> None:
        self.wav.write_bytes(b"x" * 100)
        self.requests.accept(request_id, record)
        self.audio.keep(self.wav, sha256, request_id, record)

    def closed(self, request_id: str, record: Record = ENTRY) -> None:
        assert self.requests.answer(request_id, record)
        assert self.requests.close(request_id, record.coordinates)
        self.audio.release(request_id)
        self.requests.forget(request_id, record.coordinates)

    def age(self, sha256: str, seconds: float) -> None:
        file = self.file(sha256)
        os.utime(file, (time.time() - seconds, time.time() - seconds))

    def file(self, sha256: str) -> Path:
        return Path(self.blobs._path(self.audio.reference(sha256)))


@pytest.fixture
def keeping(tmp_path: Path) -> KeepingBench:
    return KeepingBench(tmp_path)


def test_audio_stays_to_be_played_after_its_last_request_is_closed(keeping: KeepingBench) -> None:
    keeping.heard("a" * 64, "r1")
    keeping.closed("r1")
    assert keeping.file("a" * 64).exists()


def test_what_was_left_for_too_long_goes_and_the_rest_stays(keeping: KeepingBench) -> None:
    for letter in "ab":
        keeping.heard(letter * 64, letter)
        keeping.closed(letter)
    keeping.age("a" * 64, 61.0)
    keeping.heard("c" * 64, "c")
    keeping.closed("c")
    assert [keeping.file(letter * 64).exists() for letter in "abc"] == [False, True, True]


def test_of_too_much_the_oldest_goes_but_nothing_that_a_request_needs(keeping: KeepingBench) -> None:
    for number, letter in enumerate("abcde"):
        keeping.heard(letter * 64, letter)
        keeping.age(letter * 64, 50.0 - number)
    for letter in "bcde":
        keeping.closed(letter)
    assert [keeping.file(letter * 64).exists() for letter in "abcde"] == [True, False, False, False, True]
    keeping.closed("a")
    assert keeping.file("a" * 64).exists()


def test_audio_that_is_needed_again_is_stored_anew_so_that_it_does_not_expire_meanwhile(keeping: KeepingBench) -> None:
    keeping.heard("a" * 64, "r1")
    keeping.closed("r1")
    keeping.age("a" * 64, 59.0)
    keeping.heard("a" * 64, "r2")
    assert time.time() - keeping.file("a" * 64).stat().st_mtime < 30


def test_a_worker_that_wakes_up_late_stores_nothing_and_removes_nothing(keeping: KeepingBench) -> None:
    keeping.heard("a" * 64, "r1")
    keeping.closed("r1")
    before = keeping.file("a" * 64).stat()
    keeping.audio.keep(keeping.wav, "a" * 64, "r1", ENTRY)
    keeping.audio.release("r1")
    assert keeping.file("a" * 64).stat().st_mtime_ns == before.st_mtime_ns
    keeping.audio.keep(keeping.wav, "b" * 64, "r1", ENTRY)
    assert not keeping.file("b" * 64).exists()
    assert not keeping.client.exists(KEYS.owners("a" * 64))
