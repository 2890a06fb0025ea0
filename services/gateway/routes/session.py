"""Signing in with an API key, for pages."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from services.gateway.access import COOKIE, Keys, sent_key, unauthorized
from services.gateway.problems import GatewayCode, responses
from services.gateway.routes import AnyGateway, Asking

router = APIRouter(prefix="/v1/session", tags=["session"])


@router.post(
    "",
    status_code=204,
    response_class=Response,
    summary="Sign in",
    responses=responses(GatewayCode.UNAUTHORIZED, GatewayCode.RATE_LIMITED),
)
def sign_in(request: Request, response: Response, gateway: AnyGateway, client: Asking) -> None:
    """The key comes as in every request: `Authorization: Bearer KEY`, or `X-API-Key: KEY`. Sets a cookie that stands
    for the key in this browser, for `TONESTREAM_GATEWAY_SESSION_S` seconds. Scripts cannot read it, and pages of other
    sites cannot use it. A gateway without keys needs none, and sets none."""
    keys = Keys.of(gateway.settings)
    if not keys.needed:
        return
    key = sent_key(request.headers)
    if key is None:
        raise unauthorized("send an API key: Authorization: Bearer KEY, or X-API-Key: KEY")
    if keys.holder(key) is None:
        client.guess()
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
