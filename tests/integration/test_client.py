"""The client as its users run it: against a real gateway, and against a real Kafka."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest

import tonestream
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.contracts.topics import Channel, Topics
from tests.support.answering import Answering, abort_result
from tests.support.names import Names
from tests.support.samples import SAMPLES
from tests.support.served import Served
from tonestream import AsyncClient, Client, NotFound, Refused, Status, TimedOut

URL = "https://example.org/song.mp3"
KEY = "a-key-of-these-tests"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Served(tmp_path_factory.mktemp("gateway"), gateway_api_keys=KEY, genre_model="mfcc-lstm") as served:
        yield served.address


@pytest.fixture
def client(gateway: str) -> Iterator[Client]:
    with Client(gateway, api_key=KEY) as made:
        yield made


def test_files_are_classified_and_found_in_the_library(client: Client) -> None:
    with client.stream(timeout_s=60) as stream:
        tickets = [client.submit(file, embedding=True) for file in SAMPLES[:2]]
        results = [client.wait(ticket, timeout_s=60) for ticket in tickets]
        seen = {next(stream).request_id for _ in tickets}
    assert {ticket.request_id for ticket in tickets} == seen
    for result in results:
        assert result.status is Status.OK
        assert result.genre is not None and result.genre.segments
        assert result.embedding is not None
    rows = {row.id: row for row in client.results(where="bpm > 0", sort="title")}
    for ticket, result in zip(tickets, results, strict=True):
        row = rows[ticket.request_id]
        assert result.genre is not None
        assert (row.genre, row.title, row.finished_at is not None) == (result.genre.label, result.track.title, True)
    assert [row.id for row in client.results(q=str(results[0].track.title))] == [tickets[0].request_id]


def test_a_submission_that_is_repeated_is_one_request(client: Client) -> None:
    first, again = (client.submit(SAMPLES[2], request_id="mine") for _ in range(2))
    assert first.request_id == again.request_id == "mine"
    assert client.wait("mine", timeout_s=60).status is Status.OK
    assert client.state(again).stage == "ok"
    assert [row.id for row in client.results()].count("mine") == 1


def test_a_stream_goes_on_after_its_cursor(client: Client) -> None:
    with client.stream(timeout_s=60) as stream:
        first = client.submit(SAMPLES[3])
        assert next(stream).request_id == first.request_id
    second = client.submit(SAMPLES[4])
    client.wait(second, timeout_s=60)
    with client.stream(after=stream.cursor, timeout_s=60) as resumed:
        assert next(resumed).request_id == second.request_id


def test_what_the_gateway_refuses_is_refused_with_its_code(client: Client, gateway: str) -> None:
    with Client(gateway) as stranger, pytest.raises(Refused) as refused:
        stranger.submit(URL)
    assert refused.value.problem.code == "unauthorized"
    with Client(gateway) as stranger, pytest.raises(Refused):
        stranger.stream()
    with pytest.raises(Refused) as refused:
        list(client.results(where="energy ~ 2"))
    assert refused.value.problem.code == "invalid_request"
    with pytest.raises(NotFound):
        client.wait("nobody-made-this")
    forbidden = client.classify("http://127.0.0.1:1/song.mp3", timeout_s=60)
    assert [error.code.value for error in forbidden.errors] == ["fetch_forbidden"]


def test_with_asyncio_many_tracks_are_under_way_at_once(gateway: str) -> None:
    async def scenario() -> list[Status]:
        async with AsyncClient(gateway, api_key=KEY) as client:
            results = await asyncio.gather(*(client.classify(file, timeout_s=60) for file in SAMPLES))
        return [result.status for result in results]

    assert asyncio.run(scenario()) == [Status.OK] * len(SAMPLES)


def test_the_two_clients_offer_the_same() -> None:
    def surface(client: type) -> dict[str, list[str]]:
        methods = {name: value for name, value in vars(client).items() if not name.startswith("_")}
        return {
            name: list(inspect.signature(getattr(method, "__func__", method)).parameters)
            for name, method in methods.items()
        }

    assert surface(tonestream.Client) == surface(tonestream.AsyncClient)


@pytest.mark.kafka
def test_over_kafka_a_client_sees_the_one_committed_result(bootstrap_servers: str, names: Names) -> None:
    topics = Topics(names.prefix)
    bus = KafkaBus(KafkaConfig(bootstrap_servers=bootstrap_servers))
    with Answering(bus, topics) as workers:
        with Client.kafka(bootstrap_servers, topic_prefix=names.prefix) as client:
            before = client.classify(URL, timeout_s=60)
            with client.stream(timeout_s=60) as stream:
                ticket = client.submit(URL, request_id="later-1")
                abort_result(bootstrap_servers, topics, "later-1")
                with pytest.raises(TimedOut):
                    client.wait(ticket, timeout_s=2)
                workers.release()
                result = client.wait(ticket, timeout_s=60)
                assert result.status is Status.OK
                assert next(stream).request_id == "later-1"
            with client.stream(after=stream.cursor, timeout_s=1) as resumed, pytest.raises(TimedOut):
                next(resumed)
        with Client.kafka(bootstrap_servers, topic_prefix=names.prefix) as another:
            assert another.wait(before.request_id, timeout_s=60) == before
    bus.close()


@pytest.mark.kafka
def test_results_on_kafka_carry_the_headers_of_a_cloud_event(bootstrap_servers: str, names: Names) -> None:
    topics = Topics(names.prefix)
    bus = KafkaBus(KafkaConfig(bootstrap_servers=bootstrap_servers))
    with Answering(bus, topics), bus.reader([topics.name(Channel.RESULTS)]) as reader:
        with Client.kafka(bootstrap_servers, topic_prefix=names.prefix) as client:
            result = client.classify(URL, timeout_s=60)
        (record,) = reader.poll(10, 30.0)
    headers = {name: value.decode() for name, value in record.headers}
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == "org.tonestream.result.v1"
    assert headers["ce_subject"] == result.request_id
    assert headers["content-type"] == "application/json"
    bus.close()


@pytest.mark.kafka
def test_over_kafka_without_topics_the_reason_is_one_sentence(bootstrap_servers: str, names: Names) -> None:
    client = Client.kafka(bootstrap_servers, topic_prefix=names.prefix)
    with client, pytest.raises(tonestream.Unavailable, match=rf"{names.prefix}\.results"):
        client.submit(URL)


def test_over_kafka_nobody_there_is_one_sentence() -> None:
    client = Client("kafka://127.0.0.1:9", timeout_s=1)
    with client, pytest.raises(tonestream.Unavailable, match="no Kafka broker answers"):
        client.submit(URL)
