"""What the gateway says of itself in metrics: its HTTP answers as they are given, and the rest at each scrape. And the
trace context with which it is asked."""

from __future__ import annotations

import contextlib
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.gateway import Gateway
from services.gateway.view.database import ViewUnavailableError
from shared.runtime import metrics, traces

#: The route of paths that no route answers.
_NO_ROUTE = "none"


class Measured:
    """Counts the requests by route, and times each until its answer begins: streams of events go on for hours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method = metrics.http_method(scope["method"])

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = _template(scope)
                metrics.HTTP_REQUESTS.labels(method, route, str(message["status"])).inc()
                metrics.HTTP_SECONDS.labels(method, route).observe(time.perf_counter() - started)
            await send(message)

        with traces.asked(Headers(scope=scope)):
            await self._app(scope, receive, send_counted)


def _template(scope: Scope) -> str:
    """The path of the route as it was declared, never the one that was asked for."""
    return getattr(scope.get("route"), "path", "") or _NO_ROUTE


def take_stock(gateway: Gateway) -> None:
    """Set the gauges of the gateway. What cannot be read at the moment keeps its last value."""
    metrics.READY.set(gateway.not_ready_because() is None)
    metrics.FOLLOWERS.set(gateway.feed.followers)
    with contextlib.suppress(ViewUnavailableError, OSError):
        metrics.VIEW_BYTES.set(gateway.database.path.stat().st_size)
        with gateway.database.reading() as connection:
            metrics.VIEW_RESULTS.set(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        metrics.WEBHOOKS_PENDING.set(gateway.webhooks.pending())
