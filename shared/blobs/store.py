"""The claim-check store: audio is kept here, and messages carry only a reference. Works on any fsspec file system."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

from shared.blobs.remote import BlobsAwayError, RemoteFiles
from shared.blobs.s3 import Housekeeping
from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError, megabytes
from shared.contracts.tracks import BLOB_SCHEME, checked_audio_url
from shared.settings import Settings

#: Blobs below this folder were put there for one request by ``submit`` or ``classify``; ingestion removes them.
UPLOADS: Final = "uploads"
_PART: Final = ".part-"
_FILE: Final = "file://"
#: Errors that mean that no file has this name: it is a folder, lies below a file, or is too long. The store itself
#: works.
_NO_SUCH_NAME: Final = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG})


class BlobGoneError(TonestreamError):
    """The blob does not exist, or no longer exists."""

    def __init__(self, reference: str, said: str | None = None) -> None:
        said = said or f"{reference} is not in the blob store (any more); submit the track again"
        super().__init__(ErrorCode.INTERNAL, said)


@dataclass(frozen=True, slots=True)
class Listed:
    """A blob as it lies in the store. ``written_at`` is in seconds since 1970."""

    reference: str
    size: int
    written_at: float


class BlobStore:
    """Files by name below one URL. A reference is ``blob:<name>``.

    Faults of the store itself (unreachable, disk full, no permission) are DependencyError. Blobs on this machine are
    plain files; others are reached over fsspec (``remote.py``), S3 as ``s3.py`` sets it up.
    """

    def __init__(self, url: str, timeout_s: float = 30.0, endpoint_url: str | None = None) -> None:
        """``timeout_s`` limits each call to a store on another machine; transfers get more by their size."""
        self._url = url
        on_this_machine = url.startswith(_FILE) or "://" not in url
        self._remote = None if on_this_machine else RemoteFiles(url, timeout_s, endpoint_url)
        self._root = url.removeprefix(_FILE).rstrip("/") if self._remote is None else self._remote.root
        if self._remote is None:
            with self._faults("opened"):
                Path(self._root).mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store of this installation."""
        return cls(settings.blob_url, settings.blob_timeout_s, settings.blob_endpoint_url)

    def away(self) -> str | None:
        """Why the store gives no answer at the moment, None if it does. Raises DependencyError if only a change of
        settings or of rights would bring one."""
        try:
            if self._remote is not None:
                self._remote.require_answer()
        except BlobsAwayError as error:
            return str(error)
        return None

    def housekeeping(self) -> Housekeeping | None:
        """What the bucket removes by itself; None where the blobs are in no bucket. Raises DependencyError."""
        return None if self._remote is None else self._remote.housekeeping()

    def put(self, source: Path, name: str) -> str:
        """Store a copy of ``source`` under ``name`` and return its reference. Readers never see half a file."""
        target = self._path(f"{BLOB_SCHEME}{name}")
        if self._remote is not None:
            self._remote.put(source, target)
            return f"{BLOB_SCHEME}{name}"
        part = Path(f"{target}{_PART}{uuid.uuid4().hex}")
        with self._faults(f"written to ({name})"):
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, part)
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return f"{BLOB_SCHEME}{name}"

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write the blob ``name`` to, piece by piece.

        The blob is there when the block has ended, and after an error in the block it is not. Raises DependencyError.
        """
        if self._remote is not None:
            with tempfile.TemporaryDirectory() as folder:
                whole = Path(folder) / "blob"
                with whole.open("wb") as opened:
                    yield opened
                self.put(whole, name)
            return
        target = Path(self._path(f"{BLOB_SCHEME}{name}"))
        part = target.with_name(f"{target.name}{_PART}{uuid.uuid4().hex}")
        try:
            with self._faults(f"written to ({name})"):
                target.parent.mkdir(parents=True, exist_ok=True)
                opened = part.open("wb")
            with opened:
                yield opened
            with self._faults(f"written to ({name})"):
                part.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise

    def link(self, source: Path, name: str) -> str:
        """Store a local file under ``name`` without a copy of it, in a store on this machine; returns its reference.

        Whoever deletes the blob deletes the link.
        """
        assert self._remote is None, "an object store keeps no links"
        target = Path(self._path(f"{BLOB_SCHEME}{name}"))
        with self._faults(f"written to ({name})"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.absolute())
        return f"{BLOB_SCHEME}{name}"

    def open(self, reference: str) -> BinaryIO:
        """The blob, open for reading and seekable. Raises BlobGoneError if there is none."""
        path = self._path(reference)
        if self._remote is not None:
            with _gone(reference):
                return self._remote.open(path, lambda: _gone(reference))
        with self._faults("read"), _gone(reference):
            return Path(path).open("rb")

    def fetch(self, reference: str, destination: Path) -> None:
        """Bring the blob to ``destination``: by a link if the store is on this machine, else by a copy.

        Raises BlobGoneError, TonestreamError (too_large if the disk has no room for the copy).
        """
        path = self._path(reference)
        if self._remote is None:
            with self._faults("read"), _gone(reference):
                if Path(path).is_symlink() and not Path(path).exists():
                    raise BlobGoneError(reference, "the file is gone; it was there when it was named")
                if not stat.S_ISREG(Path(path).stat().st_mode):
                    raise BlobGoneError(reference)
            with self._faults("read"):
                destination.symlink_to(Path(path).absolute())
            return
        with _gone(reference):
            size = self._remote.size(path)
        free = shutil.disk_usage(destination.parent).free
        if size > free:
            raise TonestreamError(
                ErrorCode.TOO_LARGE,
                f"the file has {megabytes(size)}, and {megabytes(free)} are free in the temporary folder (TMPDIR)",
            )
        with _gone(reference):
            self._remote.get(path, destination, size)

    def exists(self, reference: str) -> bool:
        if self._remote is None:
            with self._faults("read"):
                return Path(self._path(reference)).exists()
        try:
            self.size(reference)
        except BlobGoneError:
            return False
        return True

    def size(self, reference: str) -> int:
        """Bytes of the blob. Raises BlobGoneError."""
        path = self._path(reference)
        if self._remote is not None:
            with _gone(reference):
                return self._remote.size(path)
        with self._faults("read"), _gone(reference):
            return Path(path).stat().st_size

    def listed(self, folder: str) -> list[Listed]:
        """The blobs below that folder."""
        return [
            Listed(f"{BLOB_SCHEME}{path.removeprefix(f'{self._root}/')}", size, written_at or 0.0)
            for path, size, written_at in self._found(f"{self._root}/{folder}", "listed")
            if _PART not in path
        ]

    def delete(self, reference: str) -> None:
        """Remove the blob, if it still exists."""
        path = self._path(reference)
        if self._remote is not None:
            self._remote.delete(path)
            return
        with self._faults("written to"), contextlib.suppress(BlobGoneError), _gone(reference):
            Path(path).unlink()

    def sweep(self, older_than_s: float) -> int:
        """Remove blobs last written more than ``older_than_s`` seconds ago; returns how many."""
        limit = time.time() - older_than_s
        removed = 0
        for path, _, written_at in self._found(self._root, "swept"):
            if written_at is None or written_at >= limit:
                continue
            if self._remote is not None:
                self._remote.delete(path)
                removed += 1
                continue
            with self._faults("swept"), contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
                removed += 1
        return removed

    def _found(self, folder: str, done: str) -> Iterator[tuple[str, int, float | None]]:
        """What lies below the folder: path, size, and when it was last written as far as the store says so."""
        if self._remote is not None:
            for path, info in self._remote.listed(folder).items():
                yield path, int(info["size"]), _written_at(info)
            return
        with self._faults(done):
            for below, _, names in os.walk(folder):
                for name in names:
                    path = f"{below}/{name}"
                    with contextlib.suppress(FileNotFoundError):
                        found = Path(path).lstat()
                        yield path, found.st_size, found.st_mtime

    def _path(self, reference: str) -> str:
        name = checked_audio_url(reference).removeprefix(BLOB_SCHEME)
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _faults(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DependencyError(f"the blob store {self._url} cannot be {done}: {error}") from error


def _written_at(info: Mapping[str, Any]) -> float | None:
    """When a file was last written, in seconds since 1970, as far as its store says so."""
    written: Any = info.get("mtime") or info.get("LastModified")
    return cast("float | None", written.timestamp() if hasattr(written, "timestamp") else written)


@contextlib.contextmanager
def _gone(reference: str) -> Iterator[None]:
    """Errors that mean that there is no such blob, as BlobGoneError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in _NO_SUCH_NAME:
            raise BlobGoneError(reference) from None
        raise
