"""The client over HTTP against a gateway that is scripted, and misbehaves. Against the real one: tests/integration."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from services.library.row import COLUMNS
from tests.support.answering import whole_result
from tests.support.processes import free_port
from tests.support.web_server import Exchange, WebServer
from tonestream import (
    AsyncClient,
    Client,
    Missed,
    NotFound,
    Refused,
    Row,
    Status,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)

URL = "https://example.org/song.mp3"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


def accept(exchange: Exchange) -> None:
    """Take a submission as the gateway does."""
    request_id = exchange.request.headers["idempotency-key"]
    say(
        exchange,
        {"request_id": request_id, "location": f"/v1/tracks/{request_id}", "stage": "queued", "source": URL},
        202,
    )


def say(exchange: Exchange, document: object, status: int = 200, **headers: str) -> None:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    exchange.answer(status, json.dumps(document).encode(), {"Content-Type": "application/json", **fields})


def problem(exchange: Exchange, status: int, code: str, detail: str = "why", **headers: str) -> None:
    document = {"type": f"urn:tonestream:error:{code}", "title": "No", "status": status, "detail": detail, "code": code}
    say(exchange, document, status, **headers)


def state(request_id: str, finished: bool = True) -> dict[str, object]:
    known: dict[str, object] = {
        "request_id": request_id,
        "stage": "ok" if finished else "queued",
        "source": URL,
        "submitted_at": 1.5,
    }
    return known | {"result": json.loads(whole_result(request_id).model_dump_json())} if finished else known


def in_turn(*handlers: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """The first handler for the first exchange, and so on; the last for all that follow."""
    left = list(handlers)
    return lambda exchange: (left.pop(0) if len(left) > 1 else left[0])(exchange)


def hang_up(exchange: Exchange) -> None:
    """End the connection without an answer."""


def test_a_track_is_submitted_under_an_id_of_the_clients(web: WebServer) -> None:
    web.add_handler("/v1/tracks", accept)
    with Client(web.url("").rstrip("/"), api_key="secret") as client:
        ticket = client.submit(URL, model="mfcc-lstm", embedding=True)
    (request,) = web.requests
    assert request.headers["idempotency-key"] == ticket.request_id
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.body) == {"audio_url": URL, "model": "mfcc-lstm", "embedding": True}


@pytest.mark.parametrize(
    "fault", [hang_up, lambda exchange: problem(exchange, 503, "unavailable", Retry_After="0")], ids=["broken", "503"]
)
def test_a_submission_that_is_made_again_keeps_its_id(web: WebServer, fault: Callable[[Exchange], None]) -> None:
    web.add_handler("/v1/tracks", in_turn(fault, fault, accept))
    with Client(web.url("")) as client:
        ticket = client.submit(URL)
    assert [request.headers["idempotency-key"] for request in web.requests] == [ticket.request_id] * 3


def test_the_pause_is_the_one_that_the_server_asks_for(web: WebServer) -> None:
    moments: list[float] = []

    def busy(exchange: Exchange) -> None:
        moments.append(time.monotonic())
        problem(exchange, 429, "rate_limited", Retry_After="1")

    def done(exchange: Exchange) -> None:
        moments.append(time.monotonic())
        accept(exchange)

    web.add_handler("/v1/tracks", in_turn(busy, done))
    with Client(web.url("")) as client:
        client.submit(URL)
    assert moments[1] - moments[0] >= 1.0


@pytest.mark.parametrize("wait", ["3600", email.utils.formatdate(time.time() + 7200, usegmt=True)], ids=["s", "date"])
def test_a_server_that_asks_for_an_hour_is_not_waited_for(web: WebServer, wait: str) -> None:
    web.add_handler("/v1/tracks", lambda exchange: problem(exchange, 503, "unavailable", Retry_After=wait))
    with Client(web.url("")) as client, pytest.raises(Unavailable) as away:
        client.submit(URL)
    assert away.value.retry_after_s is not None and away.value.retry_after_s > 3000
    assert len(web.requests) == 1


def test_nobody_there_is_one_clear_sentence() -> None:
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", retries=1) as client, pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        client.submit(URL)


def test_silence_ends_at_the_time_limit(web: WebServer) -> None:
    web.hang("/v1/tracks")
    with Client(web.url(""), timeout_s=0.2, retries=1) as client, pytest.raises(Unavailable, match="no answer in time"):
        client.submit(URL)
    assert len(web.requests) == 2


def test_a_refusal_carries_its_problem_and_is_not_tried_again(web: WebServer) -> None:
    web.add_handler("/v1/tracks", lambda exchange: problem(exchange, 403, "fetch_forbidden", "a private address"))
    with Client(web.url("")) as client, pytest.raises(Refused, match=r"a private address \(fetch_forbidden\)") as no:
        client.submit(URL)
    assert (no.value.problem.code, no.value.problem.status) == ("fetch_forbidden", 403)
    assert len(web.requests) == 1


def test_a_track_is_removed_and_asked_for_again_where_the_answer_is_lost(web: WebServer) -> None:
    asked: list[str] = []

    def once_away(exchange: Exchange) -> None:
        asked.append(f"{exchange.request.method} {exchange.request.path}")
        exchange.answer(503 if len(asked) == 1 else 204, b"", {})

    web.add_handler("/v1/tracks/a%2Fb", once_away)
    with Client(web.url("")) as client:
        client.remove("a/b")
    assert asked == ["DELETE /v1/tracks/a%2Fb"] * 2


def test_an_unknown_request_is_not_found(web: WebServer) -> None:
    web.add_handler("/v1/tracks/none", lambda exchange: problem(exchange, 404, "not_found"))
    with Client(web.url("")) as client, pytest.raises(NotFound):
        client.wait("none")


def test_another_server_is_recognised(web: WebServer) -> None:
    web.add("/v1/tracks/my-1", b"<html>hello</html>")
    with Client(web.url("")) as client, pytest.raises(UnexpectedAnswer):
        client.state("my-1")
    with Client(web.url("")) as client, pytest.raises(NotFound, match="HTTP status 404"):
        client.state("other")


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://localhost"])
def test_an_address_needs_a_scheme_that_there_is(address: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        Client(address)


def test_waiting_asks_again_until_the_result_is_there(web: WebServer) -> None:
    pending = in_turn(
        lambda exchange: say(exchange, state("my-1", finished=False)),
        hang_up,
        lambda exchange: say(exchange, state("my-1")),
    )
    web.add_handler("/v1/tracks/my-1", pending)
    with Client(web.url("")) as client:
        result = client.wait("my-1", timeout_s=20)
    assert result.status is Status.OK
    waits = [float(parse_qs(urlsplit(request.path).query)["wait"][0]) for request in web.requests]
    assert all(0 < seconds <= 20 for seconds in waits) and waits[2] < waits[0]


def test_waiting_ends_at_its_time_limit(web: WebServer) -> None:
    web.add_handler("/v1/tracks/my-1", lambda exchange: say(exchange, state("my-1", finished=False)))
    with Client(web.url("")) as client, pytest.raises(TimedOut, match="my-1"):
        client.wait("my-1", timeout_s=0.3)


def test_a_file_is_streamed_and_its_name_may_have_any_letters(web: WebServer, tmp_path: Path) -> None:
    web.add_handler("/v1/tracks", in_turn(hang_up, accept))
    file = tmp_path / "Björk – Jóga.mp3"
    file.write_bytes(bytes(range(256)) * 4096)
    with Client(web.url("")) as client:
        client.submit(file, model="mfcc-lstm", force=True)
    for request in web.requests:  # the whole file each time
        assert request.body == file.read_bytes()
        assert request.headers["x-filename"] == "Bj%C3%B6rk%20%E2%80%93%20J%C3%B3ga.mp3"
        assert parse_qs(urlsplit(request.path).query) == {"model": ["mfcc-lstm"], "force": ["true"]}


def test_a_file_whose_name_is_no_text_is_sent_under_one_that_is(web: WebServer, tmp_path: Path) -> None:
    web.add_handler("/v1/tracks", accept)
    file = tmp_path / os.fsdecode(b"J\xf3ga.mp3")
    file.write_bytes(b"sound")
    with Client(web.url("")) as client:
        client.submit(file)
    assert web.requests[0].headers["x-filename"] == "J%5Cxf3ga.mp3"


def test_rows_come_page_by_page(web: WebServer) -> None:
    rows = [{"id": f"r{n}", "source": "a.mp3", "status": "ok", "genre": "jazz", "new_field": 1} for n in range(5)]

    def page(exchange: Exchange) -> None:
        query = parse_qs(urlsplit(exchange.request.path).query)
        assert query["genre"] == ["jazz", "blues"] and query["where"] == ["energy < 0.4"]
        begin = int(query.get("after", ["0"])[0])
        end = begin + 2
        say(exchange, {"results": rows[begin:end], "next": str(end) if end < len(rows) else None, "total": len(rows)})

    web.add_handler("/v1/results", page)
    with Client(web.url("")) as client:
        found = client.results(genre=["jazz", "blues"], where="energy < 0.4")
        assert next(found).id == "r0"
        assert len(web.requests) == 1
        assert [row.id for row in found] == ["r1", "r2", "r3", "r4"]


def test_a_row_of_the_client_has_the_columns_of_the_library() -> None:
    assert set(Row.model_fields) == {column.name for column in COLUMNS}


def event(number: int, request_id: str) -> bytes:
    return f'id: {number}\nevent: result\ndata: {{"request_id": "{request_id}", "row": {{}}}}\n\n'.encode()


def opened(*sent: bytes, then: Callable[[Exchange], object] = lambda exchange: None) -> Callable[[Exchange], None]:
    """A stream of events that sends these and ends."""

    def handle(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hello\n\n")
        for piece in sent:
            exchange.send(piece)
        then(exchange)

    return handle


def serve_results(web: WebServer, *request_ids: str) -> None:
    for request_id in request_ids:
        web.add_handler(f"/v1/tracks/{request_id}", partial(_serve, request_id))


def _serve(request_id: str, exchange: Exchange) -> None:
    say(exchange, state(request_id))


def test_a_stream_that_breaks_goes_on_after_its_last_event(web: WebServer) -> None:
    serve_results(web, "r1", "r2", "r3")
    track = b'id: 11\nevent: track\ndata: {"request_id": "r9", "stage": "queued"}\n\n'
    web.add_handler(
        "/v1/events",
        in_turn(
            opened(event(10, "r1"), track),
            lambda exchange: problem(exchange, 503, "unavailable", Retry_After="0"),
            opened(event(12, "r2")[:25], then=lambda exchange: None),
            opened(event(12, "r2"), event(13, "r3"), then=lambda exchange: exchange.wait(20)),
        ),
    )
    with Client(web.url("")) as client, client.stream(timeout_s=20) as results:
        assert [next(results).request_id for _ in range(3)] == ["r1", "r2", "r3"]
        assert results.cursor == "13"
    asked = [request.headers.get("last-event-id") for request in web.requests if request.path == "/v1/events"]
    assert asked[0] is None and asked[1:3] == ["11", "11"]


def test_a_stream_resumes_after_a_cursor_and_ends_at_its_time_limit(web: WebServer) -> None:
    web.add_handler("/v1/events", opened(then=lambda exchange: exchange.wait(20)))
    with Client(web.url("")) as client, client.stream(after="7", timeout_s=0.3) as results, pytest.raises(TimedOut):
        next(results)
    assert web.requests[0].headers["last-event-id"] == "7"


def test_a_stream_that_missed_too_much_says_so_and_where_to_go_on(web: WebServer) -> None:
    web.add_handler("/v1/events", opened(b"id: 99-0\nevent: reset\ndata: {}\n\n"))
    with (
        Client(web.url("")) as client,
        client.stream(after="7") as results,
        pytest.raises(Missed, match="results") as no,
    ):
        next(results)
    assert no.value.cursor == "99-0"


def test_a_stream_that_breaks_before_its_first_event_goes_on_where_it_began(web: WebServer) -> None:
    serve_results(web, "r1")
    web.add_handler("/v1/events", in_turn(opened(b"id: 41-7\n\n"), opened(event(42, "r1"))))
    with Client(web.url("")) as client, client.stream(timeout_s=20) as results:
        assert next(results).request_id == "r1"
    asked = [request.headers.get("last-event-id") for request in web.requests if request.path == "/v1/events"]
    assert asked[:2] == [None, "41-7"]


def test_a_stream_without_the_right_key_is_refused(web: WebServer) -> None:
    web.add_handler("/v1/events", lambda exchange: problem(exchange, 401, "unauthorized"))
    with Client(web.url("")) as client, pytest.raises(Refused):
        client.stream()


def test_with_asyncio_the_same_calls_do_the_same(web: WebServer, tmp_path: Path) -> None:
    serve_results(web, "r1")
    web.add_handler("/v1/tracks", in_turn(hang_up, accept))
    web.add_handler(
        "/v1/results", lambda exchange: say(exchange, {"results": [{"id": "r1", "source": "a", "status": "ok"}]})
    )
    web.add_handler("/v1/events", in_turn(opened(event(1, "r1")), opened(event(2, "r1"))))
    file = tmp_path / "song.mp3"
    file.write_bytes(b"sound" * 100_000)

    async def scenario() -> None:
        async with AsyncClient(web.url(""), timeout_s=10) as client:
            ticket = await client.submit(file, request_id="my-1")
            assert ticket.request_id == "my-1"
            assert (await client.wait("r1", timeout_s=20)).request_id == "r1"
            assert (await client.state("r1")).stage == "ok"
            assert [row.id async for row in client.results()] == ["r1"]
            async with client.stream(timeout_s=20) as results:
                assert [(await anext(results)).request_id for _ in range(2)] == ["r1", "r1"]
                assert results.cursor == "2"
            with pytest.raises(NotFound):
                await client.wait("none")

    asyncio.run(scenario())
    posts = [request for request in web.requests if request.method == "POST"]
    assert [request.body for request in posts] == [file.read_bytes()] * 2


def test_threads_may_share_a_client(web: WebServer) -> None:
    web.add_handler("/v1/tracks", accept)
    with Client(web.url("")) as client:
        threads = [threading.Thread(target=client.submit, args=[URL]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len({request.headers["idempotency-key"] for request in web.requests}) == 8


def test_without_httpx_the_message_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['httpx'] = None\n"
        "from tonestream import Client\n"
        "try: Client('http://localhost:1')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'a client over HTTP needs httpx: pip install "tonestream[client]"'


def test_importing_the_client_loads_neither_kafka_nor_httpx() -> None:
    script = "import sys, tonestream; print([one for one in ('kafka', 'httpx', 'redis') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
