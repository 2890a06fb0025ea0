"""Clients of Tonestream: over HTTP with a gateway, or over Kafka without one; blocking or with asyncio."""

from tonestream.client.answers import Problem, Row, Ticket, TrackState
from tonestream.client.asynchronous import AsyncClient, AsyncResultStream
from tonestream.client.blocking import Client, ResultStream
from tonestream.client.errors import (
    Missed,
    NotFound,
    NotOffered,
    Refused,
    TimedOut,
    TonestreamClientError,
    Unavailable,
    UnexpectedAnswer,
)

__all__ = [
    "AsyncClient",
    "AsyncResultStream",
    "Client",
    "Missed",
    "NotFound",
    "NotOffered",
    "Problem",
    "Refused",
    "ResultStream",
    "Row",
    "Ticket",
    "TimedOut",
    "TonestreamClientError",
    "TrackState",
    "Unavailable",
    "UnexpectedAnswer",
]
