"""The entry: a client's mistake is the client's answer: no dead letter, no stop, and no answer to anybody else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.ingestion.service import Ingestion
from shared.bus.base import Headers, Outgoing, Record, TopicSpec
from shared.contracts.codec import MalformedMessageError, Message, decode_message, encode_message
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    LONGEST_SOURCE,
    ErrorReport,
    Genre,
    GenreAlternative,
    IngestedTrack,
    SegmentGenre,
    Stage,
    Status,
    Track,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel
from shared.runtime.crash_guard import CrashLoop
from shared.runtime.dead_letters import DeadLetter, dead_letter
from shared.runtime.envelope import outgoing, salvaged_request_id
from shared.runtime.logs import JsonFormatter
from shared.runtime.loop import ServiceLoop
from shared.runtime.service import Delivery, Origin, Outcome
from shared.runtime.settling import KEPT_FOR_OPERATORS, Settler
from shared.settings import Settings
from shared.state.in_flight import Crashes
from tests.support.dead_letter_desk import Desk, failed
from tests.support.loop_bench import PATIENT, TOPICS, Bench, Scripted, read, request, running
from tests.support.mill import QUICK, Mill

__all__ = ["desk"]

REQUESTS = TOPICS.name(Channel.REQUESTS)
#: An address that is forbidden is an answer that takes no network.
GOOD = {"audio_url": "http://127.0.0.1:9/a.mp3"}


class Entry(Mill):
    """The real ingestion, which stops at the second dead letter of a minute."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(Ingestion.build(settings), Channel.TRACKS)
        self.loop = ServiceLoop(
            Ingestion.build(settings), self.bus.join("entry", [REQUESTS]), TOPICS, replace(QUICK, dead_letter_limit=1)
        )

    def give(self, value: bytes | dict[str, Any], key: bytes = b"k", headers: Headers = ()) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.bus.publisher().publish([Outgoing(REQUESTS, key, body, headers)])

    def answers(self, count: int) -> dict[str, tuple[ErrorCode, str]]:
        """What so many requests were answered. No letter was written, and no worker stopped."""
        with running(self):
            found = self.made(count)
        read(self.dead, 0)
        tracks = [message for message in found if isinstance(message, IngestedTrack)]
        return {track.request_id: (track.error.code, track.error.message) for track in tracks if track.error}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "blobs" / "music").mkdir(parents=True)
    (tmp_path / "blobs" / "music" / "song").write_bytes(b"x")
    return Settings.model_validate({"redis_url": f"memory://{tmp_path}", "blob_url": f"file://{tmp_path}/blobs"})


@pytest.fixture
def entry(settings: Settings) -> Entry:
    return Entry(settings)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    yield Desk(monkeypatch, capsys)


# What is not understood

#: By name: the body, and the key and headers where they are odd. Each names the request ``bad``, or none.
NOT_UNDERSTOOD: dict[str, tuple[bytes, bytes, Headers]] = {
    "a newer version": (b'{"schema_version":2,"request_id":"bad","playlist":"x"}', b"k", ()),
    "a version of 4,000 digits": (b'{"schema_version":' + b"9" * 4000 + b',"request_id":"bad"}', b"k", ()),
    "no JSON": (b"hello", b"k", ()),
    "a tombstone": (b"", b"k", ()),
    "a tombstone without a key": (b"", b"", ()),
    "no object": (b"[]", b"k", ()),
    "a wrong field": (b'{"request_id":"bad","audiourl":"https://example.org/a"}', b"k", ()),
    "wrong types": (b'{"request_id":"bad","audio_url":[1e999],"force":-0,"source":{}}', b"k", ()),
    "too large": (b'{"request_id":"bad","source":"' + b"x" * 200_000 + b'"}', b"k", ()),
    "too large by far": (b'{"request_id":"bad","source":"' + b"x" * 3_000_000 + b'"}', b"k", ()),
    "UTF-16": ('{"request_id":"bad"}'.encode("utf-16"), b"k", ()),
    "UTF-32": ('{"request_id":"bad"}'.encode("utf-32"), b"k", ()),
    "a byte order mark": (b"\xef\xbb\xbf" + b'{"request_id":"bad"}', b"k", ()),
    "Latin-1": ('{"request_id":"bad","source":"ü"}'.encode("latin-1"), b"k", ()),
    "half a character": (b'{"request_id":"bad","source":"\\ud800"}', b"k", ()),
    "half a character in the request ID": (b'{"request_id":"a\\ud800"}', b"k", ()),
    "half a character in a field's name": (b'{"request_id":"bad","\\ud800":1}', b"k", ()),
    "NUL in a field's name": (b'{"request_id":"bad","\\u0000":1}', b"k", ()),
    "a field's name of 15,000 characters": (b'{"request_id":"bad","' + b"y" * 15_000 + b'":1}', b"k", ()),
    "deep nesting": (b'{"request_id":"bad","source":' + b"[" * 10_000, b"k", ()),
    "a key that is no text": (b"x", b"\xff\xfe\x00" * 100, ()),
    "a huge key": (b"x", b"\x00" * 60_000, ()),
    "a header that is no text": (b"x", b"k", (("tonestream.request_id", b"\xff\xfe"), ("", b""))),
    "5,000 headers": (b"x", b"k", (("h", b"v"),) * 5000),
    "headers of two megabytes": (b"x", b"k", (("h" * 1000, b"v" * 1000),) * 1000),
}


