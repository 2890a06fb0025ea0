"""Tracks: send them, ask how far they are, send them again."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from services.gateway.access import Client
from services.gateway.forms import Form
from services.gateway.gateway import Gateway
from services.gateway.problems import GatewayCode, Problem, ProblemDetail, responses, unavailable
from services.gateway.routes import Asking, LivingGateway, TakingGateway
from services.gateway.sources import MOST_TRACKS, checked_track
from services.gateway.submissions import Submitted, UnconfirmedError
from services.gateway.uploads import Receiver, Refused, Upload, Wishes, too_large
from services.gateway.view import requests, search
from services.gateway.view.requests import Known, TrackStage
from shared.contracts.errors import ErrorCode
from shared.contracts.faults import encoding_fault, faults
from shared.contracts.messages import RequestId, TrackRequest, TrackResult
from shared.contracts.tracks import BLOB_SCHEME

router = APIRouter(prefix="/v1/tracks", tags=["tracks"])

_LONGEST_WAIT_S: Final = 60.0
#: The most of a JSON body: 1000 tracks with the longest URLs.
_MOST_JSON_BYTES: Final = 16 * 1024 * 1024
_ANY_JSON: Final[TypeAdapter[object]] = TypeAdapter(Any)
_REQUEST_ID: Final[TypeAdapter[str]] = TypeAdapter(RequestId)

TrackId = Annotated[str, Path(description="the request ID", examples=["my-1"])]


class TrackAccepted(BaseModel):
    """A track on its way. Ask for it at ``location``."""

    request_id: str
    location: str = Field(examples=["/v1/tracks/my-1"])
    stage: TrackStage
    source: str

    @classmethod
    def of(cls, submitted: Submitted) -> TrackAccepted:
        return cls(
            request_id=submitted.request_id,
            location=f"/v1/tracks/{quote(submitted.request_id, safe='')}",
            stage=submitted.stage,
            source=submitted.source,
        )


class TrackRefused(BaseModel):
    """A track of several that was not taken, and why."""

    source: str
    problem: ProblemDetail


class TracksAccepted(BaseModel):
    """The answer to several tracks, in their order."""

    tracks: list[TrackAccepted | TrackRefused]


class TrackState(BaseModel):
    """A track as far as it is. ``result`` is there once the stage is `ok`, `partial` or `failed`."""

    request_id: str
    stage: TrackStage
    source: str
    submitted_at: float = Field(description="seconds since 1970")
    finished_at: float | None = Field(None, description="seconds since 1970")
    timings: dict[str, float] = Field({}, description="milliseconds of work by stage; `total` since the request")
    outside: bool | None = Field(None, description="the track is probably of none of the ten genres")
    result: TrackResult | None = None


_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/NewTrack"},
                        {"$ref": "#/components/schemas/NewTracks"},
                    ]
                },
                "examples": {
                    "url": {"value": {"audio_url": "https://example.org/song.mp3"}},
                    "spotify": {"value": {"track_id": "spotify:track:4uLU6hMCjMI75M1A2tKUQC"}},
                    "several": {"value": {"tracks": [{"audio_url": "https://example.org/song.mp3"}]}},
                },
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "model": {"type": "string"},
                        "force": {"type": "boolean"},
                        "embedding": {"type": "boolean"},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "",
    status_code=202,
    summary="Classify a track, or several",
    response_model=TrackAccepted | TracksAccepted,
    responses=responses(
        ErrorCode.TOO_LARGE,
        ErrorCode.UNSUPPORTED_MEDIA,
        ErrorCode.FETCH_FORBIDDEN,
        GatewayCode.CONFLICT,
        GatewayCode.UPLOAD_INCOMPLETE,
        GatewayCode.DISK_FULL,
        GatewayCode.RATE_LIMITED,
    ),
    openapi_extra=_BODY,
)
async def submit(
    request: Request,
    gateway: TakingGateway,
    client: Asking,
    idempotency_key: Annotated[
        str | None,
        Header(description="the request ID to use; sent again with the same track it starts nothing new"),
    ] = None,
    x_filename: Annotated[
        str | None,
        Header(description="name of the file in the body, percent-encoded UTF-8", examples=["s%C3%B6ng.mp3"]),
    ] = None,
) -> JSONResponse:
    """A URL or a Spotify track as JSON, files as a form, or one file as the body.

    One track is answered with its `request_id` and a `Location`. With `tracks`, or with several files, the answer has
    `tracks`: each with its ID, or with the problem for which it was refused.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    request_id = None if idempotency_key is None else _checked_id(idempotency_key)
    client.submit(1)
    if kind == "application/json":
        return await _submit_json(request, gateway, client, request_id)
    await run_in_threadpool(require_room, gateway)
    receiver = Receiver(gateway.blobs, gateway.uploads, gateway.settings.fetch_max_bytes)
    try:
        if kind == "multipart/form-data":
            wishes = await _receive_form(request, receiver)
        elif kind.startswith("audio/") or kind == "application/octet-stream":
            wishes = Wishes.of(dict(request.query_params))
            await _receive_body(request, receiver, gateway.settings.fetch_max_bytes, unquote(x_filename or ""))
        else:
            raise Problem(
                ErrorCode.UNSUPPORTED_MEDIA,
                "send application/json, multipart/form-data, or a file as audio/* or application/octet-stream",
            )
        return await run_in_threadpool(submit_files, gateway, client, receiver, wishes, request_id)
    except UnconfirmedError:
        receiver.hand_over()  # it may be read yet
        raise
    except ClientDisconnect:
        await run_in_threadpool(receiver.discard)
        raise Problem(GatewayCode.UPLOAD_INCOMPLETE, "the connection was closed before the upload was whole") from None
    except BaseException:
        await run_in_threadpool(receiver.discard)
        raise


