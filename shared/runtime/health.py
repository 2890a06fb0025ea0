"""Two questions about a worker, served over HTTP with the metrics beside them.

Live: its loop moves. A worker that waits for Kafka or Redis is alive; a restart would not help. Ready: it polled
lately, Kafka and Redis answer, and nothing is waited for.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.runtime import metrics


@dataclass(frozen=True, slots=True)
class Contact:
    """A server that this worker needs. ``silent_s`` is how long ago it last answered, in seconds.

    It counts as away after ``limit_s``, which is longer than the longest pause between two requests to it.
    """

    name: str
    silent_s: Callable[[], float]
    limit_s: float

    @property
    def away(self) -> bool:
        return self.silent_s() > self.limit_s


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to one of the two questions, and what a person wants to know about it."""

    ok: bool
    because: str
    seconds_since_poll: float | None
    seconds_in_batch: float
    waiting_for: str | None
    stopped_because: str | None

    def as_json(self, question: str) -> str:
        """The report, with the answer under the name of the question."""
        fields = asdict(self)
        return json.dumps({question: fields.pop("ok"), **fields})


class Pulse:
    """When the loop last moved and polled, since when it works on its batch. Written by the loop, read by others."""

    def __init__(self) -> None:
        self._moved = time.monotonic()
        self._polled: float | None = None
        self._batch_since: float | None = None
        self._waiting_for: str | None = None
        self._stopped_because: str | None = None
        self._stop_asked: float | None = None
        self._contacts: tuple[Contact, ...] = ()

    # Written

    def moved(self) -> None:
        """The loop does something, successful or not."""
        self._moved = time.monotonic()

    def polled(self) -> None:
        """The loop came back from the bus (a poll, or a keep-alive during a long batch)."""
        self._polled = self._moved = time.monotonic()

    def batch_started(self) -> None:
        self._batch_since = time.monotonic()
        self.moved()

    def batch_ended(self) -> None:
        self._batch_since = None
        self._waiting_for = None
        self.moved()

    def in_hand_since(self, since: float | None) -> None:
        """The longest that a record is being handled by now, by ``time.monotonic``; None: nothing is."""
        self._batch_since = since

    def waiting(self, dependency: str | None) -> None:
        """The loop cannot work until this dependency is back; None when it is."""
        self._waiting_for = dependency
        self.moved()

    def stopped(self, reason: str) -> None:
        """The loop gave up for good; the process ends soon, and needs no server any more."""
        self._stopped_because = reason
        self._contacts = ()

    def stop_asked(self) -> None:
        """The process was asked to end."""
        if self._stop_asked is None:
            self._stop_asked = time.monotonic()

    def watch(self, *contacts: Contact) -> None:
        """The worker is not ready while one of these is away."""
        self._contacts += contacts

    # Read

    @property
    def waiting_for(self) -> str | None:
        """What the loop cannot work without and does not have at the moment; None if nothing is missing."""
        return self._waiting_for

    @property
    def contacts(self) -> tuple[Contact, ...]:
        return self._contacts

    def seconds_in_batch(self) -> float:
        """Seconds the batch in hand has taken; 0.0 between batches, and while a dependency is waited for."""
        since = self._batch_since
        return 0.0 if since is None or self._waiting_for else time.monotonic() - since

    def seconds_without_move(self) -> float:
        """Seconds since the loop last did anything; 0.0 once it has ended by itself."""
        return 0.0 if self._stopped_because else time.monotonic() - self._moved

    def seconds_stopping(self) -> float:
        """Seconds since the process was asked to end; 0.0 where it was not."""
        return 0.0 if self._stop_asked is None else time.monotonic() - self._stop_asked

    def live(self, stall_s: float) -> Health:
        """Whether the process is worth keeping."""
        if self._stopped_because is not None:
            return self._health(True, f"it stopped and ends by itself: {self._stopped_because}")
        still, batch = self.seconds_without_move(), self.seconds_in_batch()
        if still > stall_s:
            return self._health(False, f"its loop has not moved for {still:.0f} s")
        if batch > stall_s:
            return self._health(False, f"it has worked on one batch for {batch:.0f} s")
        if self._polled is None:
            return self._health(True, "it is starting")
        return self._health(True, f"its loop moved {still:.0f} s ago")

    def ready(self, stale_s: float) -> Health:
        """Whether the worker takes work at the moment."""
        age = self._since_poll()
        if self._stopped_because is not None:
            obstacle = f"it stopped: {self._stopped_because}"
        elif self._stop_asked is not None:
            obstacle = "it was asked to end"
        elif self._waiting_for is not None:
            obstacle = f"it waits: {self._waiting_for}"
        elif age is None:
            obstacle = "it is starting and has not polled yet"
        elif age > stale_s:
            obstacle = f"it last polled {age:.0f} s ago"
        else:
            away = [f"{one.name} has not answered for {one.silent_s():.0f} s" for one in self._contacts if one.away]
            if not away:
                names = " and ".join(one.name for one in self._contacts)
                return self._health(True, f"it polled {age:.0f} s ago" + (f", and {names} answer" if names else ""))
            obstacle = "; ".join(away)
        return self._health(False, obstacle)

    def _since_poll(self) -> float | None:
        return None if self._polled is None else time.monotonic() - self._polled

    def _health(self, ok: bool, because: str) -> Health:
        age = self._since_poll()
        return Health(
            ok=ok,
            because=because,
            seconds_since_poll=None if age is None else round(age, 3),
            seconds_in_batch=round(self.seconds_in_batch(), 3),
            waiting_for=self._waiting_for,
            stopped_because=self._stopped_because,
        )