def named(body: bytes, request_id: str) -> bytes:
    """``body`` with another request ID."""
    for encoding in ("utf-8", "utf-16-le", "utf-32-le"):
        body = body.replace("bad".encode(encoding), request_id.encode(encoding))
    return body


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_answered_as_an_invalid_request_and_is_no_dead_letter(
    name: str, entry: Entry
) -> None:
    # The bus takes what a broker takes, which counts compressed bytes.
    entry.bus._topics[REQUESTS].spec = TopicSpec(REQUESTS, 12)
    body, key, headers = NOT_UNDERSTOOD[name]
    for number in range(3):
        entry.give(named(body, f"ba{number}"), key, headers)
    entry.give({"request_id": "last", **GOOD})
    answers = entry.answers(4)
    assert answers.pop("last")[0] is ErrorCode.FETCH_FORBIDDEN
    assert [code for code, _ in answers.values()] == [ErrorCode.INVALID_REQUEST] * 3
    legible = named(body, "ba0") != body and len(body) < 1_000_000 and name not in {"deep nesting", "Latin-1"}
    if legible:
        assert set(answers) == {"ba0", "ba1", "ba2"}
    else:
        assert all(one.startswith(f"{REQUESTS}/") for one in answers)


def test_an_internal_record_of_a_newer_version_is_kept_and_counts(settings: Settings) -> None:
    """Here it is our own upgrade that goes wrong, and the limit is for that."""
    record = Record("unit.tracks", 0, 1, b"k", b'{"schema_version":2,"request_id":"r"}')
    settler = Settler(Scripted(lambda name: Outcome()), TOPICS, PATIENT, lambda seconds: None, str)
    (settled,) = settler.settle([record])
    assert settled.dead and settled.counted == 1


# What is understood and cannot be had

CANNOT_BE_HAD: dict[str, dict[str, Any]] = {
    "a blob that is not there": {"audio_url": "blob:uploads/nothing"},
    "a folder of blobs": {"audio_url": "blob:music"},
    "a blob below a blob": {"audio_url": "blob:music/song/x"},
    "a blob whose name no file can have": {"audio_url": "blob:" + "a" * 280},
}


@pytest.mark.parametrize("name", CANNOT_BE_HAD)
def test_a_blob_that_a_client_names_by_mistake_is_its_answer_and_holds_nobody_up(name: str, entry: Entry) -> None:
    entry.give({"request_id": "bad", **CANNOT_BE_HAD[name]})
    entry.give({"request_id": "last", **GOOD})
    answers = entry.answers(2)
    assert answers["bad"][0] is ErrorCode.FETCH_FAILED and "not in the blob store" in answers["bad"][1]
    assert answers["last"][0] is ErrorCode.FETCH_FORBIDDEN


ODD_SOURCES = {
    "as long as it may be, with a short user": "http://a@" + "b" * (LONGEST_SOURCE - 9),
    "control characters": "\x00\x1b[31m\x7f\u202e" * 1000,
    "four bytes a character": "\U0001f3b5" * LONGEST_SOURCE,
}


@pytest.mark.parametrize("name", ODD_SOURCES)
def test_what_a_client_calls_its_track_is_never_a_defect(name: str, entry: Entry) -> None:
    found: list[Message] = []
    with running(entry):
        for request_id in ("failed", "follows"):
            fields = {"request_id": request_id, **GOOD, "source": ODD_SOURCES[name]}
            entry.give(json.dumps(fields, ensure_ascii=False).encode())
            found += entry.made(1)
    read(entry.dead, 0)
    # The second follows the first: its track is announced with its source, not with a failure.
    assert [track.follows for track in found if isinstance(track, IngestedTrack)] == [None, "failed"]
    for track in found:
        assert isinstance(track, IngestedTrack) and len(track.source) <= LONGEST_SOURCE
        error = ErrorReport(code=ErrorCode.FETCH_FORBIDDEN, stage=Stage.INGESTION, message="no")
        shown = Track(key=track.track_key, source=track.source, title="t" * 1000)
        result = TrackResult(request_id="r", status=Status.FAILED, track=shown, errors=(error,))
        assert decode_message(Channel.RESULTS, encode_message(result)) == result


