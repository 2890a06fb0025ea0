"""Fetching audio from the web, from the public web only, within limits.

Every request, the first and those that redirects lead to, passes the same two gates: the URL is one that is fetched at
all (``shared/http/urls.py``), and its connection is opened to a checked address (``shared/http/connections.py``).
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpcore2

from services.ingestion import answers
from shared.audio.texts import HEAD_BYTES, text_instead_of_audio
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError, megabytes
from shared.http.addresses import AllowList
from shared.http.answers import header
from shared.http.connections import Allowance, GuardedBackend, Wording, radio, ssl_context
from shared.http.lookup import LookUps, Resolve, resolve
from shared.http.own_servers import Endpoint, OwnServers
from shared.http.urls import Target, redirected

__all__ = ["AllowList", "FetchLimits", "Fetched", "Fetcher", "Validators"]

_USER_AGENT: Final = b"tonestream"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_MOST_HEADERS: Final = 200
#: What a download may have on the wire beyond its file: heads of answers and of chunks.
_WIRE_EXTRA_BYTES: Final = 1 << 20
_WORDING: Final = Wording(
    late="the download took longer than {} (TONESTREAM_FETCH_TOTAL_TIMEOUT_S)",
    too_large="the server sends more bytes than a file of the largest size has (TONESTREAM_FETCH_MAX_BYTES)",
    allow_by="TONESTREAM_FETCH_ALLOW",
)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """``max_bytes`` of a download; the times in seconds: of the whole download with all redirects and look-ups, of
    looking up a host and of connecting to it, of waiting for an answer's next byte; ``max_redirects`` hops."""

    max_bytes: int = 200 * 1024 * 1024
    total_s: float = 120.0
    connect_s: float = 10.0
    first_byte_s: float = 20.0
    max_redirects: int = 10


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of an earlier download, to ask it whether that still holds."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A download: ``size`` bytes at the destination; or ``not_modified``, and nothing was downloaded."""

    size: int
    etag: str | None
    last_modified: str | None
    not_modified: bool = False


