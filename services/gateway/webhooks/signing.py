"""Secrets and signatures after the Standard Webhooks specification, version 1 of its symmetric scheme."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

PREFIX: Final = "whsec_"
#: What the specification allows, in bytes.
_SHORTEST: Final = 24
_LONGEST: Final = 64
_NEW: Final = 32


def new_secret() -> str:
    """A random secret: ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_NEW)).decode("ascii")


def key_of(secret: str) -> bytes:
    """The key that ``secret`` stands for. Raises ValueError, which does not quote it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        key = b""
    if not secret.startswith(PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"a secret is {PREFIX} and {_SHORTEST} to {_LONGEST} random bytes in base64")
    return key


def signed(secret: str, message_id: str, timestamp_s: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields of one attempt at ``timestamp_s`` (Unix epoch)."""
    content = b".".join((message_id.encode("ascii"), str(timestamp_s).encode("ascii"), body))
    signature = base64.b64encode(hmac.new(key_of(secret), content, hashlib.sha256).digest())
    return [
        (b"webhook-id", message_id.encode("ascii")),
        (b"webhook-timestamp", str(timestamp_s).encode("ascii")),
        (b"webhook-signature", b"v1," + signature),
    ]