@router.post(
    "/{request_id:path}/retry",
    status_code=202,
    summary="Classify the same source again",
    response_model=TrackAccepted,
    responses=responses(GatewayCode.NOT_FOUND, GatewayCode.AUDIO_GONE, GatewayCode.RATE_LIMITED),
)
def retry(gateway: TakingGateway, client: Asking, request_id: TrackId) -> JSONResponse:
    """A new request for the same source, under a new ID. An upload has to be sent again once it was read."""
    client.submit(1)
    known = known_request(gateway, request_id)
    spec = known.spec
    if spec is None:
        raise Problem(
            GatewayCode.AUDIO_GONE, "how this track was asked for is not known any more; send it again",
            request_id=request_id,
        )  # fmt: skip
    if (
        spec.audio_url is not None
        and spec.audio_url.startswith(BLOB_SCHEME)
        and not gateway.blobs.exists(spec.audio_url)
    ):
        raise Problem(GatewayCode.AUDIO_GONE, "the uploaded file is gone; send it again", request_id=request_id)
    again = spec.model_copy(update={"request_id": uuid.uuid4().hex})
    (submitted,) = gateway.submissions.submit([again])
    return _accepted(submitted)


@router.get(
    "/{request_id:path}",
    summary="How far a track is, and its result",
    responses=responses(GatewayCode.NOT_FOUND),
)
async def state(
    gateway: LivingGateway,
    request_id: TrackId,
    wait: Annotated[
        float, Query(ge=0, le=_LONGEST_WAIT_S, description="seconds to wait for the result", examples=[30])
    ] = 0.0,
) -> TrackState:
    """With `wait` the answer comes as soon as the result does, or after that time with the stage so far."""
    with gateway.feed.expecting(request_id) as answered:
        found = await run_in_threadpool(_state, gateway, request_id)
        if wait > 0 and not found.stage.finished:
            await answered(wait)
            found = await run_in_threadpool(_state, gateway, request_id)
    return found


@router.delete(
    "/{request_id:path}",
    status_code=204,
    summary="Remove a track",
    responses=responses(GatewayCode.NOT_FOUND),
)
def remove(gateway: LivingGateway, request_id: TrackId) -> Response:
    """Its row, its evidence and what was kept to be played. A track that is under way is removed, too: it is finished,
    and its result does not appear. No record of the topics brings the track back; sent again under a new ID, it is a
    new track."""
    if not gateway.removals.remove([request_id]) and not gateway.removals.is_removed(request_id):
        raise Problem(GatewayCode.NOT_FOUND, f"no request has the ID {request_id!r}", request_id=request_id)
    return Response(status_code=204)


def known_request(gateway: Gateway, request_id: str) -> Known:
    """The request of that ID. Raises Problem (not_found)."""
    with gateway.database.reading() as connection:
        known = requests.find(connection, request_id)
    if known is None:
        raise Problem(GatewayCode.NOT_FOUND, f"no request has the ID {request_id!r}", request_id=request_id)
    return known


def _state(gateway: Gateway, request_id: str) -> TrackState:
    with gateway.database.reading() as connection:
        known = requests.find(connection, request_id)
        answer = search.answer(connection, request_id)
    if known is None:
        raise Problem(GatewayCode.NOT_FOUND, f"no request has the ID {request_id!r}", request_id=request_id)
    if answer is None:
        return TrackState(
            request_id=request_id, stage=known.stage, source=known.source, submitted_at=known.submitted_at
        )
    finished_at, result = answer
    return TrackState(
        request_id=request_id,
        stage=TrackStage(result.status.value),
        source=result.track.source,
        submitted_at=min(known.submitted_at, finished_at),
        finished_at=finished_at,
        timings=result.timings_ms,
        outside=result.none_of_the_ten,
        result=result,
    )


# JSON


async def _submit_json(request: Request, gateway: Gateway, client: Client, request_id: str | None) -> JSONResponse:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_JSON_BYTES:
                raise Problem(ErrorCode.TOO_LARGE, f"a JSON body has at most {_MOST_JSON_BYTES} bytes")
    except ClientDisconnect:
        raise Problem(GatewayCode.UPLOAD_INCOMPLETE, "the connection was closed before the body was whole") from None
    return await run_in_threadpool(_submit_document, gateway, client, bytes(body), request_id)


