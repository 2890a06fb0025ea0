"""What happens to tracks, as it happens (server-sent events)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from services.gateway.feed import Event, result_data
from services.gateway.gateway import Gateway
from services.gateway.problems import responses
from services.gateway.routes import LivingGateway
from services.gateway.view import records, search

router = APIRouter(prefix="/v1", tags=["events"])

#: The most answers that a reader who comes back gets one by one.
_MOST_MISSED: Final = 2000
#: How long a browser waits before it connects again, in milliseconds.
_RETRY_MS: Final = 2000


@router.get("/events", summary="Follow all tracks", response_class=EventSourceResponse, responses=responses())
async def events(
    gateway: LivingGateway,
    last_event_id: Annotated[str | None, Header(description="goes on behind this event", examples=["12-17673"])] = None,
) -> AsyncIterator[ServerSentEvent]:
    """`track`: a track is at another stage (`request_id`, `stage`, `source`, `at`). `result`: a track is finished
    (`request_id`, `row`). `removed`: tracks are gone (`request_ids`). `reset`: too much was missed to be sent again;
    load the results anew. Comments keep the connection open. A reader that cannot keep up is cut off, and goes on with
    `Last-Event-ID`."""
    begin = gateway.feed.id_now()
    place = gateway.feed.now()
    missed: list[Event] = []
    if last_event_id is not None and (found := gateway.feed.place_of(last_event_id)) is not None:
        known, seq = found
        if known is not None:
            place = known
        else:
            missed = await run_in_threadpool(_missed, gateway, seq)
    # A reader that is cut off before its first event goes on from here.
    first = begin if last_event_id is None else None
    yield ServerSentEvent(comment="tracks as they change", retry=_RETRY_MS, id=first)
    for event in missed:
        yield _sent(event)
    async for event in gateway.feed.follow(place):
        yield _sent(event)


def _missed(gateway: Gateway, seq: int) -> list[Event]:
    """The answers after the one of that number; the news that there are too many, or that the view was made anew."""
    with gateway.database.reading() as connection:
        newest = records.last_seq(connection)
        found = search.rows_since(connection, seq, _MOST_MISSED + 1)
    if seq > newest or len(found) > _MOST_MISSED:
        return [Event(f"{newest}-0", "reset", "", "{}")]
    return [Event(f"{number}-0", "result", row.id, result_data(row)) for number, row in found]


def _sent(event: Event) -> ServerSentEvent:
    return ServerSentEvent(raw_data=event.data, event=event.name, id=event.id)
