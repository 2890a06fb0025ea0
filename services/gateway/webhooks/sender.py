"""One attempt: a POST over a guarded connection. Of the answer only the head is read."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import httpcore2

from shared.contracts.errors import ErrorCode, TonestreamError
from shared.http.addresses import AllowList
from shared.http.answers import answered, retry_after_s
from shared.http.connections import Allowance, GuardedBackend, Wording, ssl_context
from shared.http.lookup import LookUps, Resolve, resolve
from shared.http.own_servers import Endpoint, OwnServers
from shared.http.urls import Target

#: What a receiver's answer may have on the wire. Its body is not read.
_ANSWER_BYTES: Final = 256 * 1024
_USER_AGENT: Final = b"tonestream-webhooks"
#: Networks of one's own. Link-local addresses, where clouds keep credentials, are not among them.
_PRIVATE: Final = "127.0.0.0/8:*,10.0.0.0/8:*,172.16.0.0/12:*,192.168.0.0/16:*,100.64.0.0/10:*,[::1]:*,[fc00::/7]:*"
_WORDING: Final = Wording(
    late="the receiver took longer than {} (TONESTREAM_GATEWAY_WEBHOOK_TIMEOUT_S)",
    too_large=f"the head of the receiver's answer has more than {_ANSWER_BYTES // 1024} KiB",
    allow_by="TONESTREAM_GATEWAY_WEBHOOK_PRIVATE",
)
_LONGEST_FAULT: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered, or why it did not: then ``status`` is None. ``fault`` is None after a success."""

    status: int | None
    fault: str | None
    retry_after_s: float | None = None


class Sender:
    """Sends to public addresses, with ``private`` also to private ones, and never to the servers in ``own``. An attempt
    takes at most ``timeout_s``. Safe from many threads."""

    def __init__(
        self, timeout_s: float, private: bool, own: Iterable[Endpoint] = (), resolver: Resolve = resolve
    ) -> None:
        self._timeout_s = timeout_s
        self._allow = AllowList.parse(_PRIVATE if private else "")
        self._look_ups = LookUps(resolver)
        self._own = OwnServers(own, self._look_ups)

    def check(self, url: str) -> None:
        """Raises TonestreamError (fetch_forbidden, fetch_failed) for a URL that nothing would ever be sent to. Names
        are looked up, and their addresses checked, at each attempt."""
        target = Target.parse(url)
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            return
        if not self._allow.permits(target.host, address, target.port):
            raise TonestreamError(
                ErrorCode.FETCH_FORBIDDEN,
                f"{target.authority} is not a public web address; an operator can allow it ({_WORDING.allow_by})",
            )

    def post(self, url: str, fields: list[tuple[bytes, bytes]], body: bytes, abandoned: threading.Event) -> Answer:
        """Send ``body`` with these header fields. Redirects are not followed. Raises AbandonedError."""
        allowance = Allowance(self._timeout_s, _ANSWER_BYTES, abandoned, _WORDING)
        backend = GuardedBackend(self._allow, self._own, self._look_ups, allowance, self._timeout_s)
        waits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        try:
            target = Target.parse(url)
            headers = [
                (b"Host", target.authority.encode("ascii")),
                (b"User-Agent", _USER_AGENT),
                (b"Content-Type", b"application/json"),
                (b"Content-Length", str(len(body)).encode("ascii")),
                *fields,
            ]
            address = httpcore2.URL(
                scheme=target.scheme.encode(), host=target.host.encode("ascii"), port=target.port, target=target.path
            )
            extensions = {"timeout": waits, "sni_hostname": target.server_name}
            with (
                httpcore2.ConnectionPool(ssl_context=ssl_context(), network_backend=backend) as pool,
                pool.stream("POST", address, headers=headers, content=body, extensions=extensions) as response,
            ):
                return _answer(response)
        except TonestreamError as error:
            return Answer(None, error.message[:_LONGEST_FAULT])
        except httpcore2.TimeoutException:
            return Answer(None, allowance.late().message)
        except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError, OSError) as error:
            return Answer(
                None, f"the receiver cannot be reached: {str(error) or type(error).__name__}"[:_LONGEST_FAULT]
            )


def _answer(response: httpcore2.Response) -> Answer:
    if 200 <= response.status < 300:
        return Answer(response.status, None)
    moved = "; redirects are not followed, register the new address" if 300 <= response.status < 400 else ""
    said = answered(response.status).replace("the server", "the receiver")
    return Answer(response.status, f"{said}{moved}", retry_after_s(response))
