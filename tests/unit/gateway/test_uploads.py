"""Uploads: any size below the limit, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.gateway import uploads
from services.gateway.submissions import Submissions
from shared.bus.base import BusUnavailableError
from shared.contracts.messages import TrackRequest, TrackResult
from tests.support.gateway_bench import GatewayBench, answer, problem_of

WAV = {"Content-Type": "audio/wav"}
BODY = os.urandom(300_000)


def stored(bench: GatewayBench, request: TrackRequest) -> bytes:
    assert request.audio_url is not None and request.audio_url.startswith("blob:incoming/")
    with bench.blobs.open(request.audio_url) as opened:
        return opened.read()


def left(bench: GatewayBench) -> list[Path]:
    return [path for path in (bench.folder / "blobs").rglob("*") if path.is_file()]


def test_a_body_is_stored_and_named_by_its_header(bench: GatewayBench) -> None:
    headers = {**WAV, "X-Filename": "album/s%C3%B6ng%20%231.wav"}
    taken = bench.client.post("/v1/tracks?model=mfcc-lstm&force=true", content=BODY, headers=headers)
    assert taken.status_code == 202 and taken.json()["source"] == "album/söng #1.wav"
    (request,) = bench.asked()
    assert stored(bench, request) == BODY
    assert (request.source, request.model, request.force) == ("album/söng #1.wav", "mfcc-lstm", True)


def test_an_upload_that_the_broker_took_without_saying_so_is_kept_and_has_one_answer(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    submissions, publish, silent = bench.gateway.submissions, Submissions._publish, threading.Event()

    def published_without_a_word(self: Submissions, wanted: Sequence[TrackRequest], timeout_s: float = 8.0) -> None:
        if not silent.is_set():
            publish(self, wanted, timeout_s)
            silent.set()
        raise BusUnavailableError("no answer in time")

    monkeypatch.setattr(Submissions, "_publish", published_without_a_word)
    headers = {**WAV, "Idempotency-Key": "my-1"}
    refused = bench.client.post("/v1/tracks", content=BODY, headers=headers)
    assert problem_of(refused) == (503, "unavailable") and "sent again" in refused.json()["detail"]
    (request,) = bench.asked()
    assert stored(bench, request) == BODY
    bench.answered(answer("my-1"))
    repeated = bench.client.post("/v1/tracks", content=BODY, headers=headers)
    assert (repeated.status_code, repeated.json().get("stage")) == (202, "ok"), repeated.json()
    monkeypatch.setattr(Submissions, "_publish", publish)
    bench.until(lambda: submissions._resuming is None)
    assert {one.audio_url for one in bench.asked()} == {request.audio_url}, "it is published until it is confirmed"
    assert len(left(bench)) <= 1


def test_what_is_removed_while_it_waits_for_the_broker_is_not_sent_again(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    submissions, publish = bench.gateway.submissions, Submissions._publish

    def silent(self: Submissions, wanted: Sequence[TrackRequest], timeout_s: float = 8.0) -> None:
        raise BusUnavailableError("no answer in time")

    monkeypatch.setattr(Submissions, "_publish", silent)
    for key in ("removed", "kept"):
        refused = bench.client.post("/v1/tracks", content=BODY, headers={**WAV, "Idempotency-Key": key})
        assert problem_of(refused) == (503, "unavailable")
    assert bench.client.delete("/v1/tracks/removed").status_code == 204
    monkeypatch.setattr(Submissions, "_publish", publish)
    bench.until(lambda: submissions._resuming is None)
    (request,) = bench.asked()
    assert request.request_id == "kept" and stored(bench, request) == BODY


def test_a_form_with_one_file_is_answered_like_a_track(bench: GatewayBench) -> None:
    taken = bench.client.post("/v1/tracks", files={"file": ("söng.mp3", BODY)}, data={"model": "mfcc-lstm"})
    assert taken.status_code == 202 and taken.headers["location"] == taken.json()["location"]
    (request,) = bench.asked()
    assert stored(bench, request) == BODY and (request.source, request.model) == ("söng.mp3", "mfcc-lstm")


def test_a_form_with_many_files_has_an_answer_for_each(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, fetch_max_bytes=200_000) as bench:
        parts = [("file", (f"{n}.mp3", BODY[n : n + 1000 * n])) for n in range(40)]
        parts.append(("file", ("large.mp3", BODY)))
        taken = bench.client.post("/v1/tracks", files=parts).json()["tracks"]
        assert [one["source"] for one in taken] == [*(f"{n}.mp3" for n in range(40)), "large.mp3"]
        assert taken[0]["problem"]["code"] == "invalid_request", "it is empty"
        assert taken[40]["problem"]["code"] == "too_large"
        requests = sorted(bench.asked(39), key=lambda request: int((request.source or "").removesuffix(".mp3")))
        assert [stored(bench, request) for request in requests] == [BODY[n : n + 1000 * n] for n in range(1, 40)]
        assert len(left(bench)) == 39


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:  # no length is announced
        yield from (BODY[at : at + 10_000] for at in range(0, len(BODY), 10_000))

    with GatewayBench(tmp_path, fetch_max_bytes=100_000) as bench:
        for content in (BODY, pieces()):
            refused = bench.client.post("/v1/tracks", content=content, headers=WAV)
            assert problem_of(refused) == (413, "too_large")
            assert "TONESTREAM_FETCH_MAX_BYTES" in refused.json()["detail"]
        assert problem_of(bench.client.post("/v1/tracks", files={"file": BODY})) == (413, "too_large")
        assert bench.nothing_asked() and left(bench) == []


def test_empty_and_odd_uploads_are_refused_and_leave_nothing(shared: GatewayBench) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=xx"}
    head = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    for content, headers, expected in (
        (b"", WAV, (422, "invalid_request")),
        (BODY, {"Content-Type": "text/html"}, (415, "unsupported_media")),
        (BODY, {}, (415, "unsupported_media")),
        (BODY, {"Content-Type": "multipart/form-data"}, (422, "invalid_request")),
        (b"", form, (400, "upload_incomplete")),
        (BODY, form, (422, "invalid_request")),
        (head + b"begins", form, (400, "upload_incomplete")),
        (head + b"whole\r\n" + head + b"half", form, (400, "upload_incomplete")),
        (b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--xx--', form, (422, "invalid_request")),
        (head.replace(b"file", b"data") + b"\r\n--xx--", form, (422, "invalid_request")),
        (head + b"a\r\n--xx\r\nContent-Disposition: form-data; name=force\r\n\r\nmaybe\r\n--xx--", form,
         (422, "invalid_request")),
    ):  # fmt: skip
        refused = shared.client.post("/v1/tracks", content=content, headers=headers)
        assert problem_of(refused) == expected, (content[:60], refused.text)
    assert shared.nothing_asked() and left(shared) == []


def test_an_upload_that_breaks_off_leaves_nothing(shared: GatewayBench) -> None:
    address = urlsplit(shared.url)
    for kind in (b"audio/wav", b"multipart/form-data; boundary=xx"):
        with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
            connection.sendall(
                b"POST /v1/tracks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\nContent-Type: "
                + kind
                + b'\r\n\r\n--xx\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
                + BODY[:50_000]
            )
            shared.until(lambda: len(left(shared)) == 1)
        shared.until(lambda: left(shared) == [])
    assert shared.nothing_asked()


def test_a_full_disk_is_said_and_leaves_nothing(bench: GatewayBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(uploads._File, "write", full)
        refused = bench.client.post("/v1/tracks", content=BODY, headers=WAV)
        assert problem_of(refused) == (507, "disk_full")
        assert problem_of(bench.client.post("/v1/tracks", files={"file": BODY})) == (507, "disk_full")
    assert left(bench) == []
    assert bench.client.post("/v1/tracks", content=BODY, headers=WAV).status_code == 202


def test_the_same_upload_under_the_same_key_is_one_request_and_one_blob(bench: GatewayBench) -> None:
    headers = {**WAV, "Idempotency-Key": "my-1", "X-Filename": "a.wav"}
    first = bench.client.post("/v1/tracks", content=BODY, headers=headers)
    (request,) = bench.asked()
    assert bench.client.post("/v1/tracks", content=BODY, headers=headers).json() == first.json()
    refused = bench.client.post("/v1/tracks", content=BODY[1:], headers=headers)
    assert problem_of(refused) == (409, "conflict")
    assert bench.nothing_asked() and len(left(bench)) == 1
    assert hashlib.sha256(stored(bench, request)).digest() == hashlib.sha256(BODY).digest()


def test_an_upload_stays_until_its_answer_is_there_and_no_other_request_waits_for_it(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as bench:
        taken = bench.client.post("/v1/tracks", content=BODY, headers=WAV).json()
        again = bench.client.post(f"{taken['location']}/retry").json()
        first, second = bench.asked(2)
        bench.answered(_answer_to(first))
        assert bench.blobs.exists(str(first.audio_url))
        lost = bench.blobs.put(_file(tmp_path), "incoming/lost")
        assert again["request_id"] == second.request_id
    with GatewayBench(tmp_path) as bench:
        (resumed,) = bench.asked()
        assert resumed == second and bench.stage(second.request_id) == "queued"
        assert hashlib.sha256(stored(bench, resumed)).digest() == hashlib.sha256(BODY).digest()
        bench.until(lambda: not bench.blobs.exists(lost))
        bench.answered(_answer_to(resumed))
        bench.until(lambda: not bench.blobs.exists(str(first.audio_url)))
    with GatewayBench(tmp_path) as bench:
        assert bench.nothing_asked()


def test_the_upload_of_a_removed_track_goes_at_once(bench: GatewayBench) -> None:
    taken = bench.client.post("/v1/tracks", content=BODY, headers=WAV).json()
    (request,) = bench.asked()
    assert bench.client.delete(taken["location"]).status_code == 204
    assert left(bench) == [] and not bench.blobs.exists(str(request.audio_url))


def _answer_to(request: TrackRequest) -> TrackResult:
    result = answer(request.request_id)
    return result.model_copy(update={"track": result.track.model_copy(update={"key": request.track_key})})


def _file(folder: Path) -> Path:
    path = folder / "a-file"
    path.write_bytes(b"x")
    return path


def test_uploads_wait_for_room(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, gateway_max_waiting=2) as bench:
        for _ in range(2):
            assert bench.client.post("/v1/tracks", content=BODY, headers=WAV).status_code == 202
        refused = bench.client.post("/v1/tracks", content=BODY, headers=WAV)
        assert problem_of(refused) == (503, "unavailable") and refused.headers["retry-after"]
        first, _ = bench.asked(2)
        bench.answered(answer(first.request_id))
        assert bench.client.post("/v1/tracks", content=BODY, headers=WAV).status_code == 202


def test_a_file_is_never_held_in_memory(bench: GatewayBench, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    write = uploads._File.write

    def watched(file: uploads._File, data: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(data))
        write(file, data)

    monkeypatch.setattr(uploads._File, "write", watched)
    body = BODY * 20
    assert bench.client.post("/v1/tracks", content=body, headers=WAV).status_code == 202
    assert bench.client.post("/v1/tracks", files={"file": body}).status_code == 202
    assert 0 < largest <= 1 << 20
