"""Ingestion on real bytes from a local web server: what it announces, what it remembers, what it does not do twice."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.ingestion.service import Limits
from shared.blobs.store import BlobGoneError, BlobStore
from shared.bus.base import Record
from shared.contracts.codec import encode_message
from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError
from shared.contracts.messages import ErrorReport, IngestedTrack, Stage
from shared.models.answer_key import ANSWER_VERSION
from shared.runtime.service import Origin, Outcome
from shared.system.work_folder import PREFIX
from tests.support.ingestion_bench import Bench, announced, retried
from tests.support.samples import SAMPLE
from tests.support.spotify_api import CLIENT_ID, CLIENT_SECRET, TRACK, TRACK_ID, SpotifyApi
from tests.support.web_server import WebServer

ETAG = {"ETag": '"v1"'}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with WebServer() as web:
        made = Bench(tmp_path, web)
        yield made
        made.service.close()


def test_audio_is_announced_with_its_names_length_and_segments_and_stored_by_content(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    bench.web.add("/b.mp3", SAMPLE.read_bytes())
    first = bench.track("r1", audio_url=bench.web.url("/a.mp3"))
    second = bench.track("r2", audio_url=bench.web.url("/b.mp3"), force=True)
    assert first.audio is not None and second.audio is not None
    assert first.artist == "0zone0ne" and first.title
    assert first.audio.segments == int(first.audio.duration_s // 3)
    assert first.audio.blob == second.audio.blob == f"blob:audio/{first.audio.sha256}.wav"
    with bench.blobs.open(first.audio.blob) as stored:
        assert stored.read(4) == b"RIFF"
    assert first.track_key != second.track_key


def test_of_a_long_track_as_many_segments_are_announced_as_are_listened_to(tmp_path: Path) -> None:
    announced_segments = {}
    with WebServer() as web:
        web.add("/a.mp3", SAMPLE.read_bytes())
        for limit in (None, 2, 1000):
            made = Bench(tmp_path / str(limit), web, max_segments=limit)
            audio = made.track("r1", audio_url=web.url("/a.mp3")).audio
            assert audio is not None
            announced_segments[limit] = audio.segments
            made.service.close()
    assert announced_segments[2] == 2
    assert announced_segments[None] == announced_segments[1000] > 2


def test_an_answer_in_the_cache_travels_with_the_track_unless_forced(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    cached = bench.answer(bench.track("r1", audio_url=bench.web.url("/a.mp3")))
    assert bench.track("r2", audio_url=bench.web.url("/a.mp3")).cached == cached
    assert bench.track("r3", audio_url=bench.web.url("/a.mp3"), force=True).cached is None


def test_a_source_the_server_says_is_unchanged_is_not_downloaded_again(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes(), headers=ETAG)
    url = bench.web.url("/a.mp3")
    cached = bench.answer(bench.track("r1", audio_url=url))
    again = bench.track("r2", audio_url=url)
    assert again.cached == cached and again.audio is None
    assert bench.web.requests[-1].headers["if-none-match"] == ETAG["ETag"]
    bench.ended("r2")
    # A new version is a new download, and its own audio.
    bench.web.add("/a.mp3", SAMPLE.read_bytes()[: 150 * 1024], headers={"ETag": '"v2"'})
    changed = bench.track("r3", audio_url=url)
    assert changed.cached is None and changed.audio is not None


def test_an_unchanged_source_whose_answer_has_expired_is_downloaded(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes(), headers=ETAG)
    url = bench.web.url("/a.mp3")
    bench.track("r1", audio_url=url)
    bench.ended("r1")
    assert bench.track("r2", audio_url=url).audio is not None


def test_a_file_that_cannot_be_decoded_is_remembered_as_such(bench: Bench) -> None:
    bench.web.add("/bad.mp3", b"no audio" * 100, headers=ETAG)
    url = bench.web.url("/bad.mp3")
    first = bench.handled(bench.delivery("r1", audio_url=url))
    assert isinstance(first, TonestreamError) and first.code is ErrorCode.UNSUPPORTED_MEDIA
    bench.ended("r1")
    again = bench.track("r2", audio_url=url)
    assert again.error is not None and again.error.code is ErrorCode.UNSUPPORTED_MEDIA
    assert bench.web.count("/bad.mp3") == 2


def test_what_another_version_refused_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.web.add("/a.mp3", b"no audio" * 100, headers=ETAG)
    url = bench.web.url("/a.mp3")
    with monkeypatch.context() as before:
        before.setattr("services.ingestion.steps.ANSWER_VERSION", ANSWER_VERSION - 1)
        refused = bench.handled(bench.delivery("r1", audio_url=url))
        assert isinstance(refused, TonestreamError)
        bench.ended("r1")
    # The server would still confirm its ETag; what it sends can be read by now.
    bench.web.add("/a.mp3", SAMPLE.read_bytes(), headers=ETAG)
    assert bench.track("r2", audio_url=url).audio is not None


def test_the_same_request_twice_is_answered_once_but_a_redelivered_one_again(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    delivery = bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))
    first = announced(bench.handled(delivery))
    assert announced(bench.handled(delivery)).audio == first.audio
    assert bench.handled(bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))) == Outcome()


def test_ten_requests_for_one_source_at_once_are_one_download_and_nine_followers(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    deliveries = [bench.delivery(f"r{number}", audio_url=bench.web.url("/a.mp3")) for number in range(10)]
    tracks = [announced(handled) for handled in bench.service.handle(deliveries)]
    (leader,) = [track for track in tracks if track.follows is None]
    assert leader.audio is not None
    assert {track.follows for track in tracks} == {None, leader.request_id}
    assert bench.web.count("/a.mp3") == 1
    # A redelivery is what it was: the leader leads, a follower follows.
    again = [announced(handled) for handled in bench.service.handle(deliveries)]
    assert [track.follows for track in again] == [track.follows for track in tracks]
    assert sorted([leader.request_id, *bench.ended(leader.request_id)]) == sorted(f"r{n}" for n in range(10))
    assert bench.track("later", audio_url=bench.web.url("/a.mp3")).follows is None


def test_the_same_audio_under_two_addresses_is_classified_for_the_first_that_asked(bench: Bench) -> None:
    for name in ("/a.mp3", "/b.mp3", "/c.mp3"):
        bench.web.add(name, SAMPLE.read_bytes())
    first = bench.track("r1", audio_url=bench.web.url("/a.mp3"))
    second = bench.track("r2", audio_url=bench.web.url("/b.mp3"))
    third = bench.track("r3", audio_url=bench.web.url("/b.mp3"))
    assert (first.follows, second.follows, third.follows) == (None, "r1", "r2")
    assert second.audio is not None and third.audio is None
    # Who asks to have it computed anew is not given the answer of another.
    assert bench.track("r4", audio_url=bench.web.url("/c.mp3"), force=True).follows is None
    assert bench.ended("r1") == ["r2"]
    assert bench.ended("r2") == ["r3"]
    assert bench.track("r5", audio_url=bench.web.url("/c.mp3")).follows is None


def test_a_reason_for_no_audio_travels_on_in_the_name_of_what_was_asked_for(bench: Bench) -> None:
    delivery = bench.delivery("r1", audio_url=bench.web.url("/gone.mp3"))
    fault = bench.handled(delivery)
    assert isinstance(fault, TonestreamError) and fault.code is ErrorCode.FETCH_FAILED
    failed = announced(bench.service.give_up(Origin("r1", "k", delivery.record), fault))
    assert failed.error is not None and "404" in failed.error.message
    assert failed.source == bench.web.url("/gone.mp3")


def test_a_busy_server_is_asked_again_after_the_pause_that_it_asks_for(bench: Bench) -> None:
    bench.web.add("/a.mp3", status=503, headers={"Retry-After": "7"})
    note = retried(bench.handled(bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))))
    assert (note.attempt, note.waited_ms, note.first_error) == (
        1,
        7000,
        "fetch_failed: the server answered with status 503 (Service Unavailable)",
    )
    assert note.not_before_ms == pytest.approx(time.time() * 1000 + 7000, abs=2000)


def test_a_spotify_id_without_credentials_says_what_is_missing(bench: Bench) -> None:
    track = bench.track("r1", track_id="4uLU6hMCjMI75M1A2tKUQC")
    assert track.audio is None and track.error is not None
    assert track.error.code is ErrorCode.SPOTIFY_UNAVAILABLE
    assert "TONESTREAM_SPOTIFY_CLIENT_ID" in track.error.message


@pytest.fixture
def with_spotify(tmp_path: Path) -> Iterator[tuple[Bench, SpotifyApi]]:
    with WebServer() as web, SpotifyApi() as api:
        more = {"spotify_client_id": CLIENT_ID, "spotify_client_secret": CLIENT_SECRET}
        made = Bench(tmp_path, web, **more, spotify_api_url=api.api_url, spotify_token_url=api.token_url)
        yield made, api
        made.service.close()


def test_a_spotify_id_becomes_names_and_the_audio_of_its_preview(with_spotify: tuple[Bench, SpotifyApi]) -> None:
    bench, api = with_spotify
    bench.web.add("/preview", SAMPLE.read_bytes(), headers={"Content-Type": "audio/mpeg"})
    api.add_track(TRACK_ID, {**TRACK, "preview_url": bench.web.url("/preview")})
    track = bench.track("r1", track_id=f"spotify:track:{TRACK_ID}")
    assert (track.title, track.artist, track.isrc) == (
        "Cut To The Feeling",
        "Carly Rae Jepsen, Someone Else",
        "USUM71703861",
    )
    assert track.audio is not None and track.spotify_id == TRACK_ID
    assert track.track_key == f"spotify:{TRACK_ID}"


def test_a_track_without_a_preview_travels_on_without_audio(with_spotify: tuple[Bench, SpotifyApi]) -> None:
    bench, api = with_spotify
    api.add_track(TRACK_ID, {**TRACK, "preview_url": None})
    track = bench.track("r1", track_id=TRACK_ID)
    assert track.audio is None and track.title == "Cut To The Feeling"
    assert track.error is not None and track.error.code is ErrorCode.NO_AUDIO


def test_with_an_audio_url_beside_it_spotify_may_be_down(with_spotify: tuple[Bench, SpotifyApi]) -> None:
    bench, api = with_spotify
    api.break_track(503)
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    track = bench.track("r1", track_id=TRACK_ID, audio_url=bench.web.url("/a.mp3"))
    assert track.audio is not None and track.artist == "0zone0ne"
    alone = bench.handled(bench.delivery("r2", track_id=TRACK_ID))
    assert retried(alone).first_error.startswith("spotify_unavailable: ")


def test_an_upload_is_removed_once_its_request_is_committed(bench: Bench) -> None:
    reference = bench.blobs.put(SAMPLE, "uploads/one")
    kept = bench.blobs.put(SAMPLE, "catalogue/one.mp3")
    for request_id, blob in (("r1", reference), ("r2", kept)):
        outcome = bench.handled(bench.delivery(request_id, audio_url=blob))
        assert isinstance(outcome, Outcome)
        assert bench.blobs.exists(blob)
        for clean_up in outcome.after_commit:
            clean_up()
    assert not bench.blobs.exists(reference)
    assert bench.blobs.exists(kept)


def test_an_upload_that_is_no_audio_is_removed_with_its_failure(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no audio at all")
    reference = bench.blobs.put(tmp_path / "notes", "uploads/notes")
    delivery = bench.delivery("r1", audio_url=reference)
    fault = bench.handled(delivery)
    assert isinstance(fault, TonestreamError)
    for clean_up in bench.service.give_up(Origin("r1", "k", delivery.record), fault).after_commit:
        clean_up()
    assert not bench.blobs.exists(reference)


def test_a_track_that_is_too_long_is_tried_again_for_the_limit_may_have_been_raised(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes(), headers=ETAG)
    decode_file = bench.service._steps._decode_file

    def refuse(source: Path, destination: Path, abandoned: threading.Event) -> Any:
        raise TonestreamError(ErrorCode.TOO_LONG, "over the limit")

    bench.service._steps._decode_file = refuse
    fault = bench.handled(bench.delivery("r1", audio_url=bench.web.url("/a.mp3")))
    assert isinstance(fault, TonestreamError) and fault.code is ErrorCode.TOO_LONG
    bench.service._steps._decode_file = decode_file
    bench.ended("r1")
    assert bench.track("r2", audio_url=bench.web.url("/a.mp3")).audio is not None


def test_a_blob_that_is_gone_is_the_fault_of_whoever_named_it(bench: Bench) -> None:
    fault = bench.handled(bench.delivery("r1", audio_url="blob:uploads/nothing"))
    assert isinstance(fault, TonestreamError) and fault.code is ErrorCode.FETCH_FAILED
    assert "not in the blob store" in fault.message


def test_ingestion_pauses_while_as_many_requests_are_under_way_as_there_may_be(bench: Bench) -> None:
    bench.service._limits = Limits(2, 1000.0)
    votes = bench.service._requests
    error = ErrorReport(code=ErrorCode.NO_AUDIO, stage=Stage.INGESTION, message="none")
    for number in range(2):
        assert bench.service.ready()
        part = IngestedTrack(request_id=f"r{number}", track_key="k", source="s", error=error)
        votes.add([(part, Record("tonestream.tracks", 0, number, b"k", b""))])
    assert not bench.service.ready()
    votes.forget("r0")
    assert bench.service.ready()


def test_blobs_that_nobody_cleaned_up_are_swept_by_age(bench: Bench) -> None:
    reference = bench.blobs.put(SAMPLE, "audio/old.wav")
    assert bench.blobs.sweep(older_than_s=3600) == 0
    assert bench.blobs.sweep(older_than_s=-1) == 1
    assert not bench.blobs.exists(reference)


def test_what_a_killed_worker_left_in_the_temporary_folder_is_removed_at_the_start_and_now_and_then(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for remove in (bench.service.start, bench.service.tick):
        abandoned = tmp_path / f"{PREFIX}abandoned"
        abandoned.mkdir()
        (abandoned / "source").write_bytes(b"x")
        bench.service._next_sweep = 0.0
        remove()
        assert not abandoned.exists()


def test_a_request_leaves_nothing_in_the_temporary_folder(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    bench.web.add("/bad.mp3", b"no audio" * 100)
    bench.track("r1", audio_url=bench.web.url("/a.mp3"))
    assert isinstance(bench.handled(bench.delivery("r2", audio_url=bench.web.url("/bad.mp3"))), TonestreamError)
    assert list(temporary.iterdir()) == []


def test_a_temporary_folder_that_cannot_be_used_is_no_fault_of_the_request(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DependencyError, match="temporary folder"):
        bench.handled(bench.delivery("r1", audio_url=bench.web.url("/a.mp3")))


def test_a_request_with_half_a_character_in_it_is_answered(bench: Bench) -> None:
    """JSON may name such halves; no message can carry them."""
    value = b'{"request_id": "r1", "audio_url": "https://example.org/\\ud800.mp3"}'
    record = Record("tonestream.requests", 0, 77, b"k", value, (), 1234)
    error = TonestreamError(ErrorCode.INVALID_REQUEST, "audio_url: no text")
    failed = announced(bench.service.give_up(Origin("r1", "k", record), error))
    assert failed.source == "https://example.org/?.mp3"
    encode_message(failed)


# Models


def test_a_request_may_name_its_model_by_folder_or_id_and_the_track_says_by_what_it_is_to_be_answered(
    bench: Bench,
) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    url = bench.web.url("/a.mp3")
    own = bench.track("r1", audio_url=url)
    assert own.answer_key == bench.answer_key and own.answer_key.genre_model.startswith("musicnn-lstm-")
    # Neither the source nor the audio is followed: another model is other work.
    cheap = bench.track("r2", audio_url=url, model="mfcc-lstm")
    assert cheap.answer_key is not None and cheap.answer_key.genre_model.startswith("mfcc-lstm-")
    assert cheap.follows is None and cheap.audio is not None
    # The same model by its other name is the same work.
    assert bench.track("r3", audio_url=url, model=cheap.answer_key.genre_model).follows == "r2"


def test_an_answer_by_one_model_is_not_given_to_a_request_for_another(bench: Bench) -> None:
    bench.web.add("/a.mp3", SAMPLE.read_bytes(), headers=ETAG)
    url = bench.web.url("/a.mp3")
    cached = bench.answer(bench.track("r1", audio_url=url, model="mfcc-lstm"))
    own = bench.track("r2", audio_url=url)
    assert own.cached is None and own.audio is not None
    assert bench.track("r3", audio_url=url, model="mfcc-lstm").cached == cached


def test_a_long_track_is_announced_with_as_many_segments_as_its_model_is_asked_about(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingestion.steps.segment_count", lambda samples, spec: 80)
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    counts = {}
    for model in ("musicnn-lstm", "mfcc-lstm"):
        audio = bench.track(model, audio_url=bench.web.url("/a.mp3"), model=model).audio
        counts[model] = audio and audio.segments
    assert counts == {"musicnn-lstm": 20, "mfcc-lstm": 80}


def test_a_model_that_is_not_installed_is_an_invalid_request_that_names_those_that_are(bench: Bench) -> None:
    fault = bench.handled(bench.delivery("r1", audio_url=bench.web.url("/a.mp3"), model="mood-ten"))
    assert isinstance(fault, TonestreamError) and fault.code is ErrorCode.INVALID_REQUEST
    assert "musicnn-lstm (musicnn-lstm-" in fault.message and "mfcc-lstm (mfcc-lstm-" in fault.message
    assert bench.web.requests == []


def test_a_local_file_is_limited_by_its_duration_and_no_download_limit(tmp_path: Path) -> None:
    with WebServer() as web:
        web.add("/song.mp3", SAMPLE.read_bytes())
        bench = Bench(tmp_path, web, fetch_max_bytes=1000)
        reference = bench.blobs.put(SAMPLE, "uploads/song")
        assert bench.track("local", audio_url=reference).audio is not None
        handled = bench.handled(bench.delivery("download", audio_url=web.url("/song.mp3")))
        bench.service.close()
    assert isinstance(handled, TonestreamError) and handled.code is ErrorCode.TOO_LARGE
    assert handled.message == ("the file has more than 0.00095 MB, the largest download (TONESTREAM_FETCH_MAX_BYTES)")


def test_a_local_file_is_read_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    """A CD image is not copied; and what is removed afterwards is the link."""
    song = tmp_path / "song.mp3"
    song.write_bytes(SAMPLE.read_bytes())
    os.utime(song, (0, 0))
    reference = bench.blobs.link(song, "uploads/r")
    assert bench.blobs.sweep(1000.0) == 0, "the link is new, however old the song is"
    handled = bench.handled(bench.delivery("r", audio_url=reference))
    assert announced(handled).audio is not None
    assert isinstance(handled, Outcome)
    for clean_up in handled.after_commit:
        clean_up()
    assert song.exists() and not bench.blobs.exists(reference)


def test_a_local_file_that_is_gone_by_its_turn_says_so(bench: Bench, tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    song.write_bytes(SAMPLE.read_bytes())
    reference = bench.blobs.link(song, "uploads/r")
    song.unlink()
    handled = bench.handled(bench.delivery("r", audio_url=reference))
    assert isinstance(handled, TonestreamError) and handled.code is ErrorCode.FETCH_FAILED
    assert handled.message == "the file is gone; it was there when it was named"


def test_a_copy_from_an_object_store_that_the_disk_has_no_room_for_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(f"memory://{tmp_path.name}")
    reference = store.put(SAMPLE, "uploads/r")
    store.fetch(reference, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == SAMPLE.read_bytes()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TonestreamError, match=r"has 0\.\d+ MB, and 0\.00095 MB are free in the temporary") as caught:
        store.fetch(reference, tmp_path / "second")
    assert caught.value.code is ErrorCode.TOO_LARGE and not (tmp_path / "second").exists()
    with pytest.raises(BlobGoneError):
        store.fetch("blob:uploads/none", tmp_path / "third")
