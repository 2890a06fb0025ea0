"""Who may use the gateway, and how much: API keys, the cookie that stands for one, and limits.

A key comes as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``. What a browser loads by itself, such as audio and
event streams, carries no such header, so a page signs in once and gets a cookie. The cookie holds no key: it is an end
and a signature that only the key can have made, and it ends with the key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.guards import listed
from services.gateway.problems import GatewayCode, Problem
from services.gateway.rate import Allotment, Limiter, Rate
from shared.settings import Settings

COOKIE: Final = "tonestream_session"
#: What is open without a key: whether the gateway lives, the page (not its data), and the way in.
_OPEN: Final = frozenset({"/", "/livez", "/readyz", "/v1/info", "/v1/session"})
_OPEN_FOLDER: Final = "/static/"
#: Wrong keys that one address may try.
_GUESSES: Final = Rate(30, 60)
#: Where the middleware leaves what it knows of the client, in the state of the request.
_CLIENT: Final = "client"
_SUBMISSIONS: Final = "submissions"


class Keys:
    """The API keys. Only their hashes are kept and compared. Without keys everybody is let in."""

    def __init__(self, keys: tuple[str, ...], session_s: int, clock: Callable[[], float] = time.time) -> None:
        self._hashes = tuple(_hash(key) for key in keys)
        self._session_s = session_s
        self._clock = clock

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """As the settings say."""
        given = settings.gateway_api_keys
        return cls(listed(given.get_secret_value()) if given is not None else (), settings.gateway_session_s)

    @property
    def needed(self) -> bool:
        """Whether there are keys at all."""
        return bool(self._hashes)

    @property
    def session_s(self) -> int:
        """How long a session lasts, in seconds."""
        return self._session_s

    def holder(self, key: str) -> str | None:
        """The name under which the holder of ``key`` is known; None if it is none of ours. Takes as long for any."""
        given = _hash(key)
        fits = [hmac.compare_digest(given, one) for one in self._hashes]
        return _name(given) if any(fits) else None

    def session(self, key: str) -> str:
        """A cookie that stands for ``key``."""
        content = f"{int(self._clock()) + self._session_s}.{secrets.token_urlsafe(9)}"
        return f"{content}.{_signature(_hash(key), content)}"

    def session_holder(self, cookie: str) -> str | None:
        """The name of the holder of the key that made ``cookie``; None if none of ours did, or it has ended."""
        content, _, signature = cookie.rpartition(".")
        end = content.partition(".")[0]
        if not (end.isascii() and end.isdecimal() and len(end) < 20 and int(end) > self._clock()):
            return None
        made = [
            (one, hmac.compare_digest(_signature(one, content).encode(), signature.encode())) for one in self._hashes
        ]
        return next((_name(one) for one, fits in made if fits), None)


class Client:
    """The client of a request, as far as limits are concerned."""

    def __init__(self, name: str, address: str, limiter: Limiter | None, guesses: Limiter) -> None:
        self._name = name
        self._address = address
        self._limiter = limiter
        self._guesses = guesses
        self.allotment: Allotment | None = None

    def submit(self, tracks: int) -> None:
        """Count so many tracks. Raises Problem (rate_limited)."""
        if self._limiter is None or tracks < 1:
            return
        self.allotment = self._limiter.take(self._name, tracks)
        if self.allotment.refused:
            raise _too_many(
                f"at most {self._limiter.rate.quota} tracks in {self._limiter.rate.window_s} s"
                " (TONESTREAM_GATEWAY_RATE_LIMIT)",
                self.allotment,
            )

    def guess(self) -> None:
        """Count a wrong key. Raises Problem (rate_limited)."""
        guessed = self._guesses.take(self._address)
        if guessed.refused:
            raise _too_many("too many wrong keys came from this address", guessed)

    def headers(self) -> dict[str, str]:
        """The RateLimit fields of the answer."""
        if self._limiter is None or self.allotment is None:
            return {}
        rate, left = self._limiter.rate, self.allotment
        return {
            "RateLimit-Policy": f'"{_SUBMISSIONS}";q={rate.quota};w={rate.window_s}',
            "RateLimit": f'"{_SUBMISSIONS}";r={left.remaining};t={left.wait_s}',
        }


class Access:
    """Lets those in who have a key, and knows each client by it, or by its address where there are no keys."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = Keys.of(settings)
        self._submissions = Limiter(Rate.parse(limit)) if (limit := settings.gateway_rate_limit) else None
        self._guesses = Limiter(_GUESSES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = _address(scope)
        headers = Headers(scope=scope)
        name = self._holder(headers) if self._keys.needed else address
        client = Client(name or address, address, self._submissions, self._guesses)
        if name is None and not _is_open(scope["path"]):
            await _refusal(client, headers).response()(scope, receive, send)
            return
        scope.setdefault("state", {})[_CLIENT] = client

        async def send_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(client.headers())
            await send(message)

        await self._app(scope, receive, send_limits)

    def _holder(self, headers: Headers) -> str | None:
        key = sent_key(headers)
        if key is not None:
            return self._keys.holder(key)
        cookie = _cookie(headers.get("cookie", ""))
        return None if cookie is None else self._keys.session_holder(cookie)


def sent_key(headers: Headers) -> str | None:
    """The API key that a request brings."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return (token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")) or None


def client_of(state: object) -> Client:
    """The client that ``Access`` left in the state of the request."""
    found = getattr(state, _CLIENT)
    assert isinstance(found, Client)
    return found


def unauthorized(detail: str) -> Problem:
    """No key, or a wrong one."""
    return Problem(GatewayCode.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="tonestream"'})


def _refusal(client: Client, headers: Headers) -> Problem:
    if sent_key(headers) is None:
        return unauthorized("send an API key: Authorization: Bearer KEY, or X-API-Key: KEY")
    try:
        client.guess()
    except Problem as too_many:
        return too_many
    return unauthorized("this API key is not valid")


def _too_many(detail: str, allotment: Allotment) -> Problem:
    return Problem(GatewayCode.RATE_LIMITED, detail, headers={"Retry-After": str(allotment.wait_s)})


def _is_open(path: str) -> bool:
    return path in _OPEN or (path.startswith(_OPEN_FOLDER) and ".." not in path)


def _address(scope: Scope) -> str:
    """The client's address; of IPv6 the network, which one client has to itself."""
    host = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _cookie(text: str) -> str | None:
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def _hash(key: str) -> bytes:
    return hashlib.sha256(b"tonestream api key " + key.encode("utf-8", "surrogateescape")).digest()


def _name(hashed: bytes) -> str:
    return f"key {hashed.hex()[:16]}"


def _signature(hashed: bytes, content: str) -> str:
    made = hmac.new(hashed, b"session " + content.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode("ascii")