@pytest.mark.parametrize("stamp_ms", [-1, -(2**63), 0, 1, 2**63 - 1])
def test_a_record_with_an_impossible_timestamp_was_made_when_ingestion_saw_it(
    stamp_ms: int, settings: Settings
) -> None:
    service = Ingestion.build(settings)
    record = Record(REQUESTS, 0, 0, b"k", encode_message(request("r")), (), stamp_ms)
    before_ms = int(time.time() * 1000)
    refused = TrackRequest(request_id="r", audio_url="http://127.0.0.1:9/a.mp3")
    (verdict,) = service.handle([Delivery(record, refused)])
    assert isinstance(verdict, TonestreamError), verdict
    (track,) = service.give_up(Origin("r", "k", record), verdict).messages
    assert isinstance(track, IngestedTrack)
    assert before_ms <= track.received_at_ms <= int(time.time() * 1000)
    service.close()


def test_a_timestamp_that_can_be_right_is_when_the_request_was_made(settings: Settings) -> None:
    service = Ingestion.build(settings)
    stamp_ms = int(time.time() * 1000) - 3600_000
    record = Record(REQUESTS, 0, 0, b"k", b"", (), stamp_ms)
    gone = TonestreamError(ErrorCode.NO_AUDIO, "none")
    (track,) = service.give_up(Origin("r", "k", record), gone).messages
    assert isinstance(track, IngestedTrack) and track.received_at_ms == stamp_ms
    service.close()


def test_a_finished_answer_of_four_hours_of_segments_travels_with_its_track() -> None:
    second = GenreAlternative(label="classical", confidence=0.012345)
    segments = tuple(
        SegmentGenre(start_s=3.0 * n, end_s=3.0 * n + 3, label="classical", confidence=0.987654, runner_up=second)
        for n in range(4800)
    )
    genre = Genre(
        label="classical", confidence=0.9, agreement=1.0, segments=segments, model="m" * 60,
        probabilities={**dict.fromkeys(GENRES, 0.0), GENRES[0]: 1.0},
    )  # fmt: skip
    error = ErrorReport(code=ErrorCode.SPOTIFY_UNAVAILABLE, stage=Stage.MOOD_WORKER, message="x" * 1000)
    track = Track(key="k", source="\x00" * LONGEST_SOURCE, title="t" * 1000, duration_s=14_400.0)
    cached = TrackResult(request_id="r", status=Status.PARTIAL, track=track, genre=genre, errors=(error,))
    announced = IngestedTrack(request_id="r2", track_key="k", source="\x00" * LONGEST_SOURCE, cached=cached)
    assert decode_message(Channel.TRACKS, encode_message(announced)) == announced


# Whose request it is


def test_at_the_entry_only_the_body_says_whose_request_it_is(entry: Entry) -> None:
    forwarded: Headers = (("tonestream.request_id", b"A"),)
    entry.give({"request_id": "B", "audiourl": "https://example.org"}, b"b", forwarded)
    entry.give(b"nothing", b"b", forwarded)
    entry.give({"request_id": "A", **GOOD})
    answers = entry.answers(3)
    assert answers.pop("A")[0] is ErrorCode.FETCH_FORBIDDEN
    assert answers.pop("B")[0] is ErrorCode.INVALID_REQUEST
    ((unnamed, (code, _)),) = answers.items()
    assert unnamed.startswith(f"{REQUESTS}/") and code is ErrorCode.INVALID_REQUEST


def test_on_our_own_topics_the_header_speaks_for_a_destroyed_body() -> None:
    headers: Headers = (("tonestream.request_id", b"A"),)
    for channel in Channel:
        found = salvaged_request_id(Record(TOPICS.name(channel), 0, 0, b"", b"\x00", headers))
        assert found == (None if channel is Channel.REQUESTS else "A")


