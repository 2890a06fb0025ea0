"""The page: one HTML file at ``/``, and what it loads below ``/static/``. Nothing comes from other sites."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from services.gateway.problems import GatewayCode, Problem

FOLDER: Final = Path(__file__).resolve().parent / "page"
#: A browser asks each time whether a file has changed, and is answered by its ETag.
_ASK_AGAIN: Final = "no-cache"


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _ASK_AGAIN
        return response


def mount(app: FastAPI) -> None:
    """Add the page to the application."""

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        file = FOLDER / "index.html"
        if not file.is_file():
            raise Problem(GatewayCode.NOT_FOUND, "this installation has no page; the API is at /v1, see /openapi.json")
        return FileResponse(file, media_type="text/html", headers={"Cache-Control": _ASK_AGAIN})

    app.mount("/static", _Files(directory=FOLDER, check_dir=False), name="static")
