"""What stands before every request: whom the gateway answers, and what browsers may do with its answers.

A gateway on a laptop is reachable by every web site that its user visits. So names other than those of this machine are
refused (a site may let its own name lead to 127.0.0.1), and so is everything but reading that a page of another site
sends. Other sites' scripts cannot read answers unless they are allowed.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.problems import GatewayCode, Problem
from shared.contracts.errors import ErrorCode
from shared.settings import Settings

log = logging.getLogger(__name__)

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES: Final = ("localhost", ".localhost")

#: The one style that wavesurfer.js writes into its part of the page; a browser test finds out when it is another.
_WAVESURFER_STYLE: Final = "'sha256-2/AFTPuP4qEbSn4KmAzsJt3JK6WrqUViQjrdhLR/QMQ='"
_PAGE_POLICY: Final = (
    f"default-src 'self'; style-src 'self' {_WAVESURFER_STYLE}; img-src 'self' data: blob:; media-src 'self' blob:;"
    " object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)
#: Sent with every answer, unless it has its own.
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": _PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def listed(text: str) -> tuple[str, ...]:
    """The parts of a setting that is separated by commas."""
    return tuple(part for one in text.split(",") if (part := one.strip()))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses foreign names and foreign pages, and adds the headers above."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = frozenset(name.lower() for name in listed(settings.gateway_hosts))
        self._origins = frozenset(origin.lower().rstrip("/") for origin in listed(settings.gateway_cors_origins))
        # On an address that others reach, API keys protect, and a cookie is sent to its own host only.
        keys = settings.gateway_api_keys is not None
        self._any_host = keys and not self._hosts and not is_loopback(settings.gateway_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._refusal(scope)
        app = self._app if problem is None else problem.response()
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._any_host and not self._answers_to(host):
            return Problem(
                GatewayCode.FORBIDDEN,
                "the gateway is not called by this name; TONESTREAM_GATEWAY_HOSTS names further ones",
            )
        if scope["method"] not in _READING and not self._may_write(headers, host):
            return Problem(
                GatewayCode.FORBIDDEN,
                "a page of another site may not do this; TONESTREAM_GATEWAY_CORS_ORIGINS names sites that may",
            )
        return None

    def _answers_to(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        name = name.removesuffix(".")
        # An address cannot be made to lead elsewhere.
        return (
            name in self._hosts or name.endswith(_LOOPBACK_NAMES[1]) or name == _LOOPBACK_NAMES[0] or _is_address(name)
        )

    def _may_write(self, headers: Headers, host: str) -> bool:
        """Browsers say where a request comes from. Other programs say nothing, and need no protection."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        origin = origin.lower()
        if origin in self._origins:
            return True
        return urlsplit(origin).netloc == host.lower() if "://" in origin else False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Defects:
    """Answers what no handler foresaw with a problem document, and logs where it happened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            log.exception("a defect in %s %s", scope["method"], scope["path"])
            if begun:
                raise  # the connection is cut: half an answer must not look whole
            problem = Problem(ErrorCode.INTERNAL, "a defect of the gateway; its log says where")
            await problem.response()(scope, receive, send)


class Compressed:
    """Compresses answers that are text. Audio is compressed, and is asked for in ranges."""

    def __init__(self, app: ASGIApp, left_out: Iterable[str] = ("/audio",)) -> None:
        self._plain = app
        self._compressing = GZipMiddleware(app, minimum_size=1000, compresslevel=3)
        self._left_out = tuple(left_out)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] != "http" or scope["path"].endswith(self._left_out)
        await (self._plain if plain else self._compressing)(scope, receive, send)
