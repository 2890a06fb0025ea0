"""Error codes and the exceptions that carry them: the one home of both.

The codes are documented API: ``TrackResult.errors`` carries them and users branch on them.
"""

from __future__ import annotations

from enum import StrEnum


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
