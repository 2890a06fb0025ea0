"""Fetching audio from the web, from the public web only, within limits.

The address is checked on the very connection that is used: the name is resolved once, every address is checked, and
the connection is opened to a checked address. There is no second look-up for a hostile name server to answer
differently, and every redirect goes through the same gate.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

import certifi
import httpcore

from services.ingestion.addresses import AllowList
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError

__all__ = ["AllowList", "FetchLimits", "Fetched", "Fetcher", "Validators"]

_USER_AGENT: Final = b"tonestream"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429})
_WEB_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})

Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """``max_bytes`` of a download; the times in seconds: of the whole download with all redirects, of connecting, of
    waiting for an answer's next byte; ``max_redirects`` hops."""

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


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the system's order of preference. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Fetcher:
    """Downloads to files. Safe from many threads; every download has connections of its own."""

    def __init__(self, limits: FetchLimits, allow: AllowList, resolver: Resolve = resolve) -> None:
        self._limits = limits
        self._allow = allow
        self._resolve = resolver

    def fetch(self, url: str, destination: Path, validators: Validators | None = None) -> Fetched:
        """Download ``url`` to ``destination``, which is removed again on failure.

        Raises TonestreamError: fetch_forbidden (address, port, scheme or credentials that are not allowed), too_large,
        unsupported_media (a web page), fetch_failed (the server says no); TransientError: fetch_failed (the server or
        the way to it has a fault), fetch_timeout. OSError where the destination cannot be written.
        """
        deadline = time.monotonic() + self._limits.total_s
        backend = _GuardedBackend(self._allow, self._resolve, deadline, self._limits.connect_s)
        with httpcore.ConnectionPool(ssl_context=_ssl_context(), network_backend=backend) as pool:
            for _ in range(self._limits.max_redirects + 1):
                target = _checked(url)
                with self._request(pool, target, validators, deadline) as response:
                    if response.status in _REDIRECTS and (location := _location(response)):
                        url = _joined(url, location)
                        continue
                    if response.status == 304 and validators is not None:
                        return Fetched(0, *_versions(response), not_modified=True)
                    return self._receive(response, destination, deadline)
        raise TonestreamError(ErrorCode.FETCH_FAILED, f"more than {self._limits.max_redirects} redirects")

    @contextlib.contextmanager
    def _request(
        self, pool: httpcore.ConnectionPool, target: SplitResult, validators: Validators | None, deadline: float
    ) -> Iterator[httpcore.Response]:
        host = _ascii_host(target)
        shown = f"[{host}]" if ":" in host else host
        headers = [
            (b"Host", (shown if target.port is None else f"{shown}:{target.port}").encode("ascii")),
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
        default_port = 443 if target.scheme == "https" else 80
        address = httpcore.URL(
            scheme=target.scheme.encode(),
            host=host.encode("ascii"),
            port=target.port or default_port,
            target=_request_target(target),
        )
        try:
            with pool.stream("GET", address, headers=headers, extensions={"timeout": waits}) as response:
                yield response
        except httpcore.TimeoutException as error:
            late = time.monotonic() >= deadline
            what = f"took longer than {self._limits.total_s:g} s" if late else "stood still: the server did not answer"
            raise TransientError(ErrorCode.FETCH_TIMEOUT, f"the download {what}") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
            raise TransientError(ErrorCode.FETCH_FAILED, f"the download broke off: {str(error)[:200]}") from error

    def _receive(self, response: httpcore.Response, destination: Path, deadline: float) -> Fetched:
        _check_status(response)
        content_type = (_header(response, b"content-type") or "").partition(";")[0].strip().lower()
        if content_type in _WEB_PAGES:
            raise TonestreamError(
                ErrorCode.UNSUPPORTED_MEDIA, "the URL leads to a web page; give the address of the audio file itself"
            )
        encoding = (_header(response, b"content-encoding") or "identity").strip().lower()
        if encoding != "identity":
            raise TonestreamError(ErrorCode.FETCH_FAILED, f"the server sends {encoding[:40]!r} without being asked to")
        announced = _header(response, b"content-length")
        if announced is not None and announced.isdecimal() and int(announced) > self._limits.max_bytes:
            raise self._too_large()
        try:
            size = self._write(response.iter_stream(), destination, deadline)
        except BaseException:
            if destination.is_file():  # and not a device
                destination.unlink(missing_ok=True)
            raise
        return Fetched(size, *_versions(response))

    def _write(self, chunks: Iterable[bytes], destination: Path, deadline: float) -> int:
        size = 0
        with destination.open("wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > self._limits.max_bytes:
                    raise self._too_large()
                if time.monotonic() > deadline:
                    raise TransientError(
                        ErrorCode.FETCH_TIMEOUT, f"the download took longer than {self._limits.total_s:g} s"
                    )
                file.write(chunk)
        return size

    def _too_large(self) -> TonestreamError:
        return TonestreamError(ErrorCode.TOO_LARGE, f"the file has more than {self._limits.max_bytes} bytes")


class _GuardedBackend(httpcore.NetworkBackend):
    """Opens connections to checked addresses only, and holds every wait to the deadline of the whole download."""

    def __init__(self, allow: AllowList, resolver: Resolve, deadline: float, connect_s: float) -> None:
        self._allow = allow
        self._resolve = resolver
        self._deadline = deadline
        self._connect_s = connect_s
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise TransientError(ErrorCode.FETCH_FAILED, f"the host {host!r} cannot be found") from error
        for address in addresses:
            # One bad address among good ones is a name server playing games: all of them are refused.
            if not self._allow.permits(host, ipaddress.ip_address(address.partition("%")[0]), port):
                raise TonestreamError(
                    ErrorCode.FETCH_FORBIDDEN,
                    f"{host}:{port} is not a public web address; an operator can allow it (TONESTREAM_FETCH_ALLOW)",
                )
        failure: Exception = httpcore.ConnectError(f"the host {host!r} has no address")
        for address in addresses:
            try:
                stream = self._plain.connect_tcp(
                    address, port, _remaining(self._deadline, self._connect_s), local_address, socket_options
                )
                return _GuardedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "audio is not fetched from sockets of this machine")

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _GuardedStream(httpcore.NetworkStream):
    """A connection whose every wait ends with the deadline: a server that drips bytes cannot stretch it."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, _remaining(self._deadline, timeout))
        return _GuardedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _remaining(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for the download is up")
    return left if timeout is None else min(left, timeout)


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    """The system's certificates (and SSL_CERT_FILE's), with certifi's where the system has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _checked(url: str) -> SplitResult:
    try:
        target = urlsplit(url)
        port_is_valid = target.port is None or target.port > 0
    except ValueError as error:
        raise TonestreamError(ErrorCode.FETCH_FAILED, f"the URL is not valid: {error}") from error
    if target.scheme not in {"http", "https"} or not target.hostname or not port_is_valid:
        raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "only http and https URLs are fetched")
    if target.username is not None or target.password is not None:
        raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "URLs with a user name or password are not fetched")
    return target


def _ascii_host(target: SplitResult) -> str:
    host = target.hostname or ""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise TonestreamError(ErrorCode.FETCH_FAILED, f"the host {host!r} is no valid name") from error


def _request_target(target: SplitResult) -> bytes:
    path = target.path or "/"
    text = f"{path}?{target.query}" if target.query else path
    # Blanks and characters beyond ASCII travel percent-encoded; what is encoded already stays as it is.
    return b"".join(
        bytes([byte]) if 0x20 < byte < 0x7F else b"%%%02X" % byte for byte in text.encode("utf-8", "surrogatepass")
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


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise TonestreamError(ErrorCode.FETCH_FAILED, f"the server redirects to an invalid URL: {error}") from error


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
