"""Looking up host names, with an end: the system's resolver keeps to its own times, which may be minutes."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from shared.contracts.errors import ErrorCode, TransientError

Resolve = Callable[[str, int], list[str]]

#: Look-ups under way at once. One that was given up goes on in the background until the system ends it.
_MOST_AT_ONCE: Final = 64


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the system's order of preference. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class LookUps:
    """Runs ``resolver`` in threads that are waited for so long and no longer. Safe from many threads.

    A thread whose look-up hangs cannot be ended, so there are at most ``most_at_once`` of them; further look-ups wait
    for a place within their own time. The threads keep no process from ending.
    """

    def __init__(self, resolver: Resolve = resolve, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._resolve = resolver
        self._places = threading.BoundedSemaphore(most_at_once)

    def addresses(self, host: str, port: int, timeout_s: float) -> list[str]:
        """The addresses of a host.

        Raises TransientError (fetch_timeout) after ``timeout_s`` seconds; whatever else the resolver raises (OSError,
        UnicodeError).
        """
        deadline = time.monotonic() + timeout_s
        if not self._places.acquire(timeout=max(0.0, timeout_s)):
            raise TransientError(ErrorCode.FETCH_TIMEOUT, "too many host names are being looked up at the moment")
        answer: queue.SimpleQueue[list[str] | BaseException] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answer.put(self._resolve(host, port))
            except BaseException as error:
                answer.put(error)
            finally:
                self._places.release()

        try:
            threading.Thread(target=look_up, name="look-up", daemon=True).start()
        except BaseException:
            self._places.release()
            raise
        try:
            found = answer.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TransientError(
                ErrorCode.FETCH_TIMEOUT, f"the host {host!r} could not be looked up within {timeout_s:.3g} s"
            ) from None
        if isinstance(found, BaseException):
            raise found
        return found
