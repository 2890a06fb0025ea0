"""Dead letters: complete headers without secrets, a limit per minute, and the commands that list and replay them."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from shared.bus.base import BusUnavailableError, Outgoing, Reader, Record
from shared.contracts.codec import encode_message
from shared.contracts.errors import ErrorCode, TransientError
from shared.contracts.messages import ErrorReport, GenreFailure, IngestedTrack, Stage
from shared.contracts.topics import Channel
from shared.runtime.dead_letters import DeadLetter, DeadLetterLimit, DeadLetterLimitError, dead_letter
from shared.runtime.redaction import Redactor
from shared.runtime.service import Handled
from shared.settings import Settings
from shared.state.requests import ANSWER
from tests.support.dead_letter_desk import Desk, failed, run_to_its_end
from tests.support.loop_bench import PATIENT, TOPICS, Bench, Scripted, read, request, running

NAMES = ("exception", "message", "stacktrace", "topic", "partition", "offset", "service", "attempts")


def record(topic: str = "unit.requests", offset: int = 7, **more: Any) -> Record:
    return Record(**{"topic": topic, "partition": 3, "offset": offset, "key": b"k\xff", "value": b"\x00v", **more})


# Headers


def test_a_dead_letter_is_the_original_record_with_eight_headers_more() -> None:
    original = record(headers=(("a", b"1"), ("a", b"\xff"), ("content-type", b"x")))
    letter = dead_letter(TOPICS, original, Stage.GENRE_WORKER, failed(ValueError("why")), attempts=4)
    assert (letter.topic, letter.key, letter.value) == ("unit.dead-letters", original.key, original.value)
    assert letter.headers[:3] == original.headers
    told = {name.removeprefix("tonestream.errors."): value.decode() for name, value in letter.headers[3:]}
    assert tuple(told) == NAMES
    trace = told.pop("stacktrace")
    assert trace.startswith("Traceback") and trace.rstrip().endswith("ValueError: why")
    assert told == {
        "exception": "ValueError", "message": "why", "topic": "unit.requests", "partition": "3", "offset": "7",
        "service": "genre-worker", "attempts": "4",
    }  # fmt: skip


def test_what_was_buried_comes_back_byte_for_byte_and_says_whose_replay_it_is() -> None:
    original = record(headers=(("a", b"1"), ("a", b"\xff")))
    buried = dead_letter(TOPICS, original, Stage.INGESTION, failed(ValueError("x")), 1)
    letter = DeadLetter.of(Record(buried.topic, 2, 5, buried.key, buried.value, buried.headers))
    assert (letter.id, letter.stood_at) == ("2:5", "unit.requests/3@7")
    again = letter.replayed()
    assert (again.topic, again.key, again.value) == (original.topic, original.key, original.value)
    assert again.headers == (*original.headers, ("tonestream.replay.of", b"2:5"))
    # It dies once more, and is replayed once more: the whole way can be read.
    buried = dead_letter(TOPICS, record(headers=again.headers), Stage.INGESTION, failed(ValueError("x")), 1)
    letter = DeadLetter.of(Record(buried.topic, 2, 9, buried.key, buried.value, buried.headers))
    assert letter.replay_of == ("2:5",)
    assert [value for name, value in letter.replayed().headers if name == "tonestream.replay.of"] == [b"2:5", b"2:9"]


@pytest.mark.parametrize(
    "said",
    [
        "cannot reach redis://:hunter2@cache:6379/0",
        "cannot reach redis://:hun/ter2@cache or https://user:p@ss@host/x",
        "s3://AKIA:hunter2@bucket/key: denied",
        "spotify said no to client-secret-of-ours",
        "POST client_secret=hunter2&grant_type=client_credentials",
        '{"client_secret": "hunter2"}',
        "Authorization: Bearer hunter2hunter2",
        "Authorization: Basic aHVudGVyMjpodW50ZXIy",
        "https://s3/x?X-Amz-Signature=hunter2&y=1",
    ],
)
def test_secrets_do_not_get_into_the_headers(said: str) -> None:
    redact = Redactor(["client-secret-of-ours", "hun/ter2", ""])
    letter = dead_letter(TOPICS, record(), Stage.INGESTION, failed(RuntimeError(said)), 1, redact)
    for _, value in letter.headers:
        for secret in (b"hunter2", b"ter2", b"client-secret-of-ours", b"p@ss", b"aHVudGVyMjpodW50ZXIy"):
            assert secret not in value
    assert b"***" in dict(letter.headers)["tonestream.errors.message"]


def test_a_secret_is_not_seen_by_halves_where_a_text_is_cut() -> None:
    said = "x" * 995 + "client-secret-of-ours"
    letter = dead_letter(TOPICS, record(), Stage.INGESTION, RuntimeError(said), 1, Redactor(["client-secret-of-ours"]))
    message = dict(letter.headers)["tonestream.errors.message"]
    assert len(message) <= 1000 and b"client" not in message


def test_the_settings_know_their_secrets() -> None:
    settings = Settings.model_validate(
        {
            "redis_url": "redis://:p%40ss-1@host:6379/0",
            "spotify_client_secret": "hush-2",
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": "tone",
            "kafka_sasl_password": "hush-3",
        }
    )
    assert set(settings.secrets()) >= {"p%40ss-1", "p@ss-1", "hush-2", "hush-3"}


def test_an_error_of_any_size_or_without_words_makes_a_letter() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    for error in (SpeechlessError(), ValueError("x" * 5_000_000), ValueError("\ud800 \x00"), KeyError("://" * 100_000)):
        letter = dead_letter(TOPICS, record(), Stage.INGESTION, failed(error), 1)
        assert sum(len(value) for _, value in letter.headers) < 50_000


@pytest.mark.parametrize("text", [pytest.param("\ud800", id="surrogate"), pytest.param("x" * 5_000_000, id="long")])
def test_an_error_whose_text_is_no_text_stops_nothing(text: str) -> None:
    service = Scripted(lambda name: service.done(name) if name == "b" else ValueError(text))
    bench = Bench(service)
    bench.send(request("a"), request("b"))
    with running(bench):
        assert {track.request_id for track in bench.tracks(2)} == {"a", "b"}
        read(bench.dead, 1)


def attempts(letter: Record) -> bytes | None:
    return letter.header("tonestream.errors.attempts")


def test_the_letter_says_how_many_times_the_record_was_tried() -> None:
    tries: dict[str, int] = {}

    def script(name: str) -> Handled[IngestedTrack]:
        tries[name] = tries.get(name, 0) + 1
        if name == "flaky" and tries[name] < 3:
            return TransientError(ErrorCode.FETCH_FAILED, "not now")
        if name == "raises":
            raise ValueError("for all of the batch")
        return ValueError("a defect")

    for names, expected in ((["flaky"], b"3"), (["once"], b"1"), (["raises", "other"], b"2")):
        tries.clear()
        bench = Bench(Scripted(script))
        bench.send(*(request(name) for name in names))
        with running(bench):
            letters = read(bench.dead, len(names))
        assert attempts(letters[0]) == expected
        assert max(tries.values()) == int(expected)


def test_a_handler_that_gives_too_few_verdicts_is_a_defect_that_stops_nothing() -> None:
    class Forgetful(Scripted):
        def handle(self, deliveries: Any) -> Any:
            return super().handle(deliveries)[:1]

    service = Forgetful(lambda name: service.done(name))
    bench = Bench(service)
    bench.send(request("a"), request("b"))
    with running(bench):
        assert [track.request_id for track in bench.tracks(2)] == ["a", "b"]


def test_a_defect_between_the_batches_does_not_end_the_worker() -> None:
    ticked = threading.Event()

    class Untidy(Scripted):
        def tick(self) -> Any:
            ticked.set()
            raise ValueError("a vote nobody can read")

    service = Untidy(lambda name: service.done(name))
    bench = Bench(service)
    with running(bench):
        assert ticked.wait(5)
        bench.send(request("a"))
        bench.tracks(1)


# The limit


def test_the_limit_counts_the_letters_of_the_last_minute() -> None:
    now = [0.0]
    limit = DeadLetterLimit(3, lambda: now[0])
    limit.count(2)
    assert limit.room() == 1
    now[0] = 30.0
    limit.count(1)
    assert limit.room() == 0
    now[0] = 60.0
    assert limit.room() == 2
    assert DeadLetterLimit(0).room() > 1e9


def test_a_worker_that_would_bury_too_many_stops_says_why_and_leaves_the_rest_uncommitted() -> None:
    bench = Bench(Scripted(lambda name: ValueError("a bad deploy")), replace(PATIENT, dead_letter_limit=4))
    bench.send(*(request(f"r{number}") for number in range(30)))
    (stopped,) = run_to_its_end(bench)
    assert isinstance(stopped, DeadLetterLimitError) and "TONESTREAM_DEAD_LETTER_LIMIT" in str(stopped)
    assert len(read(bench.dead, 4)) == 4
    health = bench.pulse.ready(10)
    assert not health.ok and "more than 4 dead letters in a minute" in str(health.stopped_because)
    # It has left the group, and a better version takes what it left.
    left = bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]).poll(100, 1.0)
    assert [one.value for one in left] == [encode_message(request(f"r{number}")) for number in range(4, 30)]


def test_more_poison_in_one_batch_than_the_limit_allows_goes_at_the_pace_of_the_limit() -> None:
    # Started again after its pause, a worker gets on by as many letters as a minute allows: nothing is stuck for good.
    service = Scripted(lambda name: service.done(name) if name == "good" else ValueError("poison"))
    bench = Bench(service, replace(PATIENT, dead_letter_limit=4))
    bench.send(*(request(f"r{number}") for number in range(7)), request("good"))
    assert len(run_to_its_end(bench)) == 1
    bench.loop = type(bench.loop)(
        service, bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]), TOPICS, replace(PATIENT, dead_letter_limit=4)
    )
    with running(bench):
        assert bench.tracks(8)[-1].request_id == "good"
    read(bench.dead, 7)


@pytest.mark.parametrize("limit", [0, 4])
def test_without_a_limit_and_for_typed_failures_nothing_stops(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "answers_invalid_input", True)
    fault: Exception = ValueError("x") if not limit else TransientError(ErrorCode.FETCH_FAILED, "no", 1e9)
    bench = Bench(Scripted(lambda name: fault), replace(PATIENT, dead_letter_limit=limit))
    bench.send(*(request(f"r{number}") for number in range(15)))
    bench.send(*[Outgoing(TOPICS.name(Channel.REQUESTS), b"one", b"garbage")] * 15)
    with running(bench):
        bench.tracks(30)
    read(bench.dead, 0 if limit else 15)


# The commands


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


def test_dead_letters_are_listed_for_people_and_for_programs(desk: Desk) -> None:
    assert desk.command("list") == (0, "no dead letters\n", "")
    assert desk.listed() == []
    desk.bury_request("r1")
    desk.bury_prediction("r2")
    first, second = desk.listed()
    assert (first["request_id"], first["service"], first["exception"]) == ("r1", "ingestion", "ValueError")
    assert (first["topic"], first["replayed"], first["replay_of"]) == ("desk.requests", False, [])
    assert [one["request_id"] for one in desk.listed("--limit", "1")] == ["r2"]
    assert [one["request_id"] for one in desk.listed("--service", "ingestion")] == ["r1"]
    status, out, _ = desk.command("list")
    assert status == 0 and out.splitlines()[0].startswith(first["id"]) and "ValueError: a defect" in out
    assert second["id"] in out


def test_one_letter_is_shown_whole_and_a_terminal_obeys_none_of_its_bytes(desk: Desk) -> None:
    sent = Outgoing(desk.topics.name(Channel.TRACKS), b"\x1b[2Jkey", b"\x00\xff\x1b]0;x\x07", (("h", b"\x1b[31m"),))
    desk.to_dead_letters(sent, Stage.MOOD_WORKER, error=ValueError("said \x1b[31m"))
    (one,) = desk.listed()
    status, out, _ = desk.command("show", one["id"])
    assert status == 0 and "\x1b" not in out and "\x07" not in out
    assert "ValueError" in out and "Traceback" in out and "\\x1b[2Jkey" in out and "header h: \\x1b[31m" in out


def test_a_replayed_request_is_forgotten_published_as_it_was_and_marked(desk: Desk) -> None:
    sent = desk.bury_request("r1")
    entered = Record("desk.requests", 0, 0, b"one", b"")
    assert desk.requests().accept("r1", entered) and desk.requests().answer("r1", entered)
    desk.redis.hset(desk.keys.request("r1"), ANSWER, "{}")
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="x")
    desk.requests().add([(GenreFailure(request_id="r1", track_key="one", error=error), entered)])
    requests = desk.reader(Channel.REQUESTS)
    (one,) = desk.listed()
    status, out, _ = desk.command("replay", one["id"])
    assert status == 0 and out == f"replayed {one['id']} to desk.requests (request r1)\n"
    (again,) = read(requests, 1)
    assert (again.key, again.value) == (sent.key, sent.value)
    assert again.headers == (*sent.headers, ("tonestream.replay.of", one["id"].encode()))
    assert [key for key in desk.redis.keys("*") if "r1" in str(key)] == []
    assert desk.redis.zcard(desk.keys.waiting()) == 0
    # It stays listed, --all leaves it out, and by its ID it is replayed as often as one likes.
    assert desk.listed()[0]["replayed"] is True
    assert desk.command("replay", "--all")[1] == "0 replayed, 0 not\n"
    assert desk.command("replay", one["id"])[0] == 0
    read(requests, 1)


def test_a_part_of_an_answered_request_is_not_replayed_and_the_output_says_why(desk: Desk) -> None:
    desk.bury_prediction("r1")
    desk.bury_prediction("r2")
    assert desk.requests().accept("r1", Record("desk.requests", 0, 4, b"one", b""))
    assert desk.requests().answer("r1", Record("desk.moods", 0, 1, b"one", b""))
    predictions = desk.reader(Channel.PREDICTIONS)
    status, out, said = desk.command("replay", "--all")
    assert status == 0 and out.splitlines()[-1] == "1 replayed, 1 not"
    assert "request r1 is answered already" in said and "the request stands at desk.requests/0@4" in said
    read(predictions, 1)
    answered = next(one for one in desk.listed() if one["request_id"] == "r1")
    assert answered["replayed"] is False
    assert desk.command("replay", answered["id"])[0] == 1
    read(predictions, 0)


def test_a_request_that_is_still_under_way_is_not_replayed(desk: Desk) -> None:
    desk.bury_request("r1")
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="x")
    announced = IngestedTrack(request_id="r1", track_key="one", source="one", error=error)
    desk.requests().add([(announced, Record("desk.tracks", 0, 0, b"one", b""))])
    status, _, said = desk.command("replay", desk.listed()[0]["id"])
    assert status == 1 and "still under way" in said


@pytest.mark.parametrize("topic", ["elsewhere.requests", "desk.results", "desk.dead-letters", "desk.nothing", ""])
def test_a_letter_whose_original_topic_is_unknown_is_not_replayed(desk: Desk, topic: str) -> None:
    headers = (("tonestream.errors.topic", topic.encode()),) if topic else ()
    desk.bus.publisher().publish([Outgoing(desk.topics.name(Channel.DEAD_LETTERS), b"k", b"v", headers)])
    (one,) = desk.listed()
    status, _, said = desk.command("replay", one["id"])
    assert status == 1 and "its original topic is unknown" in said
    assert desk.command("replay", "--all")[0] == 0


def test_all_of_one_service_are_replayed_and_no_others(desk: Desk) -> None:
    desk.bury_request("r1")
    desk.bury_prediction("r2")
    status, out, _ = desk.command("replay", "--all", "--service", "aggregator")
    assert status == 0 and out.splitlines()[-1] == "1 replayed, 0 not"
    assert {one["request_id"]: one["replayed"] for one in desk.listed()} == {"r1": False, "r2": True}


def test_records_that_die_again_at_once_are_not_sent_round_for_ever(desk: Desk) -> None:
    for number in range(60):
        desk.bury_request(f"r{number}", number)
    requests = desk.reader(Channel.REQUESTS)
    stop = threading.Event()

    def kill_again() -> None:
        while not stop.is_set():
            for one in requests.poll(10, 0.02):
                desk.to_dead_letters(Outgoing(one.topic, one.key, one.value, one.headers), Stage.INGESTION, one.offset)

    thread = threading.Thread(target=kill_again)
    thread.start()
    try:
        status, out, _ = desk.command("replay", "--all")
    finally:
        time.sleep(0.2)
        stop.set()
        thread.join()
    assert status == 0 and out.splitlines()[-1] == "60 replayed, 0 not"
    assert len([one for one in desk.listed() if one["replay_of"]]) == 60


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["show", "0:99"], 1, "there is no dead letter 0:99"),
        (["replay", "0:99"], 1, "there is no dead letter 0:99"),
        (["replay"], 2, "name the dead letters to replay, or give --all"),
        (["replay", "--all", "0:1"], 2, "or give --all"),
        (["replay", "0:1", "--service", "ingestion"], 2, "--service goes with --all"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_exit_status_for_it(
    desk: Desk, arguments: list[str], status: int, said: str
) -> None:
    found, _, error = desk.command(*arguments)
    assert found == status and said in error


@pytest.mark.parametrize("arguments", [["show", "one"], ["list", "--limit", "0"], ["list", "--service", "nobody"]])
def test_wrong_arguments_are_wrong_usage(desk: Desk, arguments: list[str]) -> None:
    assert desk.command(*arguments)[0] == 2


def test_without_redis_the_list_is_shown_and_nothing_is_replayed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bury_request("r1")
    monkeypatch.setenv("TONESTREAM_REDIS_URL", "redis://127.0.0.1:1/0")
    status, out, said = desk.command("list", "--json")
    assert status == 0 and json.loads(out)["replayed"] is None and "Redis cannot be used" in said
    requests = desk.reader(Channel.REQUESTS)
    assert desk.command("replay", json.loads(out)["id"])[0] == 1
    read(requests, 0)


def test_a_missing_topic_and_reading_for_too_long_are_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        desk.bury_request(f"r{number}", number)
    status, _, said = desk.command("list", "--timeout", "0")
    assert status == 1 and "were not read to their end in 0 s" in said
    monkeypatch.setenv("TONESTREAM_TOPIC_PREFIX", "other")
    status, _, said = desk.command("list")
    assert status == 1 and "other.dead-letters" in said and "tonestream topics create" in said


def test_without_a_broker_the_command_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(topics: Any, from_beginning: bool = True) -> Reader:
        raise BusUnavailableError("NoBrokersAvailable")

    monkeypatch.setattr(desk.bus, "reader", unreachable)
    for command in (["list"], ["show", "0:1"], ["replay", "0:1"]):
        status, _, said = desk.command(*command)
        assert (status, said) == (1, "tonestream: NoBrokersAvailable\n")


def test_what_is_logged_during_a_command_holds_no_password(desk: Desk) -> None:
    assert desk.command("list")[0] == 0
    logging.getLogger("shared.bus.kafka.bus").error("redis://keeper:hunter22@cache:6379 is away")
    said = desk.capsys.readouterr().err
    assert "is away" in said and "hunter22" not in said
