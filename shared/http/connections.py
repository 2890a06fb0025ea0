"""Connections that lead to checked addresses only, and end when the time or the size of an exchange is used up."""

from __future__ import annotations

import ipaddress
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import certifi
import httpcore2

from shared.contracts.errors import AbandonedError, ErrorCode, TonestreamError, TransientError
from shared.http.addresses import Address, AllowList, is_open_to_all
from shared.http.lookup import LookUps
from shared.http.own_servers import OwnServers

#: How long it takes at most to notice that an exchange was abandoned, seconds.
_SLICE_S: Final = 0.25
#: How an answer begins.
_HTTP: Final = b"HTTP/"
#: How an answer of an old radio server (SHOUTcast) begins.
_RADIO: Final = b"ICY "


@dataclass(frozen=True, slots=True)
class Wording:
    """What the faults of connections say: when the time is up (``{}`` is the limit), when more bytes come than allowed,
    and by which setting an operator opens an address."""

    late: str
    too_large: str
    allow_by: str


class Allowance:
    """What one exchange may use, all its redirects together: bytes that come in, and time. ``abandoned`` ends it."""

    def __init__(self, total_s: float, wire_bytes: int, abandoned: threading.Event, wording: Wording) -> None:
        self.abandoned = abandoned
        self.wording = wording
        self._total_s = total_s
        self._deadline = time.monotonic() + total_s
        self._bytes_left = wire_bytes

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._deadline

    def late(self) -> TransientError:
        """The fault of an exchange whose time is up."""
        return TransientError(ErrorCode.FETCH_TIMEOUT, self.wording.late.format(f"{self._total_s:.4g} s"))

    def wait_s(self, timeout_s: float | None) -> float:
        """``timeout_s``, or the time that is left where that is less.

        Raises httpcore2.ReadTimeout if no time is left, AbandonedError if nobody waits for the exchange any more.
        """
        if self.abandoned.is_set():
            raise AbandonedError
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the time is up")
        return left if timeout_s is None else min(left, timeout_s)

    def spend(self, received: int) -> None:
        """Count bytes that came in. Raises TonestreamError (too_large) above the limit."""
        self._bytes_left -= received
        if self._bytes_left < 0:
            raise TonestreamError(ErrorCode.TOO_LARGE, self.wording.too_large)


class GuardedBackend(httpcore2.NetworkBackend):
    """Opens connections to checked addresses only.

    A name is looked up once, every address is checked, and the connection is opened to a checked address: there is no
    second look-up for a hostile name server to answer differently.
    """

    def __init__(
        self, allow: AllowList, own: OwnServers, look_ups: LookUps, allowance: Allowance, connect_s: float
    ) -> None:
        self._allow = allow
        self._own = own
        self._look_ups = look_ups
        self._allowance = allowance
        self._connect_s = connect_s
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = self._addresses(host, port)
        for address in addresses:
            # A name with one forbidden address among good ones is suspicious: all of them are refused.
            self._require_permission(host, ipaddress.ip_address(address.partition("%")[0]), port)
        failure: Exception = httpcore2.ConnectError(f"the host {host!r} has no address")
        for address in addresses:
            try:
                wait_s = self._allowance.wait_s(self._connect_s)
                stream = self._plain.connect_tcp(address, port, wait_s, local_address, socket_options)
                return _GuardedStream(stream, self._allowance)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    def _require_permission(self, host: str, address: Address, port: int) -> None:
        if not self._allow.permits(host, address, port):
            raise TonestreamError(
                ErrorCode.FETCH_FORBIDDEN,
                f"{host}:{port} is not a public web address; an operator can allow it"
                f" ({self._allowance.wording.allow_by})",
            )
        if is_open_to_all(address, port):
            return
        if self._own.cover(address, port, self._allow.names_the_port(host, address, port)):
            raise TonestreamError(
                ErrorCode.FETCH_FORBIDDEN,
                f"{host}:{port} leads to a server that the services themselves work with;"
                f" {self._allowance.wording.allow_by} does not open it",
            )

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "sockets of this machine are not connected to")

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        try:
            wait_s = self._allowance.wait_s(self._connect_s)
            return self._look_ups.addresses(host, port, wait_s, self._allowance.abandoned)
        except (OSError, UnicodeError) as error:
            raise TransientError(ErrorCode.FETCH_FAILED, f"the host {host!r} cannot be found") from error


class _GuardedStream(httpcore2.NetworkStream):
    """A connection whose every wait ends with the allowance: a server that drips bytes cannot stretch it, and one that
    floods an exchange with bytes that are not part of the body cannot go on for ever."""

    def __init__(self, stream: httpcore2.NetworkStream, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance
        # A connection brings one answer: its first bytes until there are enough to know it by, then None.
        self._beginning: bytes | None = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._patiently(max_bytes, self._allowance.wait_s(timeout))
        if self._beginning is not None:
            self._beginning += data[: len(_HTTP)]
            if self._beginning.startswith(_RADIO):
                raise radio()
            if len(self._beginning) >= len(_HTTP):
                if not self._beginning.startswith(_HTTP):
                    raise TransientError(ErrorCode.FETCH_FAILED, "what answers there is no web server")
                self._beginning = None
        self._allowance.spend(len(data))
        return data

    def _patiently(self, max_bytes: int, timeout_s: float) -> bytes:
        """Some bytes within ``timeout_s``, waited for in slices: nothing wakes a thread that waits for a socket."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            try:
                return self._stream.read(max_bytes, max(0.001, min(left_s, _SLICE_S)))
            except httpcore2.ReadTimeout:
                if left_s <= _SLICE_S:
                    raise
                self._allowance.wait_s(None)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._allowance.wait_s(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, self._allowance.wait_s(timeout))
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise TonestreamError(
                    ErrorCode.FETCH_FAILED,
                    f"the server's certificate does not hold: {error.__cause__.verify_message or error}"[:300],
                ) from error
            raise
        return _GuardedStream(stream, self._allowance)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def radio() -> TonestreamError:
    """The server says that what it sends has no end."""
    return TonestreamError(
        ErrorCode.UNSUPPORTED_MEDIA, "the URL leads to an endless radio stream; give the address of a recording"
    )


@lru_cache(maxsize=1)
def ssl_context() -> ssl.SSLContext:
    """The system's certificates (and SSL_CERT_FILE's), with certifi's where the system has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
