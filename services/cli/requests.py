"""From an input to a request."""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError

from services.cli.inputs import Input
from services.cli.status import UsageError
from shared.contracts.faults import faults
from shared.contracts.messages import LONGEST_SOURCE, TrackRequest
from shared.contracts.tracks import without_credentials


def remote_request(given: Input, request_id: str, **wishes: Any) -> TrackRequest:
    """The request for a URL or a Spotify track; ``wishes`` are further fields of it. Raises UsageError for anything
    else."""
    if given.kind == "unknown":
        raise UsageError("there is no such file, and it is neither a URL nor a Spotify track")
    try:
        if given.kind == "spotify":
            return TrackRequest(request_id=request_id, track_id=given.given, **wishes)
        return TrackRequest(request_id=request_id, audio_url=given.given, **wishes)
    except ValidationError as error:
        raise UsageError(faults(error)) from error


def shown_source(given: Input) -> str:
    """The path or URL as given, without credentials. Bytes that are not text are escaped."""
    shown = os.fsencode(given.given).decode("utf-8", "backslashreplace")[:LONGEST_SOURCE]
    return without_credentials(shown) if given.kind == "url" else shown
