"""S3 behind fsspec: how its client is set up, and what its faults mean in words.

Nothing here imports the client: it comes with the extra ``s3``, and only a process with an ``s3://`` URL loads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: A connection is there within this time, and each piece of an answer comes within this time, or the try has failed.
_CONNECT_S: Final = 5.0
_READ_S: Final = 10.0
#: Tries of one HTTP request. The client pauses longer before each, and asks less often while many fail.
_ATTEMPTS: Final = 4
#: Tries of a body that broke off on its way.
_BODY_ATTEMPTS: Final = 2
#: As many as the threads of a worker that may ask at once.
_CONNECTIONS: Final = 64
#: Larger objects travel in parts of this size, so many at once: that is all of one which memory holds.
PART_BYTES: Final = 8 * 1024 * 1024
_PARTS_AT_ONCE: Final = 4

_CREDENTIALS: Final = (
    "they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from the file that AWS_SHARED_CREDENTIALS_FILE names,"
    " or from the role of the machine"
)
_RIGHTS: Final = "s3:ListBucket on the bucket; s3:GetObject, s3:PutObject and s3:DeleteObject on its objects"
_REGION: Final = "the bucket is in another region: set AWS_REGION to its own"
#: What a refusal by the store means, by its code. A change of settings, of rights or of the clock mends it.
_REFUSALS: Final[dict[str, str]] = {
    "NoSuchBucket": "there is no such bucket (TONESTREAM_BLOB_URL)",
    "InvalidBucketName": "no bucket can have this name (TONESTREAM_BLOB_URL)",
    "InvalidAccessKeyId": f"the access key is not known there; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; {_CREDENTIALS}",
    "InvalidToken": f"the session token is not valid; {_CREDENTIALS}",
    "ExpiredToken": f"the session token has expired; {_CREDENTIALS}",
    "AccessDenied": f"these credentials may not do that; needed are {_RIGHTS}",
    "403": f"these credentials may not do that; needed are {_RIGHTS}",
    "AllAccessDisabled": "the bucket is disabled",
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}
#: Errors of the client itself, by the names of their classes.
_CLIENT_REFUSALS: Final[dict[str, str]] = {
    "NoCredentialsError": f"there are no credentials; {_CREDENTIALS}",
    "PartialCredentialsError": f"the credentials are not complete; {_CREDENTIALS}",
    "CredentialRetrievalError": f"the credentials cannot be had; {_CREDENTIALS}",
    "ProfileNotFound": f"there is no such profile (AWS_PROFILE); {_CREDENTIALS}",
    "ParamValidationError": "no bucket can have this name (TONESTREAM_BLOB_URL)",
    "InvalidRegionError": "that is no region (AWS_REGION)",
    "RecursionError": _REGION,
}
#: The store is busy or has a fault of its own: it may answer later.
_BUSY: Final = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException",
     "TooManyRequests", "RequestLimitExceeded", "OperationAborted", "429", "500", "502", "503", "504"}
)  # fmt: skip
#: The object is there and cannot be read: a rule of the bucket moved it to an archive.
_ARCHIVED: Final = "InvalidObjectState"
#: The libraries below fsspec whose errors are no OSError.
_LIBRARIES: Final = frozenset({"botocore", "aiobotocore", "aiohttp", "urllib3"})


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What a bucket removes by itself. ``expires_days`` is after how many days a blob goes, None for never;
    ``aborts_uploads`` says whether the parts of uploads that were never completed go."""

    expires_days: int | None
    aborts_uploads: bool
    versioned: bool


def housekeeping(rules: Sequence[Mapping[str, Any]], folder: str, versioned: bool) -> Housekeeping:
    """What the lifecycle rules of a bucket do with everything below ``folder``."""
    held = [rule for rule in rules if rule.get("Status") == "Enabled" and folder.startswith(_prefix(rule))]
    days = [int(rule["Expiration"]["Days"]) for rule in held if "Days" in rule.get("Expiration", {})]
    return Housekeeping(
        min(days, default=None), any("AbortIncompleteMultipartUpload" in rule for rule in held), versioned
    )


def _prefix(rule: Mapping[str, Any]) -> str:
    """Which names a rule is for. One for certain tags or sizes is for none of ours."""
    chosen = rule.get("Filter", {})
    if set(chosen) - {"Prefix"}:
        return "\0"
    return str(chosen.get("Prefix", rule.get("Prefix", "")))


def has_no_rules(error: BaseException) -> bool:
    """Whether the bucket answered that it has no lifecycle rules."""
    return any(_code(one) == "NoSuchLifecycleConfiguration" for one in _chain(error))


def options(endpoint_url: str | None) -> dict[str, Any]:
    """What fsspec is to open an ``s3://`` URL with."""
    return {
        # Else a process would look for new objects in what it listed before.
        "use_listings_cache": False,
        "default_block_size": PART_BYTES,
        "max_concurrency": _PARTS_AT_ONCE,
        "endpoint_url": endpoint_url,
        "config_kwargs": {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S,
            "max_pool_connections": _CONNECTIONS,
            "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
        },
    }


def limit_tries(files: Any) -> None:
    """Tries of the file system above those of its client: with its own number of them one call took minutes."""
    files.retries = _BODY_ATTEMPTS


def is_fault(error: BaseException) -> bool:
    """Whether the store or the way to it raised the error, and not a mistake in our code."""
    # The client follows a store that sends it from region to region until it cannot any more.
    return isinstance(error, OSError | RecursionError) or type(error).__module__.partition(".")[0] in _LIBRARIES


def refusal(error: BaseException) -> str | None:
    """Why the store will refuse the same again, in words; None where it may answer later."""
    for one in _chain(error):
        code = _code(one)
        if code in _BUSY:
            return None
        if (said := _REFUSALS.get(code) or _CLIENT_REFUSALS.get(type(one).__name__)) is not None:
            return f"{said} ({_text(one)})"
    return None


def in_words(error: BaseException) -> str:
    """What an operator reads about the error."""
    if (refused := refusal(error)) is not None:
        return refused
    found = list(_chain(error))
    if any(_code(one) in _BUSY for one in found):
        return f"it is busy: {_text(found[-1])}"
    if isinstance(found[0], TimeoutError) and not str(found[0]):
        return "it gave no answer in time"
    return _text(found[-1]) or type(found[-1]).__name__


def is_short(error: BaseException) -> bool:
    """Whether the store refused with a status alone, as it does where an answer has no body."""
    return any(_code(one) in {"301", "400", "403", "404"} for one in _chain(error))


def is_archived(error: BaseException) -> bool:
    """Whether the object was moved to an archive, from which nothing can be read at once."""
    return any(_code(one) == _ARCHIVED for one in _chain(error))


def is_busy(error: BaseException) -> bool:
    """Whether the store answered, and asked to be left alone for a while."""
    return any(_code(one) in _BUSY for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str:
    """The store's own code of an error; empty if it did not answer."""
    response: Any = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())