def _submit_document(gateway: Gateway, client: Client, body: bytes, request_id: str | None) -> JSONResponse:
    try:
        document = _ANY_JSON.validate_json(body)
    except ValidationError as error:
        said = encoding_fault(body, "body") or faults(error, "body")
        raise Problem(ErrorCode.INVALID_REQUEST, said) from None
    local = gateway.settings.gateway_local_sources
    if not isinstance(document, dict) or "tracks" not in document:
        one = checked_track(document, request_id or uuid.uuid4().hex, local)
        (submitted,) = gateway.submissions.submit([one])
        return _accepted(submitted)
    if request_id is not None:
        raise Problem(ErrorCode.INVALID_REQUEST, "Idempotency-Key names one request; send such tracks one by one")
    tracks = document["tracks"]
    if not isinstance(tracks, list) or not 0 < len(tracks) <= MOST_TRACKS or len(document) > 1:
        raise Problem(ErrorCode.INVALID_REQUEST, f"tracks: a list of 1 to {MOST_TRACKS} tracks, and nothing beside it")
    checked: list[TrackRequest | TrackRefused] = []
    for fields in tracks:
        try:
            checked.append(checked_track(fields, uuid.uuid4().hex, local))
        except Problem as problem:
            checked.append(TrackRefused(source=_named(fields), problem=problem.document()))
    return _several(gateway, client, checked)


def _several(gateway: Gateway, client: Client, checked: list[TrackRequest | TrackRefused]) -> JSONResponse:
    client.submit(len(checked) - 1)
    taken = iter(gateway.submissions.submit([one for one in checked if isinstance(one, TrackRequest)]))
    answers = [one if isinstance(one, TrackRefused) else TrackAccepted.of(next(taken)) for one in checked]
    return JSONResponse(TracksAccepted(tracks=answers).model_dump(mode="json", exclude_none=True), 202)


def _named(fields: object) -> str:
    """What a refused track calls itself."""
    if isinstance(fields, dict):
        for name in ("audio_url", "track_id"):
            if isinstance(fields.get(name), str):
                return str(fields[name])[:200]
    return ""


# Files


def require_room(gateway: Gateway) -> None:
    """Raises Problem (unavailable) while too many uploads wait."""
    with gateway.database.reading() as connection:
        waiting = requests.waiting_uploads(connection)
    if waiting >= gateway.settings.gateway_max_waiting:
        raise unavailable(f"{waiting} uploads wait for the pipeline (TONESTREAM_GATEWAY_MAX_WAITING); try again later")


async def _receive_form(request: Request, receiver: Receiver) -> Wishes:
    form = Form(request.headers["content-type"], receiver)
    async for chunk in request.stream():
        if chunk:
            await run_in_threadpool(form.feed, chunk)
    form.finish()
    return Wishes.of(form.fields)


async def _receive_body(request: Request, receiver: Receiver, limit_bytes: int, name: str) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise too_large(limit_bytes)
    await run_in_threadpool(receiver.begin, name)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit_bytes:
            raise too_large(limit_bytes)
        if chunk:
            await run_in_threadpool(receiver.write, chunk)
    await run_in_threadpool(receiver.end)


def submit_files(
    gateway: Gateway, client: Client, receiver: Receiver, wishes: Wishes, request_id: str | None
) -> JSONResponse:
    """Publish what was received, and answer with it. Raises Problem."""
    files = receiver.files
    if not files:
        raise Problem(ErrorCode.INVALID_REQUEST, "the form holds no file")
    if len(files) == 1:
        file = files[0]
        if isinstance(file, Refused):
            raise file.problem
        one = file.request(request_id or uuid.uuid4().hex, wishes)
        (submitted,) = gateway.submissions.submit([one], [file.fingerprint(wishes)])
        if not submitted.repeated:
            receiver.hand_over()
        receiver.discard()
        return _accepted(submitted)
    if request_id is not None:
        raise Problem(ErrorCode.INVALID_REQUEST, "Idempotency-Key names one request; send such files one by one")
    answered = _several(
        gateway,
        client,
        [
            file.request(uuid.uuid4().hex, wishes)
            if isinstance(file, Upload)
            else TrackRefused(source=file.source, problem=file.problem.document())
            for file in files
        ],
    )
    receiver.hand_over()
    return answered


def _accepted(submitted: Submitted) -> JSONResponse:
    accepted = TrackAccepted.of(submitted)
    return JSONResponse(accepted.model_dump(mode="json"), 202, headers={"Location": accepted.location})


def _checked_id(text: str) -> str:
    """Raises Problem (invalid_request)."""
    try:
        return _REQUEST_ID.validate_python(text)
    except ValidationError as error:
        raise Problem(ErrorCode.INVALID_REQUEST, f"Idempotency-Key: {faults(error)}") from None