class Pulses:
    """The pulses of all loops of a worker as one: it is as well as the least well of them.

    ``first`` tells of the start, and of the first loop from then on.
    """

    def __init__(self) -> None:
        self.first = Pulse()
        self._pulses = [self.first]

    def another(self) -> Pulse:
        """A pulse for one more loop than the first."""
        pulse = Pulse()
        self._pulses.append(pulse)
        return pulse

    @property
    def contacts(self) -> tuple[Contact, ...]:
        return tuple(contact for pulse in self._pulses for contact in pulse.contacts)

    def stop_asked(self) -> None:
        """See Pulse."""
        for pulse in self._pulses:
            pulse.stop_asked()

    def stopped(self, reason: str) -> None:
        """See Pulse."""
        for pulse in self._pulses:
            pulse.stopped(reason)

    def seconds_in_batch(self) -> float:
        """See Pulse: the longest of them."""
        return max(pulse.seconds_in_batch() for pulse in self._pulses)

    def seconds_without_move(self) -> float:
        """See Pulse: the longest of them."""
        return max(pulse.seconds_without_move() for pulse in self._pulses)

    def seconds_stopping(self) -> float:
        """See Pulse."""
        return self.first.seconds_stopping()

    def live(self, stall_s: float) -> Health:
        """See Pulse: the first that is not live, or else the first."""
        return _worst(pulse.live(stall_s) for pulse in self._pulses)

    def ready(self, stale_s: float) -> Health:
        """See Pulse: the first that is not ready, or else the first."""
        return _worst(pulse.ready(stale_s) for pulse in self._pulses)


def _worst(answers: Iterable[Health]) -> Health:
    first, *others = answers
    return next((health for health in (first, *others) if not health.ok), first)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that went away before its answer is no news either. Anything else is a defect."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HealthServer:
    """``GET /livez`` and ``GET /readyz`` (200 or 503, JSON) and ``GET /metrics`` (Prometheus text).

    ``/healthz`` is another name of ``/livez``.
    """

    def __init__(self, pulse: Pulse | Pulses, host: str, port: int, stale_s: float, stall_s: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path in ("/livez", "/healthz"):
                    self._report("live", pulse.live(stall_s))
                elif self.path == "/readyz":
                    self._report("ready", pulse.ready(stale_s))
                elif self.path == "/metrics":
                    metrics.READY.set(pulse.ready(stale_s).ok)
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
                else:
                    self._answer(404, "text/plain", b"only /livez, /readyz, /healthz and /metrics are here\n")

            def _report(self, question: str, health: Health) -> None:
                self._answer(200 if health.ok else 503, "application/json", health.as_json(question).encode())

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes every few seconds are no news."""

        self._server = _Server((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
