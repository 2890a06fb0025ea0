"""What becomes of a batch that nobody can read: a dead letter that names it, and no answer to anybody."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.bus.base import Record, Unreadable
from shared.contracts.messages import Stage
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel
from shared.runtime.crash_guard import CrashLoop
from shared.runtime.dead_letters import DeadLetter, dead_letter
from shared.runtime.redaction import Redactor
from shared.runtime.settling import Settler
from shared.state.in_flight import Crashes
from tests.support.dead_letter_desk import Desk
from tests.support.loop_bench import PATIENT, TOPICS, Scripted, request

#: Looks like a request to who looks into it.
BYTES = json.dumps({"request_id": "somebody", "audio_url": "http://example.org/a.mp3"}).encode()


def a_batch(channel: Channel, value: bytes = BYTES, **more: Any) -> Record:
    damage = Unreadable(5, "CorruptRecordError: failed crc check")
    return Record(TOPICS.name(channel), 3, 9, b"", value, unreadable=damage, **more)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


def settler(service: Scripted | None = None) -> Settler:
    return Settler(service or Scripted(ValueError), TOPICS, PATIENT, lambda _: None, Redactor())


def test_a_batch_that_cannot_be_read_is_buried_by_name_and_never_handled_or_answered() -> None:
    service = Scripted(lambda name: service.done(name))
    good = Record(TOPICS.name(Channel.REQUESTS), 3, 10, b"k", request("good").model_dump_json().encode())
    bad, done = settler(service).settle([a_batch(Channel.REQUESTS), good])
    assert service.batches == [["good"]] and done.kind == "done"
    (letter,) = bad.outputs
    assert letter.topic == TOPICS.name(Channel.DEAD_LETTERS) and letter.value == BYTES
    headers = {name.removeprefix("tonestream.errors."): value.decode() for name, value in letter.headers}
    headers.pop("stacktrace")
    assert headers == {
        "exception": "UnreadableBatch",
        "message": "unit.requests, partition 3, offsets 5 to 9 cannot be read: CorruptRecordError: failed crc check",
        "topic": "unit.requests",
        "partition": "3",
        "first_offset": "5",
        "offset": "9",
        "service": "ingestion",
        "attempts": "1",
    }
    read = DeadLetter.of(Record(letter.topic, 0, 0, letter.key, letter.value, letter.headers))
    assert read.request_id is None


@pytest.mark.parametrize(
    ("channel", "kind", "counts"), [(Channel.REQUESTS, "unreadable", False), (Channel.TRACKS, "dead", True)]
)
def test_it_counts_against_the_worker_only_where_no_stranger_writes(channel: Channel, kind: str, counts: bool) -> None:
    (bad,) = settler().settle([a_batch(channel)])
    assert (bad.kind, bad.dead) == (kind, counts)


def test_one_that_kills_its_worker_is_buried_without_an_answer_too() -> None:
    buried = settler().to_dead_letters(a_batch(Channel.REQUESTS), CrashLoop(Crashes(3, 5)), 8)
    (letter,) = buried.outputs
    assert letter.topic == TOPICS.name(Channel.DEAD_LETTERS) and letter.value == b""


def test_a_batch_too_large_for_the_dead_letters_is_named_without_its_bytes() -> None:
    huge = a_batch(Channel.FEATURES, bytes(MAX_MESSAGE_BYTES[Channel.DEAD_LETTERS]))
    (bad,) = settler().settle([huge])
    assert (
        bad.outputs[0].value == b"" and b"offsets 5 to 9" in dict(bad.outputs[0].headers)["tonestream.errors.message"]
    )


def test_it_is_not_replayed_and_the_output_says_why(desk: Desk) -> None:
    original = replace(a_batch(Channel.REQUESTS), topic=desk.topics.name(Channel.REQUESTS))
    desk.bus.publisher().publish([dead_letter(desk.topics, original, Stage.INGESTION, ValueError("x"), 1)])
    (listed,) = desk.listed()
    assert listed["request_id"] is None
    status, _, said = desk.command("replay", listed["id"])
    assert status == 1 and "whoever wrote it has to send them again" in said
