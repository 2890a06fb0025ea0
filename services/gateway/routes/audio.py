"""What was heard of a track, to be played and drawn."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from services.gateway.problems import GatewayCode, responses
from services.gateway.routes import LivingGateway
from services.gateway.routes.tracks import TrackId

router = APIRouter(prefix="/v1/tracks", tags=["tracks"])


class Waveform(BaseModel):
    """The outline of a track."""

    duration_s: float = Field(description="seconds")
    peaks: list[tuple[float, float]] = Field(description="least and greatest sample of each piece, -1 to 1")


@router.get(
    "/{request_id:path}/audio",
    summary="The part that was heard, as MP3",
    response_class=FileResponse,
    responses={
        200: {"description": "MP3, 22.05 kHz mono", "content": {"audio/mpeg": {}}},
        206: {"description": "the range of it that was asked for", "content": {"audio/mpeg": {}}},
        **responses(GatewayCode.NOT_FOUND, GatewayCode.AUDIO_GONE),
    },
)
async def part(
    gateway: LivingGateway,
    request_id: TrackId,
    start: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="seconds")] = None,
    end: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="seconds")] = None,
) -> FileResponse:
    """What the models heard: 22.05 kHz, mono. Ranges are served, so that players can seek."""
    made = await gateway.heard.part(request_id, start, end)
    # The same part is the same file for ever.
    headers = {"ETag": f'"{made.tag}"', "Cache-Control": "private, max-age=3600"}
    return FileResponse(made.file, media_type="audio/mpeg", headers=headers)


@router.get(
    "/{request_id:path}/waveform",
    summary="The outline of a track",
    responses=responses(GatewayCode.NOT_FOUND, GatewayCode.AUDIO_GONE),
)
async def waveform(
    gateway: LivingGateway,
    request_id: TrackId,
    points: Annotated[int, Query(ge=1, le=20_000, description="pieces of equal length")] = 1000,
) -> Waveform:
    """The least and the greatest sample of each piece, for drawing."""
    outline = await gateway.heard.outline(request_id, points)
    return Waveform(duration_s=outline.duration_s, peaks=list(outline.peaks))
