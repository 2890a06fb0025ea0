"""Whether the gateway works, and what it is."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from services.gateway.heard import LONGEST_PART_S
from services.gateway.measures import take_stock
from services.gateway.problems import responses
from services.gateway.routes import AnyGateway, samples
from services.gateway.sources import MOST_TRACKS
from shared.models.catalogue import Catalogue

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """``because`` says why not."""

    ok: bool
    because: str | None = None


class Limits(BaseModel):
    """What the gateway takes at most."""

    upload_bytes: int
    track_s: float = Field(description="seconds")
    tracks_at_once: int
    audio_part_s: float = Field(description="seconds of audio that can be had at once")


class Info(BaseModel):
    """What this gateway is. ``models``: the genre models that requests may name, the default first."""

    version: str
    mode: Literal["embedded", "kafka"] = Field(description="where the pipeline runs")
    models: list[str]
    mood_model: str
    limits: Limits
    samples: int = Field(description="bundled samples that `POST /v1/samples` classifies")
    auth_required: bool
    keeps_audio_s: int = Field(description="how long what was heard can be played, in seconds; 0: not at all")
    caught_up: bool = Field(description="whether the view holds everything that was on the topics at the start")


@router.get("/livez", summary="Whether a restart would help", response_model=Health,
            responses={503: {"model": Health, "description": "a thread of the gateway has ended"}})  # fmt: skip
def live(gateway: AnyGateway) -> JSONResponse:
    """200 while the gateway's threads run."""
    return _answer(gateway.dead_because())


@router.get("/readyz", summary="Whether it takes work", response_model=Health,
            responses={503: {"model": Health, "description": "something is away"}})  # fmt: skip
def ready(gateway: AnyGateway) -> JSONResponse:
    """200 while the topics are read and the pipeline of this process runs."""
    return _answer(gateway.not_ready_because())


# For Prometheus, and no part of the API. With API keys it takes one, like everything that is not open.
@router.get("/metrics", include_in_schema=False)
def measured(gateway: AnyGateway) -> Response:
    """The metrics of this process."""
    take_stock(gateway)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/info", summary="What this gateway is", responses=responses())
def info(gateway: AnyGateway) -> Info:
    """Version, models and limits."""
    settings = gateway.settings
    names = [model.folder.name for model in Catalogue.of(settings).installed("genre")]
    return Info(
        version=version("tonestream"),
        mode=gateway.mode,
        models=sorted(names, key=lambda name: (name != settings.genre_model, name)),
        mood_model=settings.mood_model,
        limits=Limits(
            upload_bytes=settings.fetch_max_bytes,
            track_s=settings.max_track_s,
            tracks_at_once=MOST_TRACKS,
            audio_part_s=LONGEST_PART_S,
        ),
        samples=len(samples.installed()),
        auth_required=settings.gateway_api_keys is not None,
        keeps_audio_s=settings.keep_audio_s,
        caught_up=gateway.follower.caught_up,
    )


def _answer(reason: str | None) -> JSONResponse:
    health = Health(ok=reason is None, because=reason)
    return JSONResponse(health.model_dump(exclude_none=True), 200 if health.ok else 503)
