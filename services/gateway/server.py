"""The HTTP server around the application."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import uvicorn

from services.gateway.app import create_app
from services.gateway.gateway import Gateway

#: How long answers under way may take when the server ends, in seconds.
_GRACE_S: Final = 1


class GatewayServer(uvicorn.Server):
    """Serves the gateway on a socket that listens already. ``started_with`` is called when it answers."""

    def __init__(self, gateway: Gateway, started_with: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            create_app(gateway),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        super().__init__(config)
        self._gateway = gateway
        self._started_with = started_with

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started_with()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.hang_up()  # else the open event streams would be waited for
        await super().shutdown(sockets)
