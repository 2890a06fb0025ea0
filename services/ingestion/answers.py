"""What a server's answer says before its body: whether there is a file, how large it is, and how it is packed."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import httpcore2

from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.http.answers import answered, header, retry_after_s

_TRANSIENT: Final = frozenset({408, 425, 429})
#: What helps against these answers.
_HINTS: Final = {
    401: "; passwords are never sent",
    403: "; a signed address may have expired",
}
_RANGE: Final = re.compile(r"bytes[ =]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)
_LENGTH: Final = re.compile(r"[0-9]{1,20}")
#: Content codings that pack a file. Other values that servers send (``none``, ``aws-chunked``, ``utf-8``) do not.
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_PACKED: Final = _GZIP | {"deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
_GZIP_MAGIC: Final = b"\x1f\x8b"


def media_type(response: httpcore2.Response) -> str:
    """The content type, in lower case, without parameters; empty if there is none."""
    return (header(response, b"content-type") or "").partition(";")[0].strip().lower()


def announced_bytes(response: httpcore2.Response) -> int | None:
    """The size of the body that the server announces."""
    if header(response, b"transfer-encoding") is not None:
        return None  # the length does not hold then
    length = _LENGTH.fullmatch((header(response, b"content-length") or "").strip())
    return int(length[0]) if length else None


def range_bytes(response: httpcore2.Response) -> int | None:
    """The size of the file if the answer is a range (206) of the whole file, else None."""
    found = _content_range(response) if response.status == HTTPStatus.PARTIAL_CONTENT else None
    if found is None or int(found[1]) != 0 or found[3] == "*" or int(found[2]) + 1 != int(found[3]):
        return None
    return int(found[3])


def is_radio(response: httpcore2.Response) -> bool:
    """Whether a radio server sends a stream. An answer with a length is a file, whoever sends it."""
    return announced_bytes(response) is None and any(name.lower().startswith(b"icy-") for name, _ in response.headers)


def check_status(response: httpcore2.Response) -> None:
    """Raises TonestreamError, or TransientError with the wait that the server asks for, unless there is a file, and
    the whole of it."""
    status = response.status
    if status == HTTPStatus.PARTIAL_CONTENT:
        _check_range(response)
    if 200 <= status < 300:
        return
    said = f"{answered(status)}{_HINTS.get(status, '')}"
    if status in _TRANSIENT or status >= 500:
        raise TransientError(ErrorCode.FETCH_FAILED, said, retry_after_s(response))
    raise TonestreamError(ErrorCode.FETCH_FAILED, said)


def no_file(response: httpcore2.Response) -> TonestreamError:
    """The fault of an answer that says yes and sends no file."""
    if response.status == HTTPStatus.ACCEPTED:
        return TransientError(
            ErrorCode.FETCH_FAILED, f"{answered(202)}: the file is not ready yet", retry_after_s(response)
        )
    return TonestreamError(ErrorCode.FETCH_FAILED, f"{answered(response.status)} and sends no file")


def check_packing(response: httpcore2.Response, head: bytes) -> None:
    """Raises TonestreamError (fetch_failed) where the body, which begins with ``head``, is packed."""
    fields = (value.decode("latin-1") for key, value in response.headers if key.lower() == b"content-encoding")
    packings = {coding.strip().lower() for field in fields for coding in field.split(",")} & _PACKED
    # Some servers say gzip of what they do not pack. Other packings cannot be recognised.
    if not packings or (packings <= _GZIP and not head.startswith(_GZIP_MAGIC)):
        return
    kind = media_type(response)[:40] or "of no type"
    raise TonestreamError(
        ErrorCode.FETCH_FAILED,
        f"the server packs what it sends ({', '.join(sorted(packings))}; {kind}), although it was asked not to; give an"
        " address that serves the file as it is",
    )


def _check_range(response: httpcore2.Response) -> None:
    """Raises TonestreamError unless the range is the whole file. Nobody asked for a range."""
    if range_bytes(response) is not None:
        return
    found = _content_range(response)
    part = f"bytes {found[1]} to {found[2]} of {found[3].replace('*', 'unknown')}" if found else "which one is not said"
    raise TonestreamError(
        ErrorCode.FETCH_FAILED, f"{answered(206)} and sends only a part of the file ({part}) without being asked to"
    )


def _content_range(response: httpcore2.Response) -> re.Match[str] | None:
    return _RANGE.fullmatch((header(response, b"content-range") or "").strip())
