"""The client over the topics: on the bus in memory, with workers that only answer. See also tests/integration."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus.base import BusUnavailableError, Outgoing
from shared.bus.memory import MemoryBus
from shared.contracts.messages import Status, TrackResult
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing
from tests.support.answering import Answering, whole_result
from tonestream import AsyncClient, Client, NotOffered, Refused, Ticket, TimedOut, Unavailable
from tonestream.client import over_kafka
from tonestream.client.over_kafka import AsyncKafkaEnd, FilePlace, KafkaEnd

TOPICS = Topics("unit")
URL = "https://example.org/song.mp3"


class Bench:
    """A bus, workers that answer, and clients of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = MemoryBus()
        self.workers = Answering(self.bus, TOPICS)

    def end(self, bus: MemoryBus | None = None) -> KafkaEnd:
        files = FilePlace(self.folder / "music", f"file://{self.folder}/blobs")
        return KafkaEnd(bus or self.bus, TOPICS, files, timeout_s=5.0)

    def client(self, bus: MemoryBus | None = None) -> Client:
        return Client._of(self.end(bus))

    def asynchronous(self) -> AsyncClient:
        return AsyncClient._of(AsyncKafkaEnd(self.end()))

    def publish(self, *results: TrackResult) -> None:
        with self.bus.publisher() as publisher:
            publisher.publish([outgoing(TOPICS, result) for result in results])


class Shared(MemoryBus):
    """A bus that outlives the clients that close it."""

    def close(self) -> None:
        pass


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.bus = Shared()
    made.workers = Answering(made.bus, TOPICS)
    with made.workers, made.bus.reader([TOPICS.name(Channel.RESULTS)]):  # this one keeps the results, as a topic does
        yield made


def test_a_track_is_submitted_and_answered(bench: Bench) -> None:
    with bench.client() as client:
        result = client.classify(URL, model="mfcc-lstm", timeout_s=10)
    assert result.status is Status.OK
    assert result.genre is not None and result.genre.label == "jazz"
    (request,) = bench.workers.seen
    assert (request.audio_url, request.model, request.force, request.embedding) == (URL, "mfcc-lstm", False, False)


def test_a_result_that_comes_before_anybody_waits_is_not_missed(bench: Bench) -> None:
    with bench.client() as client, client.stream(timeout_s=10) as seen:
        ticket = client.submit(URL)
        assert next(seen).request_id == ticket.request_id  # it is there by now
        assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id
        assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id  # also when it was fetched already


def test_a_result_is_found_by_another_process_with_the_ticket_or_the_id_alone(bench: Bench) -> None:
    with bench.client() as client:
        ticket = client.submit(URL)
        client.wait(ticket, timeout_s=10)
    assert ticket.cursor is not None
    for known in (ticket, Ticket(ticket.request_id), ticket.request_id):
        with bench.client() as another:
            assert another.wait(known, timeout_s=10).request_id == ticket.request_id


def test_waiting_ends_at_its_time_limit_and_can_go_on(bench: Bench) -> None:
    with bench.client() as client:
        ticket = client.submit(URL, request_id="later-1")
        began = time.monotonic()
        with pytest.raises(TimedOut, match=r"later-1 within 0\.3 s; the request goes on"):
            client.wait(ticket, timeout_s=0.3)
        assert time.monotonic() - began < 5
        bench.workers.release()
        assert client.wait(ticket, timeout_s=10).request_id == "later-1"


def test_a_request_id_of_the_callers_is_one_request_however_often_it_is_submitted(bench: Bench) -> None:
    with bench.client() as client:
        assert client.classify(URL, request_id="my-1", timeout_s=10).request_id == "my-1"
    with bench.client() as client:
        assert client.classify(URL, request_id="my-1", timeout_s=10).request_id == "my-1"


def test_threads_that_wait_for_the_same_and_for_other_requests_all_get_their_result(bench: Bench) -> None:
    with bench.client() as client:
        tickets = [client.submit(URL, request_id=f"later-{n % 5}") for n in range(10)]
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda ticket=ticket: found.append(client.wait(ticket, timeout_s=20).request_id))
            for ticket in tickets
        ]
        for thread in threads:
            thread.start()
        bench.workers.release()
        for thread in threads:
            thread.join(20)
        assert sorted(found) == sorted(ticket.request_id for ticket in tickets)


