"""Fetching audio from the web, from the public web only, within limits.

Every request, the first and those that redirects lead to, passes the same two gates: the URL is one that is fetched at
all (``urls``), and its connection is opened to a checked address (``connections``).
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpcore

from services.ingestion.addresses import AllowList
from services.ingestion.connections import Allowance, GuardedBackend, radio, ssl_context
from services.ingestion.lookup import LookUps, Resolve, resolve
from services.ingestion.urls import Target, redirected
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError, megabytes

__all__ = ["AllowList", "FetchLimits", "Fetched", "Fetcher", "Validators"]

_USER_AGENT: Final = b"tonestream"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429})
#: What a list of addresses is served as, or a live stream that comes as such a list.
_PLAYLISTS: Final = frozenset(
    {
        "application/vnd.apple.mpegurl", "application/x-mpegurl", "application/mpegurl", "audio/mpegurl",
        "audio/x-mpegurl", "audio/x-scpls", "audio/scpls", "application/pls+xml", "application/xspf+xml",
        "application/dash+xml",
    }
)  # fmt: skip
_WEB_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})

_MOST_HEADERS: Final = 200
#: What a download may have on the wire beyond its file: heads of answers and of chunks.
_WIRE_EXTRA_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """``max_bytes`` of a download; the times in seconds: of the whole download with all redirects and look-ups, of
    looking up a host and of connecting to it, of waiting for an answer's next byte; ``max_redirects`` hops."""

    max_bytes: int = 200 * 1024 * 1024
    total_s: float = 120.0
    connect_s: float = 10.0
    first_byte_s: float = 20.0
    max_redirects: int = 5


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

    def __init__(self, limits: FetchLimits, allow: AllowList, resolver: Resolve = resolve) -> None:
        self._limits = limits
        self._allow = allow
        self._look_ups = LookUps(resolver)

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
        has a fault), fetch_timeout. AbandonedError once ``abandoned`` is set. OSError where the destination cannot be
        written.
        """
        wire_bytes = self._limits.max_bytes + self._limits.max_bytes // 8 + _WIRE_EXTRA_BYTES
        total_s = self._limits.total_s if total_s is None else min(total_s, self._limits.total_s)
        allowance = Allowance(total_s, wire_bytes, abandoned or threading.Event())
        backend = GuardedBackend(self._allow, self._look_ups, allowance, self._limits.connect_s)
        with httpcore.ConnectionPool(ssl_context=ssl_context(), network_backend=backend) as pool:
            for _ in range(self._limits.max_redirects + 1):
                with self._request(pool, Target.parse(url), validators, allowance) as response:
                    if response.status in _REDIRECTS and (location := _location(response)):
                        url = redirected(url, location)
                        continue
                    if response.status == 304 and validators is not None:
                        return Fetched(0, *_versions(response), not_modified=True)
                    return self._receive(response, destination, allowance)
        raise TonestreamError(ErrorCode.FETCH_FAILED, f"more than {self._limits.max_redirects} redirects")

    @contextlib.contextmanager
    def _request(
        self, pool: httpcore.ConnectionPool, target: Target, validators: Validators | None, allowance: Allowance
    ) -> Iterator[httpcore.Response]:
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
        address = httpcore.URL(
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
        except httpcore.TimeoutException as error:
            if allowance.is_late:
                raise allowance.late() from error
            raise TransientError(
                ErrorCode.FETCH_TIMEOUT, "the download stood still: the server did not answer"
            ) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
            raise TransientError(ErrorCode.FETCH_FAILED, f"the download broke off: {str(error)[:200]}") from error

    def _receive(self, response: httpcore.Response, destination: Path, allowance: Allowance) -> Fetched:
        _check_status(response)
        content_type = (_header(response, b"content-type") or "").partition(";")[0].strip().lower()
        if content_type in _WEB_PAGES:
            raise TonestreamError(
                ErrorCode.UNSUPPORTED_MEDIA, "the URL leads to a web page; give the address of the audio file itself"
            )
        if any(name.lower().startswith(b"icy-") for name, _ in response.headers):
            raise radio()
        if content_type in _PLAYLISTS:
            raise TonestreamError(
                ErrorCode.UNSUPPORTED_MEDIA,
                "the URL leads to a playlist or a live stream; give the address of a recording",
            )
        for name, value in response.headers:
            if name.lower() == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
                told = value.decode("latin-1")[:40]
                raise TonestreamError(ErrorCode.FETCH_FAILED, f"the server sends {told!r} without being asked to")
        announced = _header(response, b"content-length")
        if announced is not None and announced.isdecimal() and int(announced) > self._limits.max_bytes:
            raise self._too_large()
        try:
            size = self._write(response.iter_stream(), destination, allowance)
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


def _location(response: httpcore.Response) -> str | None:
    """Where a redirect leads. Signed URLs are long, and servers put UTF-8 into them without encoding it."""
    found = next((value for key, value in response.headers if key.lower() == b"location"), None)
    if found is None:
        return None
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        return found.decode("latin-1")


def _versions(response: httpcore.Response) -> tuple[str | None, str | None]:
    """ETag and Last-Modified."""
    return _header(response, b"etag"), _header(response, b"last-modified")


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1")[:1000] for key, value in response.headers if key.lower() == name), None)


def _check_status(response: httpcore.Response) -> None:
    status = response.status
    if status == 200:
        return
    told = f"the server answered with status {status}"
    if status in _TRANSIENT or status >= 500:
        raise TransientError(ErrorCode.FETCH_FAILED, told, _retry_after_s(_header(response, b"retry-after")))
    raise TonestreamError(ErrorCode.FETCH_FAILED, told)


def _retry_after_s(text: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None where it holds neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
