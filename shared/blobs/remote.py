"""Blobs on another machine, over fsspec: every call ends within a time, and says in words what went wrong."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import fsspec
from fsspec.asyn import AsyncFileSystem

from shared.blobs import s3
from shared.contracts.errors import DependencyError

#: What a reader takes at once: the memory of an open blob, and few requests for a long track.
_READ_BYTES: Final = 4 * 1024 * 1024
#: A transfer may take the time of a call, and a second more for so many bytes.
_SLOWEST_BYTES_S: Final = 512 * 1024
#: A listing may take so many times longer than another call: it asks once for every thousand blobs.
_LISTING_SHARE: Final = 10.0
#: Clean-up is left out for so long after a call that got no answer. What it would remove expires by itself.
_AWAY_S: Final = 15.0


class BlobsAwayError(DependencyError):
    """The store gives no answer, or asks to be left alone: it may answer later."""


class RemoteFiles:
    """Objects by path. Safe from many threads.

    Raises FileNotFoundError where there is no such object, BlobsAwayError where the store gives no answer within
    ``timeout_s`` seconds, and DependencyError where it refuses.
    """

    def __init__(self, url: str, timeout_s: float, endpoint_url: str | None = None) -> None:
        self._shown = url
        self._timeout_s = timeout_s
        self._is_s3 = url.startswith(("s3://", "s3a://"))
        self._away_until = 0.0
        try:
            self._files, root = fsspec.core.url_to_fs(url, **(s3.options(endpoint_url) if self._is_s3 else {}))
        except ImportError as error:
            hint = ': pip install "tonestream[s3]" installs what s3:// needs' if self._is_s3 else ""
            raise DependencyError(f"the blob store {url} cannot be opened: {error}{hint}") from error
        except (OSError, ValueError) as error:
            raise DependencyError(f"the blob store {url} cannot be opened: {error}") from error
        self.root = str(root).rstrip("/")
        if self._is_s3:
            s3.limit_tries(self._files)

    def put(self, source: Path, path: str) -> None:
        """Store a copy of ``source``. An object is there when it is whole."""
        parts = {"chunksize": s3.PART_BYTES} if self._is_s3 else {}
        self._call("written to", "put_file", str(source), path, moved=source.stat().st_size, **parts)

    def get(self, path: str, destination: Path, size: int) -> None:
        """Store a copy of the object, which has that size, at ``destination``."""
        self._call("read", "get_file", path, str(destination), moved=size)

    def open(self, path: str, within: Callable[[], AbstractContextManager[None]]) -> BinaryIO:
        """The object, open for reading and seekable. It is fetched piece by piece as it is read, each piece ``within``
        a context."""

        def piece(start: int, end: int) -> bytes:
            with within():
                return cast(bytes, self._call("read", "cat_file", path, start=start, end=end, moved=end - start))

        return cast(BinaryIO, io.BufferedReader(_Pieces(piece, self.size(path)), _READ_BYTES))

    def size(self, path: str) -> int:
        info: Mapping[str, Any] = self._call("read", "info", path)
        if info.get("type") == "directory":
            raise FileNotFoundError(path)
        return int(info["size"])

    def listed(self, folder: str) -> dict[str, Mapping[str, Any]]:
        """What lies below the folder, by path; empty where there is no such folder."""
        try:
            found: dict[str, Mapping[str, Any]] = self._call(
                "listed", "find", folder, detail=True, limit=self._timeout_s * _LISTING_SHARE
            )
        except FileNotFoundError:
            return {}
        return found

    def delete(self, path: str) -> None:
        """Remove the object, if it is there.

        Soon after a call without an answer this raises BlobsAwayError at once: whoever cleans up after hundreds of
        requests must not wait for each of them.
        """
        if time.monotonic() < self._away_until:
            raise BlobsAwayError(f"the blob store {self._shown} gave no answer a moment ago")
        try:
            self._call("written to", "rm_file", path)
        except FileNotFoundError:
            return

    def require_answer(self) -> None:
        """Raise what stands in the way: BlobsAwayError, DependencyError."""
        bucket, _, prefix = self.root.partition("/")
        with self._faults("used", asks=False):
            if self._is_s3:
                limit = {"timeout": self._timeout_s}
                # Unlike shorter questions, a refusal of this one says why.
                self._files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1, **limit)

    def housekeeping(self) -> s3.Housekeeping | None:
        """What the bucket removes by itself; None for stores other than S3. Raises DependencyError, also where these
        credentials may not ask."""
        if not self._is_s3:
            return None
        bucket, _, folder = self.root.partition("/")
        with self._faults("asked for its rules", asks=False):
            try:
                rules = self._files.call_s3(
                    "get_bucket_lifecycle_configuration", Bucket=bucket, timeout=self._timeout_s
                )
            except FileNotFoundError as error:
                if not s3.has_no_rules(error):
                    raise
                rules = {}
            versioning = self._files.call_s3("get_bucket_versioning", Bucket=bucket, timeout=self._timeout_s)
        return s3.housekeeping(rules.get("Rules", []), f"{folder}/".lstrip("/"), versioning.get("Status") == "Enabled")

    def _call(
        self, done: str, method: str, *arguments: Any, moved: int = 0, limit: float | None = None, **named: Any
    ) -> Any:
        if isinstance(self._files, AsyncFileSystem):
            named["timeout"] = limit or self._timeout_s + moved / _SLOWEST_BYTES_S
        with self._faults(done):
            return getattr(self._files, method)(*arguments, **named)

    @contextmanager
    def _faults(self, done: str, asks: bool = True) -> Iterator[None]:
        """Faults in words. With ``asks`` the bucket is asked what a short refusal leaves open."""
        try:
            yield
        except Exception as error:
            if not s3.is_fault(error):
                raise
            if s3.is_archived(error):
                raise FileNotFoundError("it was moved to an archive by a rule of the bucket") from error
            if asks and (isinstance(error, FileNotFoundError | PermissionError) or s3.is_short(error)):
                # There is no object in a bucket that is not there, and a missing object is a refusal to whoever may
                # not list the bucket.
                self.require_answer()
            if isinstance(error, FileNotFoundError) and asks:
                raise
            said = f"the blob store {self._shown} cannot be {done}: {s3.in_words(error)}"
            if s3.refusal(error) is None and not isinstance(error, PermissionError):
                self._away_until = time.monotonic() + (0.0 if s3.is_busy(error) else _AWAY_S)
                raise BlobsAwayError(said) from error
            raise DependencyError(said) from error


class _Pieces(io.RawIOBase):
    """``fetch(start, end)`` as a file of ``size`` bytes."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readall(self) -> bytes:
        """In as few pieces as when it is read bit by bit."""
        pieces = []
        while piece := self.read(_READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        piece = self._fetch(self._at, end)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
