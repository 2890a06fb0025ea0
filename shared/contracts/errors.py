"""Error codes and the exceptions that carry them: the one home of both.

The codes are documented API: ``TrackResult.errors`` carries them and users branch on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """Why a track, or half of its answer, failed."""

    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_MEDIA = "unsupported_media"
    CORRUPT_AUDIO = "corrupt_audio"
    SILENT_AUDIO = "silent_audio"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    FETCH_FORBIDDEN = "fetch_forbidden"
    FETCH_FAILED = "fetch_failed"
    FETCH_TIMEOUT = "fetch_timeout"
    NO_AUDIO = "no_audio"
    SPOTIFY_UNAVAILABLE = "spotify_unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a code means and what its reader can do, as Markdown: whole phrases without a full stop at the end."""

    meaning: str
    remedy: str


#: Every code, for people. Documents and user interfaces take their words from here.
EXPLANATIONS: Final[dict[ErrorCode, Explanation]] = {
    ErrorCode.INVALID_REQUEST: Explanation(
        "the request is not one; the message names the field and the reason",
        "correct the field and send the request under a new ID",
    ),
    ErrorCode.UNSUPPORTED_MEDIA: Explanation(
        "not an audio file, or of a format that is not read; the message names the format if it is known",
        "give audio in one of the [formats that are read](formats.md)",
    ),
    ErrorCode.CORRUPT_AUDIO: Explanation(
        "nothing in the file can be decoded", "fetch or export the file again, and try whether a player plays it"
    ),
    ErrorCode.SILENT_AUDIO: Explanation("nothing in it sounds", "check the recording: its level is below -70 dBFS"),
    ErrorCode.TOO_SHORT: Explanation("less than one segment of 3 s", "give a longer part of the track"),
    ErrorCode.TOO_LONG: Explanation(
        "longer than the limit, 4 hours by default", "cut the recording, or raise `TONESTREAM_MAX_TRACK_S`"
    ),
    ErrorCode.TOO_LARGE: Explanation(
        "a download of more bytes than the limit, 200 MB by default",
        "give a smaller file (MP3 or Opus will do), or raise `TONESTREAM_FETCH_MAX_BYTES`",
    ),
    ErrorCode.FETCH_FORBIDDEN: Explanation(
        "the URL leads to a private address, an odd port or our own Kafka or Redis, holds a password, or names a file"
        " outside of the folder that may be read",
        "give a public http or https URL. An operator can open private hosts with `TONESTREAM_FETCH_ALLOW`, and a"
        " folder with `TONESTREAM_LOCAL_FILES`",
    ),
    ErrorCode.FETCH_FAILED: Explanation(
        "the server refused, or had a fault that three tries did not outlast, or there is no such blob",
        "open the URL in a browser; if it works there, send the request again under a new ID",
    ),
    ErrorCode.FETCH_TIMEOUT: Explanation(
        "the download took longer than the limit, 120 s by default",
        "try again later, or raise `TONESTREAM_FETCH_TOTAL_TIMEOUT_S`",
    ),
    ErrorCode.NO_AUDIO: Explanation(
        "Spotify offers no preview of the track, and no `audio_url` was given",
        "give an `audio_url` beside the `track_id`",
    ),
    ErrorCode.SPOTIFY_UNAVAILABLE: Explanation(
        "Spotify cannot be asked: no credentials, refused, rate limited or down",
        "set the [credentials](spotify.md), or give an `audio_url`",
    ),
    ErrorCode.INTERNAL: Explanation(
        "a fault of Tonestream. After a defect the record is kept in `tonestream.dead-letters`, and the message says"
        " so. Otherwise something did not come in time, was gone or did not fit, and the message says what",
        "an operator looks at the [dead letter](operations.md#dead-letters) and replays it after the repair; without"
        " one, send the request again under a new ID",
    ),
}

#: Codes that follow from the bytes of the track alone. The same bytes fail again, so they may be cached. Not
#: ``too_long`` and ``too_large``: those follow from the operator's limits, which may be raised.
PERMANENT_FOR_AUDIO: frozenset[ErrorCode] = frozenset(
    {
        ErrorCode.UNSUPPORTED_MEDIA,
        ErrorCode.CORRUPT_AUDIO,
        ErrorCode.SILENT_AUDIO,
        ErrorCode.TOO_SHORT,
    }
)


def megabytes(size: int) -> str:
    """``size`` in bytes, for people: ``200 MB``, ``0.5 MB``."""
    number = size / (1 << 20)
    return f"{number:.0f} MB" if number >= 10 else f"{number:.2g} MB"


class TonestreamError(Exception):
    """A fault with a code a user can act on. Final: the same input would fail again."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TransientError(TonestreamError):
    """A fault of this one message that may heal by itself: worth a few more tries, then final.

    ``retry_after_s`` is the wait the other side asked for, in seconds (``Retry-After``), or None.
    """

    def __init__(self, code: ErrorCode, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class AbandonedError(Exception):
    """The caller abandoned the work. Its outcome is not needed."""


class DependencyError(Exception):
    """Something that every message needs (Redis, the blob store, the broker) is unavailable.

    No message is at fault, so none fails. The worker waits until the dependency is back.
    """


class HeldError(DependencyError):
    """This worker lacks something that only this message needs.

    The message waits, and so do the records after it in its partition. The rest of its batch goes out.
    """
