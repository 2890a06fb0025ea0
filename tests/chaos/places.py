"""Where the storm keeps its blobs, and how that place fails."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from tests.support.s3_server import S3Server, TroubledS3


class BlobPlace(ABC):
    """``url`` and ``variables`` are what workers need to find it."""

    url: str
    variables: dict[str, str]

    @abstractmethod
    def broken(self) -> contextlib.AbstractContextManager[str]:
        """Nothing can be written; says what the matter is."""

    @abstractmethod
    def left(self) -> int:
        """How many blobs of decoded audio there are."""


class Disk(BlobPlace):
    """A folder, on a small disk of its own where this machine allows to mount one."""

    def __init__(self, disk: Path) -> None:
        self.url = f"file://{disk}/blobs"
        self.variables = {}
        self._disk = disk

    @contextlib.contextmanager
    def broken(self) -> Iterator[str]:
        if os.path.ismount(self._disk):
            ballast = self._disk / "ballast"
            with ballast.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
                while True:
                    opened.write(bytes(1 << 20))
            yield "disk full"
            ballast.unlink()
            return
        blobs, aside = self._disk / "blobs", self._disk / "aside"
        blobs.rename(aside)
        blobs.touch()
        yield "disk unusable"
        blobs.unlink()
        aside.rename(blobs)

    def left(self) -> int:
        return len(list((self._disk / "blobs").rglob("*.wav")))


class Bucket(BlobPlace):
    """A bucket that asks to slow down now and then, and at times for everything; in turns it falls silent."""

    _REFUSED_OF = 20

    def __init__(self, server: S3Server, proxy: TroubledS3) -> None:
        self._client, self._bucket, self._proxy = server.client, server.bucket(), proxy
        self.url = f"s3://{self._bucket}/blobs"
        self.variables = {
            **server.credentials,
            "TONESTREAM_BLOB_ENDPOINT_URL": proxy.url,
            "TONESTREAM_BLOB_TIMEOUT_S": "15",
        }
        self._asked = 0
        self._turn = 0
        proxy.trouble = self._now_and_then

    def _now_and_then(self, method: str, path: str) -> tuple[int, str, str] | None:
        self._asked += 1
        return (503, "SlowDown", "Please reduce your request rate.") if self._asked % self._REFUSED_OF == 0 else None

    @contextlib.contextmanager
    def broken(self) -> Iterator[str]:
        self._turn += 1
        if self._turn % 2:
            self._proxy.silent.set()
            yield "S3 silent"
            self._proxy.silent.clear()
            return
        self._proxy.refuse(503, "SlowDown", "Please reduce your request rate.")
        yield "S3 refuses everything"
        self._proxy.trouble = self._now_and_then

    def left(self) -> int:
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix="blobs/audio/")
        return int(found["KeyCount"])
