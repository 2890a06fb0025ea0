"""Files that clients send, on their way into the blob store. No file is held in memory, and a half one leaves nothing.

Everything here runs in threads: it writes to a disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.problems import GatewayCode, Problem
from shared.blobs.store import BlobStore
from shared.contracts.errors import DependencyError, ErrorCode, megabytes
from shared.contracts.faults import faults
from shared.contracts.messages import LONGEST_SOURCE, TrackRequest
from shared.runtime import metrics

log = logging.getLogger(__name__)

#: The folder of uploads that the gateway deletes itself, once they are answered.
INCOMING: Final = "incoming"
MOST_FILES: Final = 1000
#: Bytes of all form fields together that are not files.
_MOST_FIELDS: Final = 4096
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNNAMED: Final = "upload"


class Wishes(BaseModel):
    """How uploaded files are to be classified: form fields, or parameters of the query."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str | None = Field(None, description="genre model by folder name or model ID")
    force: bool = Field(False, description="compute the answer again even if one is cached")
    embedding: bool = Field(True, description="with the numbers by which similar tracks are found")

    @classmethod
    def of(cls, fields: dict[str, str]) -> Self:
        """Raises Problem (invalid_request)."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise Problem(ErrorCode.INVALID_REQUEST, faults(error, "form", tuple(cls.model_fields))) from None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in the blob store. ``sha256`` is that of its bytes."""

    reference: str
    source: str
    size: int
    sha256: str

    def request(self, request_id: str, wishes: Wishes) -> TrackRequest:
        """The request to classify it. Raises Problem (invalid_request)."""
        try:
            return TrackRequest(
                request_id=request_id,
                audio_url=self.reference,
                source=self.source,
                model=wishes.model,
                force=wishes.force,
                embedding=wishes.embedding,
            )
        except ValidationError as error:
            raise Problem(ErrorCode.INVALID_REQUEST, faults(error, "request")) from None

    def fingerprint(self, wishes: Wishes) -> str:
        """What tells this request from another under the same ID: its bytes, not the place where they lie."""
        return f"upload:{self.sha256}:{wishes.model_dump_json(exclude_defaults=True)}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not taken."""

    source: str
    problem: Problem


class Receiver:
    """Takes the files of one HTTP request, one after the other, into ``folder`` of the blob store. ``limit_bytes`` is
    the largest that a file may be."""

    def __init__(self, blobs: BlobStore, folder: str, limit_bytes: int) -> None:
        self._blobs = blobs
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._open: _File | None = None
        self.files: list[Upload | Refused] = []

    def begin(self, name: str) -> None:
        """A file begins. Raises Problem (invalid_request) if there are too many."""
        if len(self.files) >= MOST_FILES:
            raise Problem(ErrorCode.INVALID_REQUEST, f"at most {MOST_FILES} files can be sent at once")
        self._open = _File(self._blobs, self._folder, shown_name(name))

    def write(self, data: bytes) -> None:
        """More of it. Raises Problem (disk_full), DependencyError."""
        file = self._open
        if file is None or file.refused is not None:
            return
        if file.size + len(data) > self._limit_bytes:
            file.refuse(too_large(self._limit_bytes))
            return
        with _disk():
            file.write(data)

    def end(self) -> None:
        """It is whole. Raises Problem (disk_full), DependencyError."""
        file, self._open = self._open, None
        if file is None:
            return
        if file.refused is None and not file.size:
            file.refuse(Problem(ErrorCode.INVALID_REQUEST, "the file is empty"))
        if file.refused is not None:
            self.files.append(Refused(file.source, file.refused))
            return
        with _disk():
            self.files.append(file.keep())
        metrics.UPLOADED_BYTES.inc(file.size)

    def hand_over(self) -> None:
        """The files belong to the pipeline from here on."""
        self.files.clear()

    def discard(self) -> None:
        """Remove everything that was taken and not handed over."""
        if self._open is not None:
            self._open.drop()
            self._open = None
        for file in self.files:
            if isinstance(file, Upload):
                try:
                    self._blobs.delete(file.reference)
                except DependencyError as error:
                    log.warning("an upload stays until it expires: %s", error)
        self.files.clear()


class _File:
    """A file that is being received."""

    def __init__(self, blobs: BlobStore, folder: str, source: str) -> None:
        self.source = source
        self.size = 0
        self.refused: Problem | None = None
        self._hash = hashlib.sha256()
        self._name = f"{folder}/{uuid.uuid4().hex}"
        self._writing = blobs.writing(self._name)
        with _disk():
            self._file: BinaryIO = self._writing.__enter__()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def refuse(self, problem: Problem) -> None:
        self.refused = problem
        self.drop()

    def drop(self) -> None:
        dropped = _Dropped()
        with contextlib.suppress(_Dropped):
            self._writing.__exit__(_Dropped, dropped, None)

    def keep(self) -> Upload:
        self._writing.__exit__(None, None, None)
        return Upload(f"blob:{self._name}", self.source, self.size, self._hash.hexdigest())


class _Dropped(Exception):  # noqa: N818 (no fault: the block ends without its file)
    pass


def shown_name(name: str) -> str:
    """A file's name as results show it."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    return shown.strip()[:LONGEST_SOURCE] or _UNNAMED


def too_large(limit_bytes: int) -> Problem:
    """The file is larger than that."""
    return Problem(
        ErrorCode.TOO_LARGE, f"the file is larger than {megabytes(limit_bytes)} (TONESTREAM_FETCH_MAX_BYTES)"
    )


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """A full disk as Problem (disk_full), other faults of the store as DependencyError."""
    try:
        yield
    except DependencyError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
            raise Problem(GatewayCode.DISK_FULL, "the blob store has no room for the file") from error
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise Problem(GatewayCode.DISK_FULL, "the blob store has no room for the file") from error
        raise DependencyError(f"the upload cannot be stored: {error}") from error
