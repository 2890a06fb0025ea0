"""Servers as they are: wrong types, odd statuses, lengths that lie, radio. What is audio is taken, and nothing else."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.ingestion.fetch import FetchLimits
from shared.contracts.errors import ErrorCode, TransientError
from shared.settings import Settings
from tests.support.fetching import fault, fetcher
from tests.support.samples import SAMPLE
from tests.support.web_server import Exchange, WebServer

#: An MP3 with its tags, larger than what is looked at, small enough for the limits of these tests.
MP3 = SAMPLE.read_bytes()[:60_000]
PAGE = b"<!DOCTYPE html>\n<html><head><title>Song</title></head><body>\xc3\xbc</body></html>"
WARNING = b"<br />\n<b>Warning</b>:  Undefined variable $x in <b>/var/www/get.php</b> on line <b>3</b><br />\n"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "source"


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, *fields, "", "")).encode("latin-1")


def sending(*parts: bytes, pause_s: float = 0.05) -> Callable[[Exchange], None]:
    """Sends the parts one after the other, so that they arrive one by one."""

    def send(exchange: Exchange) -> None:
        for part in parts:
            exchange.send(part)
            exchange.wait(pause_s)

    return send


# What the file is called


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html", "text/html; charset=UTF-8", "text/plain", "application/octet-stream", "application/json",
        "application/xhtml+xml", "audio/x-mpegurl", "application/vnd.apple.mpegurl", "image/png", "nonsense", "", None,
    ],
)  # fmt: skip
def test_music_is_music_whatever_its_server_calls_it(web: WebServer, file: Path, content_type: str | None) -> None:
    web.add("/song", MP3, headers={} if content_type is None else {"Content-Type": content_type})
    assert fetcher().fetch(web.url("/song"), file).size == len(MP3)
    assert file.read_bytes() == MP3


def test_music_behind_a_warning_of_php_is_not_taken_for_a_web_page(web: WebServer, file: Path) -> None:
    web.add("/song", WARNING + MP3, headers={"Content-Type": "text/html"})
    assert fetcher().fetch(web.url("/song"), file).size == len(WARNING + MP3)


def test_a_body_that_comes_byte_by_byte_is_the_same_body(web: WebServer, file: Path) -> None:
    body = MP3[:40]
    parts = [head(f"Content-Length: {len(body)}", "Content-Type: text/html"), *(bytes([byte]) for byte in body)]
    web.add_handler("/song", sending(*parts, pause_s=0.005))
    assert fetcher().fetch(web.url("/song"), file).size == len(body)
    assert file.read_bytes() == body


@pytest.mark.parametrize("content_type", ["audio/mpeg", "application/octet-stream", "text/html", None])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (PAGE, "the URL leads to a web page; give the address of the audio file itself"),
        (PAGE.decode().encode("utf-16"), "the URL leads to a web page; give the address of the audio file itself"),
        (WARNING, "the URL leads to a web page; give the address of the audio file itself"),
        (b"#EXTM3U\n#EXTINF:1,x\na.mp3\n", "the URL leads to a playlist (M3U); give the address of a recording"),
        (
            b"\xef\xbb\xbf#EXTM3U\r\n#EXT-X-VERSION:3\r\n#EXTINF:9,\r\n0.ts\r\n",
            "the URL leads to a playlist (HLS, in which streams come piece by piece); give the address of a recording",
        ),
        (
            b"[playlist]\nNumberOfEntries=1\nFile1=http://example.org:8000/\n",
            "the URL leads to a playlist (PLS); give the address of a recording",
        ),
    ],
    ids=["page", "page in UTF-16", "warning", "M3U", "HLS", "PLS"],
)
def test_a_text_is_called_what_it_is_whatever_its_server_calls_it(
    web: WebServer, file: Path, content_type: str | None, body: bytes, said: str
) -> None:
    web.add("/text", body, headers={} if content_type is None else {"Content-Type": content_type})
    error = fault(web.url("/text"), file)
    assert (error.code, error.message) == (ErrorCode.UNSUPPORTED_MEDIA, said)
    assert not isinstance(error, TransientError)


# Statuses


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (203, {}),
        (201, {}),
        (202, {}),
        (226, {}),
        (299, {}),
        (206, {"Content-Range": f"bytes 0-{len(MP3) - 1}/{len(MP3)}"}),
        (206, {"Content-Range": f"Bytes=0-{len(MP3) - 1}/{len(MP3)} "}),
    ],
)
def test_every_yes_with_a_whole_file_is_taken(web: WebServer, file: Path, status: int, headers: dict[str, str]) -> None:
    web.add("/song", MP3, status, {"Content-Type": "audio/mpeg", **headers})
    assert fetcher().fetch(web.url("/song"), file).size == len(MP3)
    assert "range" not in web.requests[0].headers


@pytest.mark.parametrize(
    ("content_range", "said"),
    [
        ("bytes 0-99/1000", "bytes 0 to 99 of 1000"),
        ("bytes 100-999/1000", "bytes 100 to 999 of 1000"),
        ("bytes 0-99/*", "bytes 0 to 99 of unknown"),
        ("pages 1-2/2", "which one is not said"),
        (None, "which one is not said"),
    ],
)
def test_a_part_of_a_file_is_not_taken_for_the_whole(
    web: WebServer, file: Path, content_range: str | None, said: str
) -> None:
    web.add("/part", MP3[:100], 206, {} if content_range is None else {"Content-Range": content_range})
    error = fault(web.url("/part"), file)
    assert error.code is ErrorCode.FETCH_FAILED and not isinstance(error, TransientError)
    assert "only a part of the file" in error.message and said in error.message


def test_a_range_that_ends_before_it_said_is_tried_again(web: WebServer, file: Path) -> None:
    web.add("/part", MP3[:100], 206, {"Content-Range": "bytes 0-999/1000"})
    assert isinstance(fault(web.url("/part"), file), TransientError)


@pytest.mark.parametrize("status", [201, 204, 205, 207])
def test_a_yes_without_a_file_is_final_and_says_so(web: WebServer, file: Path, status: int) -> None:
    web.add("/nothing", b"", status)
    error = fault(web.url("/nothing"), file)
    assert error.code is ErrorCode.FETCH_FAILED and not isinstance(error, TransientError)
    assert f"status {status}" in error.message and "sends no file" in error.message


@pytest.mark.parametrize("body", [b"", b'{"state": "processing"}', PAGE])
def test_a_file_that_is_not_ready_yet_is_asked_for_again(web: WebServer, file: Path, body: bytes) -> None:
    web.add("/soon", body, 202, {"Content-Type": "application/json", "Retry-After": "3"})
    error = fault(web.url("/soon"), file)
    assert isinstance(error, TransientError) and error.retry_after_s == 3.0
    assert "not ready yet" in error.message


def test_an_expired_signature_is_named_as_a_likely_reason(web: WebServer, file: Path) -> None:
    web.add("/signed", b"<Error/>", 403)
    assert fault(web.url("/signed"), file).message == (
        "the server answered with status 403 (Forbidden); a signed address may have expired"
    )


# Redirects and long addresses


def test_ten_redirects_are_followed_and_the_fault_of_eleven_names_its_setting(web: WebServer, file: Path) -> None:
    limits = FetchLimits(max_redirects=Settings().fetch_max_redirects)
    assert limits.max_redirects == FetchLimits().max_redirects == 10
    for number in range(1, 12):
        web.redirect(f"/{number}", f"{number - 1}", (301, 302, 303, 307, 308)[number % 5])
    web.add("/0", MP3)
    assert fetcher(limits).fetch(web.url("/10"), file).size == len(MP3)
    file.unlink()
    error = fault(web.url("/11"), file, fetcher(limits))
    assert error.code is ErrorCode.FETCH_FAILED and not isinstance(error, TransientError)
    assert error.message == ("more than 10 redirects, the most that are followed (TONESTREAM_FETCH_MAX_REDIRECTS)")


def test_redirects_in_a_circle_are_called_that(web: WebServer, file: Path) -> None:
    web.redirect("/a", "/b")
    web.redirect("/b", "a")
    error = fault(web.url("/a"), file)
    assert error.code is ErrorCode.FETCH_FAILED and not isinstance(error, TransientError)
    assert error.message == "the server's redirects lead in a circle"


@pytest.mark.parametrize("location", ["song?x=1", "/list/song?x=1", "../list/song?x=1", "//{}/list/song?x=1#t=9"])
def test_a_relative_redirect_leads_where_browsers_would_go(web: WebServer, file: Path, location: str) -> None:
    web.redirect("/list/old", location.format(web.authority))
    web.add("/list/song?x=1", MP3)
    assert fetcher().fetch(web.url("/list/old"), file).size == len(MP3)


def test_an_address_of_eight_kilobytes_is_asked_for_as_it_is(web: WebServer, file: Path) -> None:
    url = web.url("/song?X-Amz-Security-Token=").ljust(8192, "A")
    web.add("/song", MP3)
    web.redirect("/out", url)
    fetcher().fetch(url, file)
    fetcher().fetch(web.url("/out"), file)
    assert {len(web.url(one.path)) for one in web.requests if one.path != "/out"} == {8192}


def test_no_password_or_cookie_is_sent_anywhere(web: WebServer, file: Path) -> None:
    web.add("/song", MP3)
    web.add("/first", status=302, headers={"Location": "/song", "Set-Cookie": "a=b", "WWW-Authenticate": "Basic"})
    fetcher().fetch(web.url("/first"), file)
    assert not {"authorization", "cookie", "referer"} & {name for one in web.requests for name in one.headers}


# Radio


@pytest.mark.parametrize(
    "parts",
    [
        (b"ICY 200 OK\r\nicy-name: x\r\n\r\n" + MP3,),
        (b"I", b"CY 20", b"0 OK\r\nicy-name: x\r\n\r\n", MP3),
        (head("icy-name: x", "Content-Type: audio/mpeg"), MP3),
        (head("Icy-MetaInt: 16000", status="HTTP/1.0 200 OK"), MP3),
        (head("icy-br: 128", "Transfer-Encoding: chunked", "Content-Length: 9"), b"1\r\n\xff\r\n"),
    ],
    ids=["ICY", "ICY in pieces", "HTTP", "HTTP/1.0", "chunked"],
)
def test_radio_is_radio_at_the_first_try(web: WebServer, file: Path, parts: tuple[bytes, ...]) -> None:
    web.add_handler("/radio", sending(*parts))
    error = fault(web.url("/radio"), file)
    assert error.code is ErrorCode.UNSUPPORTED_MEDIA and not isinstance(error, TransientError)
    assert error.message == "the URL leads to an endless radio stream; give the address of a recording"


def test_radio_behind_a_redirect_is_radio(web: WebServer, file: Path) -> None:
    web.redirect("/listen", "/radio")
    web.add_handler("/radio", sending(b"ICY 200 OK\r\n\r\n" + MP3))
    error = fault(web.url("/listen"), file)
    assert error.code is ErrorCode.UNSUPPORTED_MEDIA and "radio" in error.message


def test_a_recording_from_a_radio_server_has_a_length_and_is_taken(web: WebServer, file: Path) -> None:
    web.add("/show.mp3", MP3, headers={"icy-name": "x", "icy-br": "128", "Content-Type": "audio/mpeg"})
    assert fetcher().fetch(web.url("/show.mp3"), file).size == len(MP3)


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", MP3, b"220 mail.example ESMTP\r\n"])
def test_what_is_no_web_server_is_called_that(web: WebServer, file: Path, greeting: bytes) -> None:
    web.add_handler("/", sending(greeting))
    error = fault(web.url("/"), file)
    assert isinstance(error, TransientError) and error.code is ErrorCode.FETCH_FAILED
    assert error.message == "what answers there is no web server"


# Bodies


@pytest.mark.parametrize(
    "answer",
    [
        head("Content-Type: audio/mpeg", status="HTTP/1.0 200 OK") + MP3,
        head(f"Content-Length: {len(MP3)}", status="HTTP/1.0 200 OK") + MP3,
        head("Content-Length: 60000", status="HTTP/1.1 200") + MP3,
        head("Connection: close") + MP3,
        head("Transfer-Encoding: chunked") + b"EA60; x=y\r\n" + MP3 + b"\r\n0\r\nTrailer: x\r\n\r\n",
        head("Transfer-Encoding: chunked", "Content-Length: 999999999") + b"ea60\r\n" + MP3 + b"\r\n0\r\n\r\n",
        head(f"Content-Length: {len(MP3)}") + MP3 + b"and more that nobody announced",
        head("Content-Length: 60000", "Content-Length: 60000") + MP3,
        head("Early: yes", status="HTTP/1.1 103 Early Hints") + head("Content-Length: 60000") + MP3,
    ],
    ids=[
        "HTTP/1.0", "HTTP/1.0 with a length", "no reason", "until it closes", "chunked", "chunked with a length",
        "longer than announced", "length twice", "early hints",
    ],
)  # fmt: skip
def test_a_whole_body_is_taken_in_every_form_it_comes_in(web: WebServer, file: Path, answer: bytes) -> None:
    web.add_handler("/song", sending(answer, pause_s=0))
    assert fetcher().fetch(web.url("/song"), file).size == len(MP3) == 60_000
    assert file.read_bytes() == MP3


@pytest.mark.parametrize(
    "answer",
    [
        head("Content-Length: 70000") + MP3,
        head("Content-Length: 70000", status="HTTP/1.0 200 OK") + MP3,
        head("Transfer-Encoding: chunked") + b"EA60\r\n" + MP3,
        head("Transfer-Encoding: chunked") + b"EA60\r\n" + MP3[:-1],
        head("Transfer-Encoding: chunked") + b"EA60\r\n" + MP3 + b"\r\n0\r\n",
        head("Content-Length: 60000", "Content-Length: 50000") + MP3,
        head("Content-Length: many") + MP3,
        head("Content-Length: -1") + MP3,
    ],
    ids=["short", "short of HTTP/1.0", "no last chunk", "cut chunk", "no end", "two lengths", "word", "negative"],
)
def test_a_body_that_may_not_be_whole_is_tried_again_and_never_taken(web: WebServer, file: Path, answer: bytes) -> None:
    web.add_handler("/song", sending(answer, pause_s=0))
    error = fault(web.url("/song"), file)
    assert isinstance(error, TransientError) and error.code is ErrorCode.FETCH_FAILED


@pytest.mark.parametrize(
    "coding", ["none", "aws-chunked", "utf-8", "binary", "identity", "gzip", "x-gzip, aws-chunked"]
)
def test_a_file_that_is_not_packed_is_taken_whatever_its_encoding_is_called(
    web: WebServer, file: Path, coding: str
) -> None:
    web.add("/song", MP3, headers={"Content-Encoding": coding})
    assert fetcher().fetch(web.url("/song"), file).size == len(MP3)
    assert file.read_bytes() == MP3


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "aws-chunked, gzip"])
def test_a_file_that_is_packed_is_refused_with_what_it_is_packed_with(web: WebServer, file: Path, coding: str) -> None:
    web.add("/song", gzip.compress(MP3), headers={"Content-Encoding": coding, "Content-Type": "audio/mpeg"})
    error = fault(web.url("/song"), file)
    assert error.code is ErrorCode.FETCH_FAILED and not isinstance(error, TransientError)
    assert "packs what it sends" in error.message and "gzip; audio/mpeg" in error.message


def test_a_server_that_wants_to_know_who_asks_for_what_is_answered(web: WebServer, file: Path) -> None:
    def particular(exchange: Exchange) -> None:
        asked = exchange.request.headers
        polite = asked.get("user-agent") and "audio/*" in asked.get("accept", "") and "*/*" in asked["accept"]
        exchange.answer(200 if polite else 403, MP3)

    web.add_handler("/song", particular)
    assert fetcher().fetch(web.url("/song"), file).size == len(MP3)


# Limits


def test_every_limit_names_its_setting_and_speaks_in_megabytes_or_seconds(web: WebServer, file: Path) -> None:
    web.add("/large", MP3)
    web.hang("/hang")
    web.drip("/drip", head("Content-Length: 9000"))
    web.add("/long", MP3, headers={"Content-Length": "3000001"})

    def said(path: str, limits: FetchLimits) -> str:
        return fault(web.url(path), file, fetcher(limits)).message

    assert said("/long", FetchLimits(max_bytes=3 * 1024 * 1024 // 2)) == (
        "the file has more than 1.5 MB, the largest download (TONESTREAM_FETCH_MAX_BYTES)"
    )
    assert "TONESTREAM_FETCH_MAX_BYTES" in said("/large", FetchLimits(max_bytes=10_000))
    assert said("/hang", FetchLimits(first_byte_s=0.3)) == (
        "the download stood still: the server sent nothing for 0.3 s (TONESTREAM_FETCH_FIRST_BYTE_TIMEOUT_S)"
    )
    assert said("/drip", FetchLimits(total_s=0.5)) == (
        "the download took longer than 0.5 s (TONESTREAM_FETCH_TOTAL_TIMEOUT_S)"
    )
