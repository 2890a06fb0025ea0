"""The claim-check store: audio is kept here, and messages carry only a reference. Works on any fsspec file system."""

from __future__ import annotations

import contextlib
import errno
import posixpath
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import fsspec

from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError, megabytes
from shared.contracts.tracks import BLOB_SCHEME, checked_audio_url

#: Blobs below this folder were put there for one request by ``submit`` or ``classify``; ingestion removes them.
UPLOADS: Final = "uploads"
_PART: Final = ".part-"
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

    Faults of the store itself (unreachable, disk full, no permission) are DependencyError.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        with self._faults("opened"):
            self._files, root = fsspec.core.url_to_fs(url)
            self._root = str(root).rstrip("/")
            self._local = "file" in self._files.protocol
            if self._local:
                self._files.makedirs(self._root, exist_ok=True)

    def put(self, source: Path, name: str) -> str:
        """Store a copy of ``source`` under ``name`` and return its reference. Readers never see half a file."""
        target = self._path(f"{BLOB_SCHEME}{name}")
        with self._faults(f"written to ({name})"):
            self._files.makedirs(posixpath.dirname(target), exist_ok=True)
            if not self._local:  # object stores publish an object only when it is complete
                self._files.put_file(str(source), target)
                return f"{BLOB_SCHEME}{name}"
            part = f"{target}{_PART}{uuid.uuid4().hex}"
            try:
                shutil.copyfile(source, part)
                Path(part).replace(target)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        return f"{BLOB_SCHEME}{name}"

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write the blob ``name`` to, piece by piece.

        The blob is there when the block has ended, and after an error in the block it is not. Raises DependencyError.
        """
        if not self._local:
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
        assert self._local, "an object store keeps no links"
        target = Path(self._path(f"{BLOB_SCHEME}{name}"))
        with self._faults(f"written to ({name})"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.absolute())
        return f"{BLOB_SCHEME}{name}"

    def open(self, reference: str) -> BinaryIO:
        """The blob, open for reading and seekable. Raises BlobGoneError if there is none."""
        with self._faults("read"), _gone(reference):
            return cast(BinaryIO, self._files.open(self._path(reference), "rb"))

    def fetch(self, reference: str, destination: Path) -> None:
        """Bring the blob to ``destination``: by a link if the store is on this machine, else by a copy.

        Raises BlobGoneError, TonestreamError (too_large if the disk has no room for the copy).
        """
        path = self._path(reference)
        if self._local:
            with self._faults("read"), _gone(reference):
                if Path(path).is_symlink() and not Path(path).exists():
                    raise BlobGoneError(reference, "the file is gone; it was there when it was named")
                if not stat.S_ISREG(Path(path).stat().st_mode):
                    raise BlobGoneError(reference)
            with self._faults("read"):
                destination.symlink_to(Path(path).absolute())
            return
        with self._faults("read"), _gone(reference):
            size = int(self._files.info(path)["size"])
        free = shutil.disk_usage(destination.parent).free
        if size > free:
            raise TonestreamError(
                ErrorCode.TOO_LARGE,
                f"the file has {megabytes(size)}, and {megabytes(free)} are free in the temporary folder (TMPDIR)",
            )
        with self._faults("read"), _gone(reference):
            self._files.get_file(path, str(destination))

    def exists(self, reference: str) -> bool:
        with self._faults("read"):
            return bool(self._files.exists(self._path(reference)))

    def size(self, reference: str) -> int:
        """Bytes of the blob. Raises BlobGoneError."""
        with self._faults("read"), _gone(reference):
            return int(self._files.info(self._path(reference))["size"])

    def listed(self, folder: str) -> list[Listed]:
        """The blobs below that folder."""
        found = []
        with self._faults("listed"):
            for path, info in self._files.find(f"{self._root}/{folder}", detail=True).items():
                name = str(path).removeprefix(f"{self._root}/")
                if _PART not in name:
                    found.append(Listed(f"{BLOB_SCHEME}{name}", int(info["size"]), _written_at(info) or 0.0))
        return found

    def delete(self, reference: str) -> None:
        """Remove the blob, if it still exists."""
        with self._faults("written to"), contextlib.suppress(BlobGoneError), _gone(reference):
            self._files.rm_file(self._path(reference))

    def sweep(self, older_than_s: float) -> int:
        """Remove blobs last written more than ``older_than_s`` seconds ago; returns how many."""
        limit = time.time() - older_than_s
        removed = 0
        with self._faults("swept"):
            for path, info in self._files.find(self._root, detail=True).items():
                stamp = _written_at(info)
                if stamp is not None and stamp < limit:
                    with contextlib.suppress(FileNotFoundError):
                        self._files.rm_file(path)
                        removed += 1
        return removed

    def _path(self, reference: str) -> str:
        name = checked_audio_url(reference).removeprefix(BLOB_SCHEME)
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _faults(self, done: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ImportError) as error:
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
