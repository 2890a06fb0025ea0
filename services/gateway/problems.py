"""Errors as HTTP clients see them: RFC 9457 documents, each with a code to branch on."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from shared.contracts.errors import ErrorCode

MEDIA_TYPE: Final = "application/problem+json"
#: How long a client should wait before it asks again for what is unavailable, in seconds.
RETRY_AFTER_S: Final = 5


class GatewayCode(StrEnum):
    """Why the gateway refuses a request, where no ErrorCode says so."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    CONFLICT = "conflict"
    AUDIO_GONE = "audio_gone"
    UPLOAD_INCOMPLETE = "upload_incomplete"
    DISK_FULL = "disk_full"
    UNAVAILABLE = "unavailable"


Code = ErrorCode | GatewayCode

#: The status of each code that can be the gateway's answer. Codes of failed tracks stand in results instead.
STATUS: Final[Mapping[Code, HTTPStatus]] = {
    ErrorCode.INVALID_REQUEST: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.UNSUPPORTED_MEDIA: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.FETCH_FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    GatewayCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    GatewayCode.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    GatewayCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    GatewayCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
    GatewayCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    GatewayCode.CONFLICT: HTTPStatus.CONFLICT,
    GatewayCode.AUDIO_GONE: HTTPStatus.GONE,
    GatewayCode.UPLOAD_INCOMPLETE: HTTPStatus.BAD_REQUEST,
    GatewayCode.DISK_FULL: HTTPStatus.INSUFFICIENT_STORAGE,
    GatewayCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}

_TITLES: Final[Mapping[Code, str]] = {
    ErrorCode.INVALID_REQUEST: "The request is not valid",
    ErrorCode.UNSUPPORTED_MEDIA: "This media type is not accepted",
    ErrorCode.TOO_LARGE: "Too large",
    ErrorCode.FETCH_FORBIDDEN: "This source may not be fetched",
    ErrorCode.INTERNAL: "A defect of the gateway",
    GatewayCode.NOT_FOUND: "Not found",
    GatewayCode.METHOD_NOT_ALLOWED: "Method not allowed",
    GatewayCode.UNAUTHORIZED: "An API key is needed",
    GatewayCode.FORBIDDEN: "Forbidden",
    GatewayCode.RATE_LIMITED: "Too many requests",
    GatewayCode.CONFLICT: "Conflict",
    GatewayCode.AUDIO_GONE: "The audio is gone",
    GatewayCode.UPLOAD_INCOMPLETE: "The upload ended early",
    GatewayCode.DISK_FULL: "The disk is full",
    GatewayCode.UNAVAILABLE: "Not available at the moment",
}


class ProblemDetail(BaseModel):
    """An error document (RFC 9457). Branch on ``code``; ``detail`` is a sentence for a person."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:tonestream:error:not_found",
                "title": "Not found",
                "status": 404,
                "detail": "no request has the ID 'my-1'",
                "code": "not_found",
            }
        }
    )

    type: str = Field(description="`urn:tonestream:error:` and the code")
    title: str
    status: int = Field(description="the HTTP status")
    detail: str
    code: str = Field(description="an error code of results, or one of the gateway's own")
    request_id: str | None = None


class Problem(Exception):  # noqa: N818 (the word of RFC 9457)
    """A request ends with this error document."""

    def __init__(
        self, code: Code, detail: str, *, request_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.headers = dict(headers or {})
        if code is GatewayCode.UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))

    @property
    def status(self) -> HTTPStatus:
        return STATUS[self.code]

    def document(self) -> ProblemDetail:
        """The body of the answer."""
        return ProblemDetail(
            type=f"urn:tonestream:error:{self.code.value}",
            title=_TITLES[self.code],
            status=self.status.value,
            detail=self.detail,
            code=self.code.value,
            request_id=self.request_id,
        )

    def response(self) -> JSONResponse:
        """The answer."""
        body = self.document().model_dump(exclude_none=True)
        return JSONResponse(body, self.status.value, headers=self.headers, media_type=MEDIA_TYPE)


def unavailable(detail: str) -> Problem:
    """What is needed does not work at the moment."""
    return Problem(GatewayCode.UNAVAILABLE, detail)


def responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation, for OpenAPI. Those that every operation may give are added."""
    every = (
        ErrorCode.INVALID_REQUEST,
        GatewayCode.UNAUTHORIZED,
        GatewayCode.FORBIDDEN,
        ErrorCode.INTERNAL,
        GatewayCode.UNAVAILABLE,
    )
    found: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, *every):
        status = STATUS[code].value
        said = f"`{code.value}`: {_TITLES[code]}"
        if status in found:
            if said not in found[status]["description"]:
                found[status]["description"] += f"; {said}"
            continue
        found[status] = {
            "description": said,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}},
        }
    return found
