"""What clients may ask for over HTTP: URLs and Spotify tracks, and nothing of this machine unless it is allowed."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.problems import Problem
from shared.contracts.errors import ErrorCode
from shared.contracts.faults import faults
from shared.contracts.messages import TrackRequest
from shared.contracts.tracks import BLOB_SCHEME, FILE_SCHEME

MOST_TRACKS: Final = 1000


class NewTrack(BaseModel):
    """A track to be classified: ``audio_url``, ``track_id``, or both (audio from the one, names from the other)."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"audio_url": "https://example.org/song.mp3"}]},
    )

    audio_url: str | None = Field(None, description="http or https URL of an audio file")
    track_id: str | None = Field(None, description="Spotify ID, URI or open.spotify.com address")
    model: str | None = Field(None, description="genre model by folder name or model ID; default the installation's")
    force: bool = Field(False, description="compute the answer again even if one is cached")
    embedding: bool = Field(True, description="with the numbers by which similar tracks are found")


class NewTracks(BaseModel):
    """Up to 1000 tracks. Each is answered for itself, in the same order."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tracks: list[NewTrack] = Field(min_length=1, max_length=MOST_TRACKS)


def checked_track(fields: object, request_id: str, local_sources: bool) -> TrackRequest:
    """The request for a track of a JSON document. Raises Problem: invalid_request, fetch_forbidden."""
    try:
        wanted = NewTrack.model_validate(fields)
        request = TrackRequest(
            request_id=request_id,
            audio_url=wanted.audio_url,
            track_id=wanted.track_id,
            model=wanted.model,
            force=wanted.force,
            embedding=wanted.embedding,
        )
    except ValidationError as error:
        said = faults(error, "track", tuple(NewTrack.model_fields))
        raise Problem(ErrorCode.INVALID_REQUEST, said) from None
    if request.audio_url is not None and not local_sources:
        lowered = request.audio_url.lower()
        for scheme in (BLOB_SCHEME, FILE_SCHEME):
            if lowered.startswith(scheme):
                raise Problem(
                    ErrorCode.FETCH_FORBIDDEN,
                    f"{scheme} URLs are not taken over HTTP; upload the file instead"
                    " (TONESTREAM_GATEWAY_LOCAL_SOURCES opens this)",
                )
    return request