@pytest.mark.parametrize("valid_first", [True, False])
def test_of_two_records_with_one_request_id_the_first_is_answered_and_the_second_is_not(
    valid_first: bool, entry: Entry
) -> None:
    valid, invalid = {"request_id": "same", **GOOD}, {"request_id": "same"}
    first, second = (valid, invalid) if valid_first else (invalid, valid)
    entry.give(first)
    with running(entry):
        (answer,) = entry.made(1)
        entry.give(second)
        entry.give({"request_id": "last", **GOOD})
        (last,) = entry.made(1)
    read(entry.dead, 0)
    assert isinstance(answer, IngestedTrack) and answer.error is not None and last.request_id == "last"
    assert answer.error.code is (ErrorCode.FETCH_FORBIDDEN if valid_first else ErrorCode.INVALID_REQUEST)


@pytest.mark.parametrize("valid_first", [True, False])
def test_of_two_records_with_one_request_id_that_are_read_together_the_valid_one_is_answered(
    valid_first: bool, entry: Entry
) -> None:
    valid, invalid = {"request_id": "same", **GOOD}, {"request_id": "same"}
    for body in (valid, invalid) if valid_first else (invalid, valid):
        entry.give(body)
    assert {name: code for name, (code, _) in entry.answers(1).items()} == {"same": ErrorCode.FETCH_FORBIDDEN}


def test_a_dead_letter_of_one_request_replayed_does_not_reopen_the_one_its_header_names(desk: Desk) -> None:
    for name in ("A", "B"):
        assert desk.requests().answer(name, Record(REQUESTS, 0, 1, b"k", b""))
    sent = outgoing(desk.topics, request("B"), key="one")
    desk.to_dead_letters(replace(sent, headers=(("tonestream.request_id", b"A"),)), Stage.INGESTION)
    (listed,) = desk.listed()
    assert listed["request_id"] == "B"
    status, out, _ = desk.command("replay", listed["id"])
    assert status == 0 and "(request B)" in out
    claims = desk.requests().claims(["A", "B"])
    assert claims["A"].answered_by is not None and claims["B"].answered_by is None


def test_headers_that_are_called_like_ours_are_the_records_own_and_come_back_with_it() -> None:
    forged: Headers = (
        ("tonestream.errors.exception", b"Forged"), ("tonestream.errors.topic", b"unit.tracks"),
        ("tonestream.errors.cut", b"all"), ("tonestream.errors.other", b"x"), ("a", b"1"),
    )  # fmt: skip
    original = Record(REQUESTS, 3, 7, b"k", b"v", forged)
    buried = dead_letter(TOPICS, original, Stage.INGESTION, ValueError("why"), 1)
    letter = DeadLetter.of(Record(buried.topic, 0, 0, buried.key, buried.value, buried.headers))
    assert (letter.exception, letter.topic, letter.cut) == ("ValueError", REQUESTS, "")
    assert letter.replayed().headers[:-1] == forged


# What counts


def test_a_record_of_a_client_that_kills_its_worker_takes_no_room_in_the_limit() -> None:
    settler = Settler(Scripted(lambda name: Outcome()), TOPICS, PATIENT, lambda seconds: None, str)
    for topic, counted in ((Channel.REQUESTS, 0), (Channel.TRACKS, 1)):
        record = Record(TOPICS.name(topic), 0, 0, b"k", encode_message(request("r")))
        assert settler.to_dead_letters(record, CrashLoop(Crashes(3, 5)), 8).counted == counted
        # A handler's own exception is what a bad deploy looks like, and counts.
        assert settler.to_dead_letters(record, ValueError("a defect"), 1).counted == 1


def test_an_answer_says_that_its_record_is_kept_where_and_only_where_it_is() -> None:
    bench = Bench(Scripted(lambda name: ValueError("a defect")))
    bench.send(request("a"))
    with running(bench):
        (track,) = bench.tracks(1)
        read(bench.dead, 1)
    assert track.error is not None and track.error.message.endswith(KEPT_FOR_OPERATORS)


# Letters that are too large


def huge(value: int = 10, headers: int = 0, key: int = 10) -> Record:
    return Record(REQUESTS, 3, 7, b"k" * key, b"v" * value, (("h" * 100, b"x" * 900),) * headers)


@pytest.mark.parametrize(
    "record",
    [huge(value=9_000_000), huge(headers=9000), huge(key=9_000_000), huge(4_000_000, 4000, 4_000_000)],
    ids=["value", "headers", "key", "all"],
)
def test_a_record_larger_than_a_dead_letter_may_be_is_cut_and_says_so(record: Record) -> None:
    buried = dead_letter(TOPICS, record, Stage.INGESTION, failed(ValueError("why")), 1)
    size = len(buried.key) + len(buried.value) + sum(len(name) + len(held) for name, held in buried.headers)
    assert size <= MAX_MESSAGE_BYTES[Channel.DEAD_LETTERS]
    letter = DeadLetter.of(Record(buried.topic, 0, 0, buried.key, buried.value, buried.headers))
    assert (letter.stood_at, letter.exception, letter.message) == (f"{REQUESTS}/3@7", "ValueError", "why")
    assert letter.cut == (
        f"a key of {len(record.key)} bytes, {len(record.headers)} headers and a value of {len(record.value)} bytes"
    )
    assert record.value.startswith(buried.value) and record.key.startswith(buried.key)
    assert letter.original_headers() == record.headers[: len(letter.original_headers())]


