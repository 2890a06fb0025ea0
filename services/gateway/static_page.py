"""The page: one HTML file at ``/``, and what it loads below ``/static/``. Nothing comes from other sites."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from services.gateway.problems import GatewayCode, Problem

FOLDER: Final = Path(__file__).resolve().parent / "page"
_INDEX: Final = "index.html"
#: A browser asks each time whether a file has changed, and is answered by its ETag.
_ASK_AGAIN: Final = "no-cache"


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _ASK_AGAIN
        return response


def mount(app: FastAPI, folder: Path = FOLDER) -> None:
    """Add the page to the application."""
    files = _Files(directory=folder, check_dir=False)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        if not (folder / _INDEX).is_file():
            raise Problem(GatewayCode.NOT_FOUND, "this installation has no page; the API is at /v1, see /openapi.json")
        return await files.get_response(_INDEX, request.scope)

    if folder.is_dir():
        app.mount("/static", files, name="static")
