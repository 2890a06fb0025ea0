"""The operations of the API, by what they are about. Each module has a ``router``."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from services.gateway.access import Client, client_of
from services.gateway.gateway import Gateway
from services.gateway.problems import unavailable


def _gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.gateway
    return found


def _living(request: Request) -> Gateway:
    """Raises Problem (unavailable) where nothing would ever be answered."""
    gateway = _gateway(request)
    if (reason := gateway.dead_because()) is not None:
        raise unavailable(reason)
    return gateway


def _taking(request: Request) -> Gateway:
    """Raises Problem (unavailable) where a request could not be published: at once, instead of waiting for a broker."""
    gateway = _gateway(request)
    if (reason := gateway.not_ready_because()) is not None:
        raise unavailable(reason)
    return gateway


def _client(request: Request) -> Client:
    return client_of(request.state)


#: The gateway, whatever its state.
AnyGateway = Annotated[Gateway, Depends(_gateway)]
#: The gateway where it works; else the operation is answered with 503.
LivingGateway = Annotated[Gateway, Depends(_living)]
#: The gateway where it takes requests; else the operation is answered with 503.
TakingGateway = Annotated[Gateway, Depends(_taking)]
#: Who asks, as far as limits are concerned.
Asking = Annotated[Client, Depends(_client)]
