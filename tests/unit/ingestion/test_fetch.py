"""Fetching audio from the web: where it may connect to, how long it may take, and what counts as an answer."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpcore2
import pytest

from services.ingestion.fetch import FetchLimits, Validators
from shared.contracts.errors import ErrorCode, TransientError
from tests.support.fetching import PATIENT, fault, fetcher
from tests.support.processes import free_port
from tests.support.web_server import Exchange, WebServer

AUDIO = bytes(range(256)) * 40
SWIFT = FetchLimits(max_bytes=100_000, total_s=1.0, connect_s=0.5, first_byte_s=5.0, max_redirects=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


class Resolver:
    """Answers in turn, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


# Where a download may lead


def test_a_server_on_the_loopback_interface_is_refused_unless_allowed(web: WebServer, file: Path) -> None:
    web.add("/a.mp3", AUDIO)
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        error = fault(f"http://{host}:{web.port}/a.mp3", file, fetcher(allow=""))
        assert error.code is ErrorCode.FETCH_FORBIDDEN
        assert not isinstance(error, TransientError)
    assert web.requests == []
    for allow in (web.authority, "127.0.0.1", "localhost,127.0.0.1", f"10.0.0.0/8,127.0.0.1:{web.port}"):
        assert fetcher(allow=allow).fetch(web.url("/a.mp3"), file).size == len(AUDIO)
        assert file.read_bytes() == AUDIO


@pytest.mark.parametrize("host", ["localhost.", "a.localhost", "LOCALHOST.LOCALDOMAIN.", "metadata.google.internal."])
def test_a_name_of_a_private_address_is_refused_however_it_is_written(host: str, file: Path) -> None:
    for private in ("127.0.0.1", "::1", "fe80::1%lo", "169.254.169.254"):
        by = fetcher(allow="", resolver=Resolver([private]))
        assert fault(f"http://{host}/", file, by).code is ErrorCode.FETCH_FORBIDDEN


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:127.0.0.1]", "[fe80::1]", "169.254.169.254", "10.1.2.3"])
def test_no_way_of_writing_a_private_address_gets_through(host: str, file: Path) -> None:
    assert fault(f"http://{host}/", file, fetcher(allow="")).code is ErrorCode.FETCH_FORBIDDEN


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1",
        "127.0.0.01", "127.0.0.1.", "0", "1.2.3", "8.8.8.8.8", "134744072", "0x08080808", "8.8.8.010", "256.1.1.1",
        "example.1", "example.0x7f", "127。1", "①②⑦.1", "127.0.0.1。", "0x7f。1", "[fe80::1%25lo]", "[::1%25lo]",
        "127%2e0.0.1", "127.0.0.1%00.example.org", "exa$mple.org", "example.org\\.evil", "a..b", ".example.org",
    ],
)  # fmt: skip
def test_a_host_in_an_unusual_spelling_is_refused_without_asking_for_it(host: str, file: Path) -> None:
    """How decimal, octal, hexadecimal and short addresses are read differs from program to program."""
    resolver = Resolver(["93.184.215.14"])
    assert fault(f"http://{host}/", file, fetcher(allow="", resolver=resolver)).code is ErrorCode.FETCH_FORBIDDEN
    assert resolver.asked == []


@pytest.mark.parametrize("host", ["１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①", "127．0.0.1", "⑫7.0.0.1"])
def test_an_address_in_letters_that_look_like_digits_is_the_address(host: str, web: WebServer, file: Path) -> None:
    web.add("/a.mp3", AUDIO)
    assert fault(f"http://{host}:{web.port}/", file, fetcher(allow="")).code is ErrorCode.FETCH_FORBIDDEN
    assert web.requests == []
    fetcher().fetch(f"http://{host}:{web.port}/a.mp3", file)
    assert web.requests[0].headers["host"] == web.authority


