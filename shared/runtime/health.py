"""Health means: this worker's loop polled lately. Served over HTTP with the metrics beside it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


class Pulse:
    """When the loop last polled and since when it works on its batch. Written by the loop, read by others."""

    def __init__(self) -> None:
        self._polled: float | None = None
        self._batch_since: float | None = None
        self._waiting_for: str | None = None
        self._stopped_because: str | None = None

    def polled(self) -> None:
        """The loop reached the bus (a poll, or a keep-alive during a long batch)."""
        self._polled = time.monotonic()

    def batch_started(self) -> None:
        self._batch_since = time.monotonic()

    def batch_ended(self) -> None:
        self._batch_since = None
        self._waiting_for = None

    def in_hand_since(self, since: float | None) -> None:
        """The longest that a record is being handled by now, by ``time.monotonic``; None: nothing is."""
        self._batch_since = since

    def waiting(self, dependency: str | None) -> None:
        """The loop cannot work until this dependency is back; None when it is."""
        self._waiting_for = dependency

    def stopped(self, reason: str) -> None:
        """The loop gave up for good; the process ends soon."""
        self._stopped_because = reason

    def seconds_since_poll(self) -> float | None:
        """Seconds since the last poll; None before the first."""
        return None if self._polled is None else time.monotonic() - self._polled

    def seconds_in_batch(self) -> float:
        """Seconds the batch in hand has taken; 0.0 between batches, and while a dependency is waited for."""
        since = self._batch_since
        return 0.0 if since is None or self._waiting_for else time.monotonic() - since

    def report(self, stale_s: float) -> tuple[bool, dict[str, object]]:
        """Healthy or not, and what a person wants to know about it."""
        age = self.seconds_since_poll()
        kept_up = self._waiting_for is None and self._stopped_because is None
        healthy = age is not None and age <= stale_s and kept_up
        return healthy, {
            "healthy": healthy,
            "seconds_since_poll": None if age is None else round(age, 3),
            "seconds_in_batch": round(self.seconds_in_batch(), 3),
            "waiting_for": self._waiting_for,
            "stopped_because": self._stopped_because,
        }


class Pulses:
    """The pulses of all loops of a worker as one: it is as well as the least well of them."""

    def __init__(self) -> None:
        self._pulses: list[Pulse] = []

    def one(self) -> Pulse:
        """A pulse for one more loop."""
        pulse = Pulse()
        self._pulses.append(pulse)
        return pulse

    def seconds_in_batch(self) -> float:
        """See Pulse: the longest of them."""
        return max((pulse.seconds_in_batch() for pulse in self._pulses), default=0.0)

    def report(self, stale_s: float) -> tuple[bool, dict[str, object]]:
        """See Pulse: the first that is not healthy, or else the one that polled last."""
        pulses = self._pulses or [Pulse()]
        unwell = (pulse for pulse in pulses if not pulse.report(stale_s)[0])
        return next(unwell, min(pulses, key=lambda pulse: pulse.seconds_since_poll() or 0.0)).report(stale_s)


class HealthServer:
    """``GET /healthz`` (200 or 503, JSON) and ``GET /metrics`` (Prometheus text)."""

    def __init__(self, pulse: Pulse | Pulses, host: str, port: int, stale_s: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/healthz":
                    healthy, report = pulse.report(stale_s)
                    self._answer(200 if healthy else 503, "application/json", json.dumps(report).encode())
                elif self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
                else:
                    self._answer(404, "text/plain", b"only /healthz and /metrics are here\n")

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes every few seconds are no news."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