def test_results_that_nobody_fetches_take_no_more_than_their_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(outgoing(TOPICS, whole_result("r" * 32)).value)
    monkeypatch.setattr(over_kafka, "_MOST_BYTES", 3 * size)
    with bench.client() as client:
        with client.stream(timeout_s=10) as seen:
            tickets = [client.submit(URL) for _ in range(10)]
            for _ in tickets:
                next(seen)
        assert [client.wait(ticket, timeout_s=10).request_id for ticket in tickets] == [
            one.request_id for one in tickets
        ]


def test_a_stream_goes_on_where_an_earlier_one_stopped(bench: Bench) -> None:
    with bench.client() as client:
        with client.stream(timeout_s=10) as first:
            bench.publish(*(whole_result(f"r{n}") for n in range(20)))
            seen = [next(first).request_id for _ in range(7)]
        bench.publish(*(whole_result(f"r{n}") for n in range(20, 30)))
        with client.stream(after=first.cursor, timeout_s=10) as second:
            seen += [next(second).request_id for _ in range(23)]
    assert sorted(seen) == sorted(f"r{n}" for n in range(30))


def test_a_stream_without_results_ends_at_its_time_limit(bench: Bench) -> None:
    with bench.client() as client, client.stream(timeout_s=0.3) as results, pytest.raises(TimedOut):
        next(results)


def test_a_result_that_cannot_be_read_does_not_end_a_stream(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with bench.client() as client, client.stream(timeout_s=10) as results:
        with bench.bus.publisher() as publisher:
            publisher.publish([Outgoing(TOPICS.name(Channel.RESULTS), b"k", b'{"request_id": "odd"}')])
        bench.publish(whole_result("r1"))
        assert next(results).request_id == "r1"
    assert "the result of odd cannot be read" in caplog.text


def test_a_file_in_the_shared_folder_is_named_and_another_is_put_into_the_blob_store(bench: Bench) -> None:
    inside, outside = bench.folder / "music" / "a b.mp3", bench.folder / "c.mp3"
    inside.parent.mkdir()
    for file in (inside, outside):
        file.write_bytes(b"sound")
    with bench.client() as client:
        assert client.classify(inside, timeout_s=10).track.source == str(inside)
        assert client.classify(outside, timeout_s=10).track.source == str(outside)
    named, put = bench.workers.seen
    assert named.audio_url == inside.as_uri()
    assert put.audio_url == f"blob:uploads/{put.request_id}"
    assert (bench.folder / "blobs" / "uploads" / put.request_id).read_bytes() == b"sound"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("no-such.mp3", "'no-such.mp3' is no file, no URL and no Spotify track (invalid_request)"),
        ("~no-such-user/a.mp3", "'~no-such-user/a.mp3' is no file"),
        ("a" * 5000, "cannot be read"),
        ("a\0b.mp3", "cannot be read"),
        ("", "'.' is no regular file"),
        ("ftp://example.org/a.mp3", "only http, https and file URLs can be fetched"),
        ("spotify:album:4uLU6hMCjMI75M1A2tKUQC", "it names a Spotify album"),
    ],
)
def test_what_is_no_source_is_refused_before_anything_is_sent(bench: Bench, source: str, why: str) -> None:
    with bench.client() as client, pytest.raises(Refused) as refused:
        client.submit(source)
    assert why in str(refused.value)
    assert refused.value.problem.code == "invalid_request"
    assert bench.workers.seen == []


def test_a_local_file_without_a_place_that_the_workers_share_is_refused(bench: Bench) -> None:
    file = bench.folder / "c.mp3"
    file.write_bytes(b"sound")
    client = Client._of(KafkaEnd(bench.bus, TOPICS, FilePlace(None, None), 5.0))
    with client, pytest.raises(Refused, match="blob store that the workers share"):
        client.submit(file)