def test_an_absolute_name_is_looked_up_as_one_and_asked_for_without_its_dot(web: WebServer, file: Path) -> None:
    web.add("/a.mp3", AUDIO)
    resolver = Resolver(["127.0.0.1"])
    fetcher(resolver=resolver).fetch(f"http://Media.Example.:{web.port}/a.mp3", file)
    assert resolver.asked == [("media.example.", web.port)]
    assert web.requests[0].headers["host"] == f"media.example:{web.port}"


def test_a_name_is_the_one_that_browsers_would_ask_for(web: WebServer, file: Path) -> None:
    """An older reading of the same letters leads to another site: fass.example."""
    web.add("/a.mp3", AUDIO)
    resolver = Resolver(["127.0.0.1"])
    fetcher(resolver=resolver).fetch(f"http://FAß.example:{web.port}/a.mp3", file)
    assert resolver.asked == [("xn--fa-hia.example", web.port)]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/a.mp3", "gopher://127.0.0.1/", "a.mp3", "", "http:///a.mp3", "http://",
        "http://example.org:22/", "http://example.org:0/", "http://me:secret@example.org/", "http://me@example.org/",
        "http://@example.org/", "http://example.org\\@127.0.0.1/",
    ],
)  # fmt: skip
def test_a_url_of_another_scheme_or_port_or_with_credentials_is_refused(url: str, file: Path) -> None:
    resolver = Resolver(["93.184.215.14"])
    assert fault(url, file, fetcher(allow="", resolver=resolver)).code is ErrorCode.FETCH_FORBIDDEN
    assert resolver.asked == [] or ":22" in url


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://example.org:99999/", "http://" + "ü" * 80 + ".example/", "http://a..ü/"]
)
def test_a_url_that_is_none_is_a_final_fault(url: str, file: Path) -> None:
    error = fault(url, file)
    assert error.code is ErrorCode.FETCH_FAILED
    assert not isinstance(error, TransientError)


def test_a_redirect_from_an_allowed_host_to_a_private_address_is_refused(web: WebServer, file: Path) -> None:
    web.add("/inside", AUDIO)
    only_this = fetcher(allow=web.authority)
    elsewhere = f"http://127.0.0.2:{web.port}/inside"
    for target in ("http://169.254.169.254/latest", elsewhere, "http://[::1]/", "//10.0.0.1/"):
        web.redirect("/out", target)
        assert fault(web.url("/out"), file, only_this).code is ErrorCode.FETCH_FORBIDDEN
    for target in (
        "file:///etc/passwd", "ftp://127.0.0.1/a.mp3", "gopher://127.0.0.1/", "data:audio/mpeg;base64,AAAA",
        f"http://me:secret@{web.authority}/inside", f"http://2130706433:{web.port}/inside",
    ):  # fmt: skip
        web.redirect("/out", target)
        assert fault(web.url("/out"), file, only_this).code is ErrorCode.FETCH_FORBIDDEN
    assert web.count("/inside") == 0


def test_redirects_are_followed_to_the_end_and_not_in_circles(web: WebServer, file: Path) -> None:
    signed = "/end?signature=" + "s" * 3000
    web.add(signed, AUDIO)
    for status, (path, target) in zip((301, 302, 307), (("/1", "2"), ("/2", "/3"), ("/3", signed)), strict=True):
        web.redirect(path, target, status)
    assert fetcher().fetch(web.url("/1"), file).size == len(AUDIO)
    file.unlink()

    web.redirect("/loop", "/loop")
    error = fault(web.url("/loop"), file)
    assert error.code is ErrorCode.FETCH_FAILED
    assert not isinstance(error, TransientError)
    assert web.count("/loop") == PATIENT.max_redirects + 1


def test_a_redirect_to_a_url_that_is_none_is_a_final_fault(web: WebServer, file: Path) -> None:
    for target in ("http://[::1/", "//[x", "http://example.org:99999/"):
        web.redirect("/out", target)
        error = fault(web.url("/out"), file)
        assert error.code is ErrorCode.FETCH_FAILED
        assert not isinstance(error, TransientError)


