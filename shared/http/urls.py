"""Which URLs are fetched at all, and how their parts travel: the host in ASCII, the path percent-encoded."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import idna

from shared.contracts.errors import ErrorCode, TonestreamError

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
#: The last part of a name that makes the whole of it an address, as programs read it: decimal, octal or hexadecimal.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME: Final = 253


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: ``host`` in ASCII and lower case (an IPv6 address without brackets), ``path`` with its
    query, percent-encoded."""

    scheme: str
    host: str
    port: int
    path: bytes

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises TonestreamError: fetch_forbidden (another scheme than http and https, credentials, an address in an
        unusual spelling), fetch_failed (no URL at all)."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # its words quote the URL, and that may hold a password
            raise TonestreamError(ErrorCode.FETCH_FAILED, "the URL is not valid") from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
            raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "only http and https URLs are fetched")
        if parts.username is not None or parts.password is not None:
            raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "URLs with a user name or password are not fetched")
        host = _ascii_host(parts.hostname)
        return cls(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port, _request_path(parts))

    @property
    def server_name(self) -> str:
        """The host as certificates and servers know it: without the dot that ends an absolute name."""
        return self.host.removesuffix(".")

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        shown = f"[{self.host}]" if ":" in self.host else self.server_name
        return shown if self.port == _DEFAULT_PORTS[self.scheme] else f"{shown}:{self.port}"


def redirected(url: str, location: str) -> str:
    """Where a redirect of ``url`` leads. Raises TonestreamError: fetch_failed (nowhere), fetch_forbidden (from https to
    http: whoever asked for https did not ask for this)."""
    try:
        found = urljoin(url, location)
        downgraded = urlsplit(url).scheme == "https" and urlsplit(found).scheme == "http"
    except ValueError:
        raise TonestreamError(ErrorCode.FETCH_FAILED, "the server redirects to an invalid URL") from None
    if downgraded:
        raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "the server redirects from https to http")
    return found


def _ascii_host(host: str) -> str:
    """The host as it is looked up and connected to. What several programs would read in several ways is refused."""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise TonestreamError(ErrorCode.FETCH_FAILED, f"the host {host[:80]!r} is no valid name") from error
        if address.scope_id is not None:
            raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, "addresses with a zone are not fetched from")
        return str(address)
    if not host.isascii():
        try:
            # As browsers do it (UTS 46): what looks like a digit or a dot becomes one, and ß stays what it is.
            host = idna.encode(host, uts46=True).decode("ascii").lower()
        except UnicodeError as error:
            raise TonestreamError(ErrorCode.FETCH_FAILED, f"the host {host[:80]!r} is no valid name") from error
    if not _NAME.fullmatch(host) or len(host) > _LONGEST_NAME + 1:
        raise TonestreamError(ErrorCode.FETCH_FORBIDDEN, f"the host {host[:80]!r} is no valid name")
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise TonestreamError(
                ErrorCode.FETCH_FORBIDDEN, "an IPv4 address is written as four decimal numbers, without leading zeros"
            ) from error
    return host


def _request_path(parts: SplitResult) -> bytes:
    path = parts.path or "/"
    text = f"{path}?{parts.query}" if parts.query else path
    # Blanks and characters beyond ASCII travel percent-encoded; what is encoded already stays as it is.
    return b"".join(
        bytes([byte]) if 0x20 < byte < 0x7F else b"%%%02X" % byte for byte in text.encode("utf-8", "surrogatepass")
    )
