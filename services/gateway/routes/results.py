"""Finished tracks: pages, exports, counts, similar ones, and the map of the library."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, create_model
from starlette.responses import Response, StreamingResponse

from services.gateway.gateway import Gateway
from services.gateway.problems import GatewayCode, Problem, responses
from services.gateway.routes import LivingGateway
from services.gateway.routes.tracks import TrackId, known_request
from services.gateway.view import search
from services.gateway.view.search import MOST_AT_ONCE, Wanted
from services.library.formats import csv_lines, m3u8_lines
from services.library.row import COLUMNS, Row
from shared.contracts.errors import ErrorCode

router = APIRouter(prefix="/v1", tags=["results"])

_TYPES: Final[dict[str, Any]] = {
    "text": str | None, "number": float | None, "flag": bool | None, "time": float, "words": list[str],
}  # fmt: skip
_NEVER_EMPTY: Final = frozenset({"id", "source", "status"})

#: ``Row`` as OpenAPI describes it.
RowModel: Final[type[BaseModel]] = create_model(
    "Row",
    **{
        column.name: (
            str if column.name in _NEVER_EMPTY else _TYPES[column.kind],
            Field(description=f"{column.description}{f' ({column.unit})' if column.unit else ''}"),
        )
        for column in COLUMNS
    },
)  # type: ignore[call-overload]


class Summary(BaseModel):
    """How many tracks have each value."""

    total: int
    unfinished: int = Field(description="tracks on their way")
    per_minute: int = Field(description="tracks that were finished within the last minute")
    genres: dict[str, int]
    moods: dict[str, int]
    statuses: dict[str, int]
    errors: dict[str, int]


class Removed(BaseModel):
    """How many tracks are gone."""

    removed: int


def _wanted(
    id: Annotated[list[str], Query(description="request IDs")] = [],  # noqa: B006
    genre: Annotated[list[str], Query()] = [],  # noqa: B006
    mood: Annotated[list[str], Query()] = [],  # noqa: B006
    status: Annotated[list[str], Query()] = [],  # noqa: B006
    min_confidence: Annotated[float | None, Query(ge=0, le=1, description="of the genre")] = None,
    bpm: Annotated[str | None, Query(description="a range: 90-120, 90- or -120", examples=["90-120"])] = None,
    key: Annotated[str | None, Query(examples=["F minor"])] = None,
    q: Annotated[
        str | None, Query(max_length=500, description="words in title, artist, source and tags; beginnings count")
    ] = None,
    where: Annotated[str | None, Query(description="an expression", examples=["mood == calm and energy < 0.4"])] = None,
) -> Wanted:
    """Raises SearchError."""
    return Wanted.of(
        ids=id, genres=genre, moods=mood, statuses=status, min_confidence=min_confidence, bpm=bpm, key=key, text=q,
        where=where,
    )  # fmt: skip


def _file(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "a download", "content": {media_type: {}}}, **responses()}


Filters = Annotated[Wanted, Depends(_wanted)]
Sort = Annotated[
    str, Query(description=f"one of {', '.join(search.SORTS)}; with - before it the other way", examples=["-finished"])
]


@router.get("/results", summary="Finished tracks, page by page", response_model=None, responses={
    200: {"content": {"application/json": {"schema": {
        "type": "object",
        "required": ["results", "total"],
        "properties": {
            "results": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
            "next": {"type": ["string", "null"], "description": "the cursor of the next page"},
            "total": {"type": "integer", "description": "of all pages"},
        },
    }}}},
    **responses(),
})  # fmt: skip
def results(
    gateway: LivingGateway,
    wanted: Filters,
    after: Annotated[str | None, Query(description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 100,
    sort: Sort = "-finished",
) -> Response:
    """Tracks without a value of the sort come last. New tracks between two pages neither repeat nor hide others."""
    with gateway.database.reading() as connection:
        page = search.page(connection, wanted, sort, limit, after)
    cursor = "null" if page.after is None else f'"{page.after}"'
    listed = ", ".join(row.as_json() for row in page.rows)
    return _json(f'{{"results": [{listed}], "next": {cursor}, "total": {page.total}}}')


@router.delete("/results", summary="Remove finished tracks", responses=responses())
def remove(gateway: LivingGateway, wanted: Filters) -> Removed:
    """All that the filters select, as `DELETE /v1/tracks/{id}` removes one. At least one filter is needed."""
    if not wanted.conditions:
        raise Problem(ErrorCode.INVALID_REQUEST, "at least one filter must say which tracks are to be removed")
    return Removed(removed=gateway.removals.remove_found(wanted))


@router.get(
    "/results.csv",
    summary="Finished tracks as CSV",
    response_class=Response,
    responses=_file("text/csv"),
)
def as_csv(gateway: LivingGateway, wanted: Filters, sort: Sort = "finished") -> Response:
    """All that the filters select."""
    return _download(gateway, "text/csv; charset=utf-8", "tonestream.csv", lambda rows: csv_lines(rows), wanted, sort)


@router.get(
    "/results.jsonl",
    summary="Finished tracks as JSON lines",
    response_class=Response,
    responses=_file("application/x-ndjson"),
)
def as_jsonl(gateway: LivingGateway, wanted: Filters) -> Response:
    """All that the filters select, each as the result that was published."""

    def lines() -> Iterator[str]:
        with gateway.database.reading() as connection:
            for result in search.answers(connection, wanted):
                yield f"{result.model_dump_json()}\n"

    return _attachment(lines(), "application/x-ndjson", "tonestream.jsonl")


@router.get(
    "/results.m3u8",
    summary="Finished tracks as a playlist",
    response_class=Response,
    responses=_file("audio/x-mpegurl"),
)
def as_m3u8(gateway: LivingGateway, wanted: Filters, sort: Sort = "finished") -> Response:
    """All that the filters select, by their sources."""
    return _download(
        gateway,
        "audio/x-mpegurl; charset=utf-8",
        "tonestream.m3u8",
        lambda rows: m3u8_lines((row, row.source) for row in rows),
        wanted,
        sort,
    )


@router.get("/summary", summary="Counts by genre, mood, status and error", responses=responses())
def summary(gateway: LivingGateway) -> Summary:
    """Over all tracks that the view holds."""
    with gateway.database.reading() as connection:
        found = search.counts(connection, time.time())
    return Summary(
        total=found.total, unfinished=found.unfinished, per_minute=found.last_minute, genres=found.genres,
        moods=found.moods, statuses=found.statuses, errors=found.errors,
    )  # fmt: skip


@router.get(
    "/similar/{request_id:path}",
    summary="Tracks that sound alike",
    response_model=None,
    responses=responses(GatewayCode.NOT_FOUND, GatewayCode.CONFLICT),
)
def similar(
    gateway: LivingGateway, request_id: TrackId, limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 20
) -> Response:
    """By the cosine similarity of their embeddings, the most similar first."""
    known_request(gateway, request_id)
    with gateway.database.reading() as connection:
        found = gateway.neighbours.of(connection, request_id, limit)
    if found is None:
        raise Problem(
            GatewayCode.CONFLICT,
            "this track has no embedding: it is not finished, was not heard, or was asked for without one",
            request_id=request_id,
        )
    listed = ", ".join(f'{{"similarity": {similarity}, {row.as_json()[1:]}' for similarity, row in found)
    return _json(f'{{"results": [{listed}]}}')


@router.get("/map", summary="The library as points", response_model=None, responses=responses())
def as_map(request: Request, gateway: LivingGateway, wanted: Filters) -> Response:
    """Columns of the same length: one entry a track with energy and valence."""
    with gateway.database.reading() as connection:
        if wanted.conditions:
            return _json(search.columns(connection, wanted))
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(gateway.library_map.text(connection), media_type="application/json")
        return Response(
            gateway.library_map.compressed(connection),
            media_type="application/json",
            headers={"Content-Encoding": "gzip", "Vary": "Accept-Encoding"},
        )


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


def _download(
    gateway: Gateway,
    media_type: str,
    name: str,
    write: Callable[[Iterator[Row]], Iterator[str]],
    wanted: Wanted,
    sort: str,
) -> Response:
    search.check_sort(sort)

    def lines() -> Iterator[str]:
        with gateway.database.reading() as connection:
            yield from write(search.rows(connection, wanted, sort))

    return _attachment(lines(), media_type, name)


def _attachment(lines: Iterator[str], media_type: str, name: str) -> Response:
    return StreamingResponse(
        _in_pieces(lines), media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _in_pieces(lines: Iterator[str], size: int = 64 * 1024) -> Iterator[str]:
    """The lines joined to pieces of at least ``size`` characters."""
    piece: list[str] = []
    length = 0
    for line in lines:
        piece.append(line)
        length += len(line)
        if length >= size:
            yield "".join(piece)
            piece, length = [], 0
    if piece:
        yield "".join(piece)