@pytest.mark.parametrize("most", [1_048_588, 40_000])
def test_a_letter_that_its_topic_refuses_is_cut_until_it_takes_it_and_the_next_record_is_handled(most: int) -> None:
    bench = Bench(Scripted(lambda name: ValueError("x") if name == "bad" else bench.service.done(name)))
    dead_letters = TOPICS.name(Channel.DEAD_LETTERS)
    for topic, limit in ((dead_letters, most), (REQUESTS, None)):
        bench.bus._topics[topic].spec = TopicSpec(topic, 12, max_message_bytes=limit)
    bad = outgoing(TOPICS, request("bad"), key="one")
    bench.send(replace(bad, headers=(("h", b"x" * 1000),) * 3000), request("good"))
    with running(bench):
        assert {track.request_id for track in bench.tracks(2)} == {"bad", "good"}
        (record,) = read(bench.dead, 1)
    letter = DeadLetter.of(record)
    assert letter.stood_at.startswith(f"{REQUESTS}/") and "3000 headers" in letter.cut
    assert letter.exception == "ValueError" and letter.request_id == "bad"


def test_a_letter_that_holds_only_a_part_of_its_record_is_not_replayed(desk: Desk) -> None:
    sent = replace(outgoing(desk.topics, request("a"), key="one"), headers=(("h", b"x" * 1000),) * 6000)
    desk.to_dead_letters(sent, Stage.INGESTION)
    (listed,) = desk.listed()
    assert "6000 headers" in listed["cut"]
    status, _, err = desk.command("replay", listed["id"])
    assert status == 1 and "holds only a part of its record" in err and "desk.requests/0@0" in err
    assert "[cut]" in desk.command("list")[1]


def test_an_output_that_no_topic_takes_does_not_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter of a record whose output is refused may be refused as well."""
    bench = Bench(Scripted(lambda name: bench.service.done(name)))
    tracks, dead_letters = TOPICS.name(Channel.TRACKS), TOPICS.name(Channel.DEAD_LETTERS)
    bench.bus._topics[REQUESTS].spec = TopicSpec(REQUESTS, 12)
    bench.bus._topics[dead_letters].spec = TopicSpec(dead_letters, 12, max_message_bytes=1_048_588)
    # "big" is refused by the tracks topic, the answer that is given instead of it is not.
    bench.bus._topics[tracks].spec = TopicSpec(tracks, 12, max_message_bytes=1000)
    done = bench.service.done
    wide = IngestedTrack(
        request_id="big", track_key="k", source="s" * 2000,
        error=ErrorReport(code=ErrorCode.NO_AUDIO, stage=Stage.INGESTION, message="handled"),
    )  # fmt: skip
    monkeypatch.setattr(bench.service, "script", lambda name: Outcome((wide,)) if name == "big" else done(name))
    big = outgoing(TOPICS, request("big"), key="one")
    bench.send(replace(big, headers=(("h", b"x" * 1000),) * 3000), request("good"))
    with running(bench):
        assert {track.request_id for track in bench.tracks(2)} == {"big", "good"}
        read(bench.dead, 1)


def test_a_body_of_any_size_is_searched_for_its_request_within_bounds() -> None:
    body = b'{"request_id": "r", "source": "' + b"x" * 5_000_000 + b'"}'
    assert salvaged_request_id(Record(REQUESTS, 0, 0, b"", body)) is None
    with pytest.raises(MalformedMessageError, match="takes at most"):
        decode_message(Channel.REQUESTS, body)


def test_a_huge_key_is_cut_where_it_is_logged(entry: Entry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    caplog.set_level("INFO")
    entry.bus._topics[REQUESTS].spec = TopicSpec(REQUESTS, 12)
    entry.give({"request_id": "good", **GOOD}, b"k" * 3_000_000)
    entry.give(b"not a request", b"k" * 3_000_000)
    entry.answers(2)
    formatted = caplog.handler.stream.getvalue().splitlines()
    assert len(formatted) >= 2 and max(len(line) for line in formatted) < 2000
