"""The application: routes, what stands before them, and how errors look."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from services.gateway import static_page
from services.gateway.access import COOKIE, Access
from services.gateway.gateway import Gateway
from services.gateway.guards import Compressed, Defects, Guard, listed
from services.gateway.measures import Measured
from services.gateway.problems import GatewayCode, Problem, ProblemDetail, unavailable
from services.gateway.routes import audio, dead_letters, events, health, results, samples, session, tracks, webhooks
from services.gateway.sources import NewTrack, NewTracks
from services.gateway.view.database import ViewUnavailableError
from services.gateway.view.search import SearchError
from shared.contracts.errors import DependencyError, ErrorCode

_DESCRIPTION: Final = """
Genre and mood of music, with the evidence for every few seconds.

Send a track to `POST /v1/tracks`: a URL, a Spotify ID, or the file itself. The answer has a `request_id`; ask
`GET /v1/tracks/{id}?wait=30` for the result, or follow `GET /v1/events`. Errors are RFC 9457 documents
(`application/problem+json`) with a `code` to branch on.
"""


def create_app(gateway: Gateway) -> FastAPI:
    """The application over ``gateway``, which it starts and closes."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(gateway.start)
        try:
            yield
        finally:
            await run_in_threadpool(gateway.close)

    app = FastAPI(
        title="Tonestream",
        version=version("tonestream"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # The pages of FastAPI load scripts from another site.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.gateway = gateway
    for module in (audio, tracks, samples, results, events, webhooks, dead_letters, session, health):
        app.include_router(module.router)
    static_page.mount(app)
    _show_errors(app)
    _describe_problems(app)
    settings = gateway.settings
    # The last one added stands first.
    app.add_middleware(Compressed)
    app.add_middleware(Defects)
    app.add_middleware(Access, settings=settings)
    if origins := listed(settings.gateway_cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After", "RateLimit", "RateLimit-Policy"],
        )
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Measured)
    return app


def _show_errors(app: FastAPI) -> None:
    """Every error as a problem document."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = []
        for fault in error.errors()[:3]:
            place = ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0])
            faults.append(f"{place}: {fault['msg']}")
        return Problem(ErrorCode.INVALID_REQUEST, "; ".join(faults)).response()

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return Problem(GatewayCode.NOT_FOUND, f"there is nothing at {request.url.path}").response()
        if error.status_code == 405:
            return Problem(
                GatewayCode.METHOD_NOT_ALLOWED, f"{request.url.path} takes no {request.method}", headers=error.headers
            ).response()
        return Problem(ErrorCode.INVALID_REQUEST, str(error.detail), headers=error.headers).response()

    async def search(request: Request, error: Exception) -> Response:
        return Problem(ErrorCode.INVALID_REQUEST, str(error)).response()

    async def away(request: Request, error: Exception) -> Response:
        return unavailable(str(error)).response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(SearchError, search)
    app.add_exception_handler(ViewUnavailableError, away)
    app.add_exception_handler(DependencyError, away)


def _describe_problems(app: FastAPI) -> None:
    """OpenAPI names the problem document, and FastAPI's own form of validation errors is not ours."""
    inner = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = inner()
            schemas = document["components"]["schemas"]
            for theirs in ("HTTPValidationError", "ValidationError"):
                schemas.pop(theirs, None)
            for model in (ProblemDetail, NewTrack, NewTracks, results.RowModel):
                described = model.model_json_schema(ref_template="#/components/schemas/{model}")
                described.pop("$defs", None)
                schemas[model.__name__] = described
            # Each of several tracks is judged for itself.
            others = {"description": "what is no track is refused in its place, and the others are taken"}
            several = schemas["NewTracks"]["properties"]["tracks"]
            several["items"] = {"anyOf": [several["items"], others]}
            document["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "see `POST /v1/session`"},
            }
            # The empty one: a gateway without keys, and the operations that are open to everybody.
            document["security"] = [{"bearer": []}, {"header": []}, {"session": []}, {}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
