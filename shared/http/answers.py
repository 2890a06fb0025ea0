"""What every answer over HTTP says in the same way: header fields, the wait it asks for, its status."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpcore2


def header(response: httpcore2.Response, name: bytes) -> str | None:
    """The first header of that name, which is given in lower case."""
    return next((value.decode("latin-1")[:1000] for key, value in response.headers if key.lower() == name), None)


def retry_after_s(response: httpcore2.Response) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None if it holds neither."""
    text = header(response, b"retry-after")
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def answered(status: int) -> str:
    """The status in words: a clause for an error message."""
    try:
        meaning = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        meaning = ""
    return f"the server answered with status {status}{meaning}"
