"""The lock under which decoded audio is stored and removed: renewed by whoever works, gone soon after a sleeper."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from shared.blobs.store import BlobStore
from shared.bus.base import Record
from shared.state import audio as audio_state
from shared.state.audio import SharedAudio
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