def test_a_publication_without_an_answer_is_sent_again_and_stays_one_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = bench.bus.publisher()
    sent = publisher.publish
    tries = []

    def unsure(outputs: list[Outgoing], timeout_s: float = 30.0) -> None:
        sent(outputs, timeout_s)
        tries.append(1)
        if len(tries) == 1:
            raise BusUnavailableError("not acknowledged in time")

    monkeypatch.setattr(publisher, "publish", unsure)
    monkeypatch.setattr(bench.bus, "publisher", lambda: publisher)
    with bench.client() as client, client.stream(timeout_s=0.5) as results:
        ticket = client.submit(URL)
        assert client.wait(ticket, timeout_s=10).request_id == ticket.request_id
        assert next(results).request_id == ticket.request_id
        with pytest.raises(TimedOut):
            next(results)
    assert len(tries) == 2


def test_closing_ends_those_who_wait(bench: Bench) -> None:
    client = bench.client()
    ticket = client.submit(URL, request_id="later-1")
    threading.Timer(0.2, client.close).start()
    with pytest.raises((Unavailable, RuntimeError)):
        client.wait(ticket, timeout_s=20)
    with pytest.raises(RuntimeError, match="closed"):
        client.submit(URL)


def test_a_search_of_the_library_says_that_it_needs_a_gateway(bench: Bench) -> None:
    with bench.client() as client:
        with pytest.raises(NotOffered, match="address of a gateway"):
            list(client.results(genre="jazz"))
        with pytest.raises(NotOffered):
            client.remove("r")
        with pytest.raises(NotOffered):
            client.state("my-1")


def test_tasks_wait_for_many_results_at_once_and_one_may_be_cancelled(bench: Bench) -> None:
    async def scenario() -> list[str]:
        async with bench.asynchronous() as client:
            held = asyncio.create_task(client.classify(URL, request_id="later-1"))
            results = await asyncio.gather(*(client.classify(URL, timeout_s=20) for _ in range(40)))
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            with pytest.raises(TimedOut):
                await client.wait("later-1", timeout_s=0.3)
            bench.workers.release()
            results.append(await client.wait("later-1", timeout_s=20))
            return [result.request_id for result in results]

    found = asyncio.run(scenario())
    assert len(set(found)) == 41 and found[-1] == "later-1"


def test_a_stream_for_asyncio_begins_when_it_is_entered(bench: Bench) -> None:
    async def scenario() -> tuple[str, str]:
        async with bench.asynchronous() as client, client.stream(timeout_s=10) as results:
            ticket = await client.submit(URL)
            return ticket.request_id, (await anext(results)).request_id

    submitted, seen = asyncio.run(scenario())
    assert submitted == seen


def test_a_search_that_was_cut_short_is_made_again_by_the_next_who_waits(bench: Bench) -> None:
    with bench.client() as client:
        ticket = client.submit(URL)
        client.wait(ticket, timeout_s=10)
    with bench.client() as another:
        with pytest.raises(TimedOut):
            another.wait(ticket.request_id, timeout_s=0.0)
        assert another.wait(ticket.request_id, timeout_s=10).request_id == ticket.request_id


def test_more_requests_than_a_client_looks_out_for_are_all_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_kafka, "_MOST_EXPECTED", 3)
    with bench.client() as client:
        tickets = [client.submit(URL) for _ in range(8)]
        assert [client.wait(one, timeout_s=10).request_id for one in tickets] == [one.request_id for one in tickets]


def test_the_environment_counts_and_arguments_go_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONESTREAM_TOPIC_PREFIX", "music")
    monkeypatch.setenv("TONESTREAM_KAFKA_BOOTSTRAP_SERVERS", "elsewhere:1")
    for client, prefix in ((Client("kafka://localhost:9092"), "music"), (Client.kafka(topic_prefix="mine"), "mine")):
        end = client._end
        assert isinstance(end, KafkaEnd)
        assert end._topics.prefix == prefix
        assert end._bus._config.bootstrap_servers == "localhost:9092"  # type: ignore[attr-defined]
        client.close()


def test_a_setting_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="there is no setting 'topic_prefx'"):
        Client.kafka("localhost:9092", topic_prefx="music")
    with pytest.raises(ValueError, match="kafka_security_protocol"):
        Client.kafka("localhost:9092", kafka_security_protocol="NONE")
