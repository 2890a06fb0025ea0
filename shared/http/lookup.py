"""Looking up host names, with an end: the system's resolver keeps to its own times, which may be minutes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Final

from shared.contracts.errors import ErrorCode, TransientError
from shared.system.limited_calls import CallTimeoutError, LimitedCalls, TooBusyError

Resolve = Callable[[str, int], list[str]]

#: Look-ups under way at once. One that was given up goes on in the background until the system ends it.
_MOST_AT_ONCE: Final = 64


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the system's order of preference. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class LookUps:
    """Runs ``resolver`` within limits of time. Safe from many threads."""

    def __init__(self, resolver: Resolve = resolve, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._resolve = resolver
        self._calls = LimitedCalls("look-up", most_at_once)

    def addresses(self, host: str, port: int, timeout_s: float, abandoned: threading.Event | None = None) -> list[str]:
        """The addresses of a host.

        Raises TransientError (fetch_timeout) after ``timeout_s`` seconds; AbandonedError; whatever else the resolver
        raises (OSError, UnicodeError).
        """
        try:
            return self._calls.call(lambda: self._resolve(host, port), timeout_s, abandoned)
        except TooBusyError:
            raise TransientError(
                ErrorCode.FETCH_TIMEOUT, "too many host names are being looked up at the moment"
            ) from None
        except CallTimeoutError:
            raise TransientError(
                ErrorCode.FETCH_TIMEOUT, f"the host {host!r} could not be looked up within {timeout_s:.3g} s"
            ) from None
