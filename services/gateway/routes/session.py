"""Signing in with an API key, for pages."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.gateway.access import COOKIE, Keys, client_of, unauthorized
from services.gateway.problems import GatewayCode, responses
from services.gateway.routes import AnyGateway

router = APIRouter(prefix="/v1/session", tags=["session"])


class SignIn(BaseModel):
    """An API key."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: SecretStr = Field(max_length=1000, description="one of the gateway's API keys")


@router.post(
    "",
    status_code=204,
    response_class=Response,
    summary="Sign in",
    responses=responses(GatewayCode.UNAUTHORIZED, GatewayCode.RATE_LIMITED),
)
def sign_in(request: Request, response: Response, gateway: AnyGateway, sent: SignIn) -> None:
    """Sets a cookie that stands for the key in this browser, for `TONESTREAM_GATEWAY_SESSION_S` seconds. Scripts cannot
    read it, and pages of other sites cannot use it. A gateway without keys needs none, and sets none."""
    keys = Keys.of(gateway.settings)
    if not keys.needed:
        return
    key = sent.key.get_secret_value()
    if keys.holder(key) is None:
        client_of(request.state).guess()
        raise unauthorized("this API key is not valid")
    response.set_cookie(
        COOKIE,
        keys.session(key),
        max_age=keys.session_s,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


@router.delete("", status_code=204, response_class=Response, summary="Sign out", responses=responses())
def sign_out(request: Request, response: Response) -> None:
    """Removes the cookie from this browser."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
