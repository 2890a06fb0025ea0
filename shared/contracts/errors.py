"""Error codes and the exceptions that carry them: the one home of both.

The codes are documented API: they stand in ``TrackResult.errors`` and users branch on them.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a track, or a half of its answer, could not be had."""

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


#: Codes that follow from the bytes of the track alone. The same bytes fail again, so they may be cached.
#: Not ``too_long`` and ``too_large``: those follow from the operator's limits, which may be raised.
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
    """The work was given up by whoever asked for it. Its outcome interests nobody."""


class DependencyError(Exception):
    """Something every message needs (Redis, the blob store, the broker) cannot be used at the moment.

    No message is to blame, so none is failed for it: the worker waits until the dependency is back. ``dependency`` is
    its name, for people.
    """

    def __init__(self, message: str = "", dependency: str = "a dependency") -> None:
        super().__init__(message)
        self.dependency = dependency


class HeldError(DependencyError):
    """Something that this one message needs, and others do not, is missing in this worker.

    The message waits, and what stands behind it in its partition with it. The rest of its batch goes out.
    """
