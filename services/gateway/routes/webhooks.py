"""Webhooks: where results are sent to."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from services.gateway.problems import GatewayCode, responses
from services.gateway.routes import LivingGateway
from services.gateway.webhooks.store import Hook
from shared.contracts.errors import ErrorCode

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

EventName = Literal["result"]
HookId = Annotated[str, Path(description="the ID of the webhook", max_length=100, examples=["wh_0f8b"])]


class NewWebhook(BaseModel):
    """Where results are to be sent."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"url": "https://example.org/tonestream"}]},
    )

    url: str = Field(max_length=4096, description="http or https URL of a public address")
    secret: str | None = Field(
        None, max_length=200, description="`whsec_` and 24 to 64 random bytes in base64; default a new one"
    )
    events: list[EventName] = Field(["result"], min_length=1, max_length=1, description="what is sent")


class Webhook(BaseModel):
    """A webhook and how it fares. Times are seconds since 1970."""

    id: str
    url: str
    events: list[EventName]
    state: Literal["active", "disabled"] = Field(description="to a disabled one nothing is sent any more")
    disabled_because: str | None = None
    created_at: float
    pending: int = Field(description="results that wait")
    delivered: int
    given_up: int = Field(description="results that were tried for as long as they are, or waited when it was disabled")
    failing_since: float | None = Field(None, description="since when nothing arrived")
    resumes_at: float | None = Field(None, description="when it is tried again after a failure")
    last_attempt_at: float | None = None
    last_status: int | None = Field(None, description="the HTTP status of the last answer")
    last_fault: str | None = Field(None, description="why the last attempt failed")

    @classmethod
    def of(cls, hook: Hook) -> Webhook:
        return cls(
            id=hook.id,
            url=hook.url,
            events=["result"],
            state=hook.state,
            disabled_because=hook.disabled_because,
            created_at=hook.created_ms / 1000,
            pending=hook.pending,
            delivered=hook.delivered,
            given_up=hook.given_up,
            failing_since=_seconds(hook.failing_since_ms),
            resumes_at=_seconds(hook.resumes_ms or None),
            last_attempt_at=_seconds(hook.last_attempt_ms),
            last_status=hook.last_status,
            last_fault=hook.last_fault,
        )


class RegisteredWebhook(Webhook):
    """A new webhook, with the secret that its signatures are made with. It is shown this once."""

    secret: str


class WebhookList(BaseModel):
    """All webhooks, the oldest first."""

    webhooks: list[Webhook]


@router.post(
    "",
    status_code=201,
    summary="Have results sent to a URL",
    responses=responses(ErrorCode.FETCH_FORBIDDEN, GatewayCode.CONFLICT),
)
def register(gateway: LivingGateway, response: Response, wanted: NewWebhook) -> RegisteredWebhook:
    """Every result from now on is POSTed to the URL, signed after the Standard Webhooks specification, at least once:
    a delivery that fails is tried again for about a day."""
    hook = gateway.webhooks.register(wanted.url, wanted.secret)
    response.headers["Location"] = f"/v1/webhooks/{hook.id}"
    return RegisteredWebhook(**Webhook.of(hook).model_dump(), secret=hook.secret)


@router.get("", summary="All webhooks", responses=responses())
def list_all(gateway: LivingGateway) -> WebhookList:
    """With their state, and how their last delivery went. Secrets are not shown."""
    return WebhookList(webhooks=[Webhook.of(hook) for hook in gateway.webhooks.hooks()])


@router.get("/{webhook_id}", summary="A webhook and how it fares", responses=responses(GatewayCode.NOT_FOUND))
def show(gateway: LivingGateway, webhook_id: HookId) -> Webhook:
    """Its state, and how its last delivery went."""
    return Webhook.of(gateway.webhooks.hook(webhook_id))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    response_class=Response,
    summary="Send nothing more",
    responses=responses(GatewayCode.NOT_FOUND),
)
def remove(gateway: LivingGateway, webhook_id: HookId) -> None:
    """What waits for it is forgotten. Deliveries under way are broken off."""
    gateway.webhooks.remove(webhook_id)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