def test_blanks_and_letters_beyond_ascii_travel_percent_encoded(web: WebServer, file: Path) -> None:
    web.add("/caf%C3%A9%20%E2%99%AB/a%2Fb.mp3?q=%C3%BC", AUDIO)
    assert fetcher().fetch(web.url("/café ♫/a%2Fb.mp3?q=ü#part"), file).size == len(AUDIO)
    # As many servers send it: UTF-8, as it is.
    web.redirect("/out", "/café ♫/a%2Fb.mp3?q=ü")
    assert fetcher().fetch(web.url("/out"), file).size == len(AUDIO)


def test_a_host_name_beyond_ascii_is_asked_for_in_its_ascii_form(web: WebServer, file: Path) -> None:
    web.add("/a.mp3", AUDIO)
    resolver = Resolver(["127.0.0.1"])
    fetcher(resolver=resolver).fetch(f"http://bücher.example:{web.port}/a.mp3", file)
    assert resolver.asked == [("xn--bcher-kva.example", web.port)]
    assert web.requests[0].headers["host"] == f"xn--bcher-kva.example:{web.port}"


def test_the_address_that_was_checked_is_the_one_connected_to(web: WebServer, file: Path) -> None:
    """A name server that says something else on the second question is not asked a second one."""
    web.add("/a.mp3", AUDIO)
    web.redirect("/out", f"http://rebound.example:{web.port}/a.mp3")
    only_this = web.authority

    first_good = Resolver(["127.0.0.1"], ["127.0.0.2"])
    by = fetcher(allow=only_this, resolver=first_good)
    assert by.fetch(f"http://rebound.example:{web.port}/a.mp3", file).size == len(AUDIO)
    assert first_good.asked == [("rebound.example", web.port)]
    file.unlink()

    then_bad = Resolver(["127.0.0.1"], ["127.0.0.2"])
    by = fetcher(allow=only_this, resolver=then_bad)
    assert fault(f"http://rebound.example:{web.port}/out", file, by).code is ErrorCode.FETCH_FORBIDDEN
    assert len(then_bad.asked) == 2
    assert web.count("/a.mp3") == 1


