"""How a receiver of webhooks verifies what arrives."""

from __future__ import annotations

import base64
import hashlib
import hmac

from services.gateway.webhooks.signing import key_of
from tests.support.web_server import Request


def verified(request: Request, secret: str) -> bool:
    """Whether the delivery was signed with that secret."""
    sent = request.headers
    content = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + request.body
    signature = base64.b64encode(hmac.new(key_of(secret), content, hashlib.sha256).digest()).decode()
    return sent["webhook-signature"] == f"v1,{signature}"