class Fetcher:
    """Downloads to files. Safe from many threads; every download has connections of its own."""

    def __init__(
        self, limits: FetchLimits, allow: AllowList, resolver: Resolve = resolve, own: Iterable[Endpoint] = ()
    ) -> None:
        """``own`` are servers that no entry of ``allow`` opens."""
        self._limits = limits
        self._allow = allow
        self._look_ups = LookUps(resolver)
        self._own = OwnServers(own, self._look_ups)

    def fetch(
        self,
        url: str,
        destination: Path,
        validators: Validators | None = None,
        total_s: float | None = None,
        abandoned: threading.Event | None = None,
    ) -> Fetched:
        """Download ``url`` to ``destination``, which is removed again on failure.

        ``total_s`` takes the place of the limit where it is less.

        Raises TonestreamError: fetch_forbidden (address, port, scheme or credentials that are not allowed, a redirect
        from https to http), too_large, unsupported_media (a web page, a radio stream, a playlist), fetch_failed (the
        server says no, or its certificate does not hold); TransientError: fetch_failed (the server or the way to it
        has a fault), fetch_timeout. AbandonedError once ``abandoned`` is set. OSError if the destination cannot be
        written.
        """
        wire_bytes = self._limits.max_bytes + self._limits.max_bytes // 8 + _WIRE_EXTRA_BYTES
        total_s = self._limits.total_s if total_s is None else min(total_s, self._limits.total_s)
        allowance = Allowance(total_s, wire_bytes, abandoned or threading.Event(), _WORDING)
        backend = GuardedBackend(self._allow, self._own, self._look_ups, allowance, self._limits.connect_s)
        with httpcore2.ConnectionPool(ssl_context=ssl_context(), network_backend=backend) as pool:
            been_at = set()
            for _ in range(self._limits.max_redirects + 1):
                been_at.add(url)
                with self._request(pool, Target.parse(url), validators, allowance) as response:
                    if response.status in _REDIRECTS and (location := _location(response)):
                        url = redirected(url, location)
                        continue
                    if response.status == 304 and validators is not None:
                        return Fetched(0, *_versions(response), not_modified=True)
                    return self._receive(response, destination, allowance)
        # Some servers redirect to the same address until the file is there. So a circle is followed as far as a chain.
        if url in been_at:
            raise TonestreamError(ErrorCode.FETCH_FAILED, "the server's redirects lead in a circle")
        raise TonestreamError(
            ErrorCode.FETCH_FAILED,
            f"more than {self._limits.max_redirects} redirects, the most that are followed"
            " (TONESTREAM_FETCH_MAX_REDIRECTS)",
        )

    @contextlib.contextmanager
    def _request(
        self, pool: httpcore2.ConnectionPool, target: Target, validators: Validators | None, allowance: Allowance
    ) -> Iterator[httpcore2.Response]:
        headers = [
            (b"Host", target.authority.encode("ascii")),
            (b"User-Agent", _USER_AGENT),
            (b"Accept", b"audio/*, application/ogg, application/octet-stream, */*;q=0.1"),
            # Compressed audio gains nothing and could unpack to any size.
            (b"Accept-Encoding", b"identity"),
        ]
        if validators is not None and validators.etag:
            headers.append((b"If-None-Match", validators.etag.encode("latin-1", "ignore")))
        if validators is not None and validators.last_modified:
            headers.append((b"If-Modified-Since", validators.last_modified.encode("latin-1", "ignore")))
        waits = {"connect": self._limits.connect_s, "read": self._limits.first_byte_s, "write": 10.0, "pool": 10.0}
        address = httpcore2.URL(
            scheme=target.scheme.encode(), host=target.host.encode("ascii"), port=target.port, target=target.path
        )
        extensions = {"timeout": waits, "sni_hostname": target.server_name}
        try:
            with pool.stream("GET", address, headers=headers, extensions=extensions) as response:
                if len(response.headers) > _MOST_HEADERS:
                    raise TonestreamError(
                        ErrorCode.FETCH_FAILED, f"the server's answer has more than {_MOST_HEADERS} header fields"
                    )
                yield response
        except httpcore2.TimeoutException as error:
            raise self._slow(error, allowance) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError) as error:
            raise TransientError(ErrorCode.FETCH_FAILED, f"the download broke off: {str(error)[:200]}") from error

    def _slow(self, error: httpcore2.TimeoutException, allowance: Allowance) -> TransientError:
        if allowance.is_late:
            return allowance.late()
        if isinstance(error, httpcore2.ConnectTimeout):
            said = f"no connection within {self._limits.connect_s:g} s (TONESTREAM_FETCH_CONNECT_TIMEOUT_S)"
        else:
            said = (
                f"the server sent nothing for {self._limits.first_byte_s:g} s (TONESTREAM_FETCH_FIRST_BYTE_TIMEOUT_S)"
            )
        return TransientError(ErrorCode.FETCH_TIMEOUT, f"the download stood still: {said}")

    def _receive(self, response: httpcore2.Response, destination: Path, allowance: Allowance) -> Fetched:
        answers.check_status(response)
        if answers.is_radio(response):
            raise radio()
        if (answers.announced_bytes(response) or 0) > self._limits.max_bytes:
            raise self._too_large()
        try:
            size = self._write(_judged(response), destination, allowance)
            if size == 0 and response.status != 200:
                raise answers.no_file(response)
            if size != (answers.range_bytes(response) or size):
                raise TransientError(ErrorCode.FETCH_FAILED, "the download broke off: the file is not whole")
        except BaseException:
            if destination.is_file():  # and not a device
                destination.unlink(missing_ok=True)
            raise
        return Fetched(size, *_versions(response))

    def _write(self, chunks: Iterable[bytes], destination: Path, allowance: Allowance) -> int:
        size = 0
        with destination.open("wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > self._limits.max_bytes:
                    raise self._too_large()
                if allowance.is_late:
                    raise allowance.late()
                file.write(chunk)
        return size

    def _too_large(self) -> TonestreamError:
        most = megabytes(self._limits.max_bytes)
        return TonestreamError(
            ErrorCode.TOO_LARGE, f"the file has more than {most}, the largest download (TONESTREAM_FETCH_MAX_BYTES)"
        )


def _judged(response: httpcore2.Response) -> Iterator[bytes]:
    """The body. Raises TonestreamError if its first bytes show that it is no audio."""
    head = b""
    judged = False
    for chunk in response.iter_stream():
        if judged:
            yield chunk
            continue
        head += chunk
        if len(head) >= HEAD_BYTES:
            _judge(response, head[:HEAD_BYTES])
            judged = True
            yield head
    if not judged:
        _judge(response, head)
        yield head


def _judge(response: httpcore2.Response, head: bytes) -> None:
    answers.check_packing(response, head)
    if text := text_instead_of_audio(head, answers.media_type(response)):
        if response.status == 202:  # a page that asks for patience
            raise answers.no_file(response)
        raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, f"the URL leads to {text}")


def _location(response: httpcore2.Response) -> str | None:
    """Where a redirect leads. Signed URLs are long, and servers put UTF-8 into them without encoding it."""
    found = next((value for key, value in response.headers if key.lower() == b"location"), None)
    if found is None:
        return None
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        return found.decode("latin-1")


def _versions(response: httpcore2.Response) -> tuple[str | None, str | None]:
    """ETag and Last-Modified."""
    return header(response, b"etag"), header(response, b"last-modified")