def test_a_name_server_that_turns_to_the_loopback_interface_gains_nothing(
    web: WebServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing allowed: a public address for the check, 127.0.0.1 for every later question."""
    opened: list[str] = []

    class Network(httpcore2.SyncBackend):
        """Notes where connections are opened to, and leads them all to the server of this test."""

        def connect_tcp(self, host: str, port: int, *rest: Any, **more: Any) -> httpcore2.NetworkStream:
            opened.append(host)
            return super().connect_tcp("127.0.0.1", web.port, *rest, **more)

    monkeypatch.setattr(httpcore2, "SyncBackend", Network)
    monkeypatch.setattr(socket, "getaddrinfo", forbid_names(socket.getaddrinfo))
    web.add("/a.mp3", AUDIO)
    web.redirect("/again", "http://rebound.example./a.mp3")
    resolver = Resolver(["93.184.215.14"], ["127.0.0.1"])
    assert fetcher(allow="", resolver=resolver).fetch("http://rebound.example/a.mp3", file).size == len(AUDIO)
    assert (opened, len(resolver.asked)) == (["93.184.215.14"], 1)
    file.unlink()

    resolver = Resolver(["93.184.215.14"], ["127.0.0.1"])
    error = fault("http://rebound.example/again", file, fetcher(allow="", resolver=resolver))
    assert error.code is ErrorCode.FETCH_FORBIDDEN
    assert opened == ["93.184.215.14"] * 2 and len(resolver.asked) == 2


def forbid_names(real: Callable[..., Any]) -> Callable[..., Any]:
    """A look-up by the system that takes addresses only: a name that reaches it was looked up a second time."""

    def numeric(host: str, *rest: Any, **more: Any) -> Any:
        ipaddress.ip_address(host)
        return real(host, *rest, **more)

    return numeric


def test_one_private_address_among_allowed_ones_refuses_them_all(web: WebServer, file: Path) -> None:
    resolver = Resolver(["127.0.0.1", "10.0.0.1"])
    by = fetcher(allow=web.authority, resolver=resolver)
    assert fault(f"http://mixed.example:{web.port}/", file, by).code is ErrorCode.FETCH_FORBIDDEN
    assert web.requests == []


def test_the_next_address_is_tried_where_one_does_not_answer(web: WebServer, file: Path) -> None:
    web.add("/a.mp3", AUDIO)
    by = fetcher(allow="127.0.0.0/8", resolver=Resolver(["127.0.0.9", "127.0.0.1"]))
    assert by.fetch(f"http://two.example:{web.port}/a.mp3", file).size == len(AUDIO)


# Size and time


def chunks(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        exchange.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
    exchange.send(b"0\r\n\r\n")


def test_a_file_that_is_too_large_by_its_own_word_is_not_downloaded(web: WebServer, file: Path) -> None:
    web.add("/big", b"x", headers={"Content-Length": "100001"})
    assert fault(web.url("/big"), file).code is ErrorCode.TOO_LARGE
    web.add("/fits", b"x" * 100_000)
    assert fetcher().fetch(web.url("/fits"), file).size == 100_000


def test_a_file_that_says_nothing_of_its_size_is_cut_off_at_the_limit(web: WebServer, file: Path) -> None:
    web.add_handler("/endless", chunks)
    assert fault(web.url("/endless"), file).code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize(
    ("head", "byte"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_a_server_that_drips_is_cut_off_when_the_time_is_up(
    web: WebServer, file: Path, head: bytes, byte: bytes
) -> None:
    web.drip("/drip", head, byte=byte)
    started = time.monotonic()
    error = fault(web.url("/drip"), file, fetcher(SWIFT))
    elapsed = time.monotonic() - started
    if byte != b"H":  # a status line that cannot be one may be refused before the time is up
        assert error.code is ErrorCode.FETCH_TIMEOUT
        assert elapsed > 0.9
    assert isinstance(error, TransientError)
    assert elapsed < 2.5


def test_all_redirects_together_have_the_time_of_one_download(web: WebServer, file: Path) -> None:
    def slowly(exchange: Exchange) -> None:
        exchange.wait(0.45)
        exchange.answer(302, headers={"Location": "/slow"})

    web.add_handler("/slow", slowly)
    started = time.monotonic()
    assert fault(web.url("/slow"), file, fetcher(SWIFT)).code is ErrorCode.FETCH_TIMEOUT
    assert time.monotonic() - started < 2.5


def test_a_server_that_takes_the_request_and_says_nothing_is_given_up(web: WebServer, file: Path) -> None:
    web.hang("/hang")
    limits = FetchLimits(total_s=30, first_byte_s=0.3)
    started = time.monotonic()
    error = fault(web.url("/hang"), file, fetcher(limits))
    assert error.code is ErrorCode.FETCH_TIMEOUT
    assert isinstance(error, TransientError)
    assert time.monotonic() - started < 2.0


def test_a_look_up_that_hangs_takes_no_longer_than_a_connection_may(file: Path) -> None:
    released = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        released.wait(30.0)
        return ["127.0.0.1"]

    started = time.monotonic()
    by = fetcher(SWIFT, resolver=hang)
    error = fault("http://slow.example/", file, by)
    assert error.code is ErrorCode.FETCH_TIMEOUT
    assert isinstance(error, TransientError)
    assert time.monotonic() - started < 5.0
    released.set()


def test_look_ups_of_all_redirects_count_towards_the_time_of_the_download(web: WebServer, file: Path) -> None:
    def slowly(host: str, port: int) -> list[str]:
        time.sleep(0.4)
        return ["127.0.0.1"]

    for number in range(3):
        web.redirect(f"/{number}", f"http://host-{number}.example:{web.port}/{number + 1}")
    started = time.monotonic()
    error = fault(f"http://first.example:{web.port}/0", file, fetcher(SWIFT, resolver=slowly))
    assert error.code is ErrorCode.FETCH_TIMEOUT
    assert time.monotonic() - started < 2.0


def test_bytes_that_are_no_part_of_the_file_are_bounded_too(web: WebServer, file: Path) -> None:
    """A file within its limit, wrapped in chunk extensions or preceded by interim answers of any number."""

    def wrapped(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not exchange.wait(0):
            exchange.send(b"1;" + b"x" * 60_000 + b"\r\nx\r\n")

    def interim(exchange: Exchange) -> None:
        while not exchange.wait(0):
            exchange.send((b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 900 + b"\r\n\r\n") * 50)

    for path, handler in (("/wrapped", wrapped), ("/interim", interim)):
        web.add_handler(path, handler)
        started = time.monotonic()
        assert fault(web.url(path), file).code is ErrorCode.TOO_LARGE, path
        assert time.monotonic() - started < PATIENT.total_s


def test_an_answer_with_more_header_fields_than_any_server_sends_is_refused(web: WebServer, file: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
    web.add_handler("/many", lambda exchange: exchange.send(head + b"X: y\r\n" * 500 + b"\r\nx"))
    web.add_handler("/some", lambda exchange: exchange.send(head + b"X: y\r\n" * 100 + b"\r\nx"))
    error = fault(web.url("/many"), file)
    assert error.code is ErrorCode.FETCH_FAILED and "header fields" in error.message
    assert fetcher().fetch(web.url("/some"), file).size == 1


# Answers


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 206, 302, 304])
def test_a_status_that_says_no_is_final(web: WebServer, file: Path, status: int) -> None:
    web.add("/no", status=status)
    error = fault(web.url("/no"), file)
    assert error.code is ErrorCode.FETCH_FAILED
    assert not isinstance(error, TransientError)
    assert str(status) in error.message


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_transient(web: WebServer, file: Path, status: int) -> None:
    web.add("/busy", status=status)
    error = fault(web.url("/busy"), file)
    assert isinstance(error, TransientError)
    assert error.code is ErrorCode.FETCH_FAILED


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, None), ("7", 7.0), ("0", 0.0), ("soon", None), ("nan", None), ("inf", None), ("-5", None), ("", None),
        (lambda: formatdate(time.time() + 60, usegmt=True), 60.0),
        (lambda: formatdate(time.time() - 60, usegmt=True), 0.0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", None), ("Fri, 32 Dec 2099 99:00:00 GMT", None),
    ],
)  # fmt: skip
def test_a_wait_that_the_server_asks_for_is_passed_on(
    web: WebServer, file: Path, status: int, retry_after: str | Callable[[], str] | None, seconds: float | None
) -> None:
    told = retry_after() if callable(retry_after) else retry_after
    web.add("/busy", status=status, headers={} if told is None else {"Retry-After": told})
    error = fault(web.url("/busy"), file)
    assert isinstance(error, TransientError)
    assert error.code is ErrorCode.FETCH_FAILED
    if told is not None and "0001" in told:
        assert error.retry_after_s in (None, 0.0)
    elif seconds is None:
        assert error.retry_after_s is None
    else:
        assert error.retry_after_s == pytest.approx(seconds, abs=2.0)


def test_a_body_that_breaks_off_is_transient_and_leaves_no_file(web: WebServer, file: Path) -> None:
    web.add("/short", AUDIO, headers={"Content-Length": str(len(AUDIO) + 1)})
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    web.add_handler("/cut", lambda exchange: exchange.send(chunked + b"5\r\nab"))
    web.add_handler("/nothing", lambda exchange: None)
    web.add_handler("/garbage", lambda exchange: exchange.send(b"\0\1\2\r\n\r\n"))
    web.add_handler("/headers", lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000))
    for path in ("/short", "/cut", "/nothing", "/garbage", "/headers"):
        error = fault(web.url(path), file)
        assert isinstance(error, TransientError), path
        assert error.code is ErrorCode.FETCH_FAILED


@pytest.mark.parametrize("content_type", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"])
def test_a_web_page_is_no_audio(web: WebServer, file: Path, content_type: str) -> None:
    web.add("/page", b"<html>", headers={"Content-Type": content_type})
    assert fault(web.url("/page"), file).code is ErrorCode.UNSUPPORTED_MEDIA


def test_a_body_that_is_compressed_against_our_word_is_refused(web: WebServer, file: Path) -> None:
    web.add("/packed", gzip.compress(AUDIO), headers={"Content-Encoding": "gzip"})
    assert fault(web.url("/packed"), file).code is ErrorCode.FETCH_FAILED
    assert web.requests[0].headers["accept-encoding"] == "identity"
    web.add("/plain", AUDIO, headers={"Content-Encoding": "Identity"})
    assert fetcher().fetch(web.url("/plain"), file).size == len(AUDIO)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Encoding: gzip", b"Content-Encoding: deflate", b"Content-Encoding: br", b"Content-Encoding: zstd",
        b"Content-Encoding: gzip, gzip", b"Content-Encoding: identity\r\nContent-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: gzip",
    ],
)  # fmt: skip
def test_no_bomb_is_unpacked(web: WebServer, file: Path, headers: bytes) -> None:
    """A hundred thousand times larger unpacked than what travels, and nothing here unpacks it."""
    bomb = gzip.compress(bytes(50_000_000), 9)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n" + headers + b"\r\n"
    web.add_handler("/bomb", lambda exchange: exchange.send(head + b"Connection: close\r\n\r\n" + bomb))
    assert fault(web.url("/bomb"), file).code is ErrorCode.FETCH_FAILED


def test_a_bomb_that_says_nothing_of_its_packing_is_stored_as_it_is(web: WebServer, file: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000), 9)
    web.add("/bomb", bomb, headers={"Content-Type": "audio/mpeg"})
    assert fetcher().fetch(web.url("/bomb"), file).size == len(bomb) < 100_000
    assert file.read_bytes() == bomb


def test_a_file_that_did_not_change_is_not_downloaded_again(web: WebServer, file: Path) -> None:
    web.add("/a.mp3", AUDIO, headers={"ETag": '"v1"', "Last-Modified": "Tue, 01 Jul 2025 10:00:00 GMT"})
    web.redirect("/moved", "/a.mp3")
    first = fetcher().fetch(web.url("/a.mp3"), file)
    assert (first.etag, first.last_modified, first.not_modified) == ('"v1"', "Tue, 01 Jul 2025 10:00:00 GMT", False)
    file.unlink()
    for held in (Validators(etag='"v1"'), Validators(last_modified=first.last_modified)):
        again = fetcher().fetch(web.url("/moved"), file, held)
        assert (again.not_modified, again.size) == (True, 0)
        assert not file.exists()
    changed = fetcher().fetch(web.url("/a.mp3"), file, Validators(etag='"v0"'))
    assert (changed.not_modified, changed.size) == (False, len(AUDIO))


def test_a_server_that_is_not_there_is_a_transient_fault(file: Path) -> None:
    error = fault(f"http://127.0.0.1:{free_port()}/", file)
    assert isinstance(error, TransientError)
    assert error.code is ErrorCode.FETCH_FAILED


def test_a_host_without_an_address_is_a_transient_fault(file: Path) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    for resolver in (unknown, Resolver([])):
        error = fault("http://unknown.example/", file, fetcher(resolver=resolver))
        assert isinstance(error, TransientError)
        assert error.code is ErrorCode.FETCH_FAILED


def test_a_destination_that_cannot_be_written_is_no_fault_of_the_server(web: WebServer, tmp_path: Path) -> None:
    web.add("/a.mp3", AUDIO)
    for destination in (tmp_path / "missing" / "source", Path("/dev/full")):
        with pytest.raises(OSError, match=r"No such file|No space left"):
            fetcher().fetch(web.url("/a.mp3"), destination)
    assert Path("/dev/full").exists()
