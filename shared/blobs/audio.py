"""Decoded audio, named by the hash of its samples and shared by all requests for the same audio.

Each request that waits for the audio is written down as an owner; the last one to be answered removes the blob.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import redis

from shared.blobs.store import BlobStore
from shared.cache.connection import Keys, redis_faults
from shared.contracts.tracks import BLOB_SCHEME

_LOCK_S: Final = 60.0


class AudioBlobs:
    """Owners in Redis, bytes in the blob store. Every call may be repeated without harm."""

    def __init__(self, blobs: BlobStore, client: redis.Redis, keys: Keys, ttl_s: int) -> None:
        self._blobs = blobs
        self._redis = client
        self._keys = keys
        self._ttl_s = ttl_s

    @staticmethod
    def reference(sha256: str) -> str:
        """What the audio with that hash is called in messages."""
        return f"{BLOB_SCHEME}{_name(sha256)}"

    def keep(self, wav: Path, sha256: str, owner: str) -> str:
        """Store the WAV for ``owner`` (a request ID) unless the same audio is there; returns the reference."""
        reference = self.reference(sha256)
        with redis_faults(), self._lock(sha256):
            self._redis.sadd(self._owners(sha256), owner)
            self._redis.expire(self._owners(sha256), self._ttl_s)
            if not self._blobs.exists(reference):
                self._blobs.put(wav, _name(sha256))
        return reference

    def release(self, reference: str, sha256: str, owner: str) -> None:
        """``owner`` is answered. Removes the blob if nobody else waits for it."""
        with redis_faults(), self._lock(sha256):
            self._redis.srem(self._owners(sha256), owner)
            if not self._redis.scard(self._owners(sha256)):
                self._blobs.delete(reference)

    def _owners(self, sha256: str) -> str:
        return self._keys("owners", sha256)

    def _lock(self, sha256: str) -> AbstractContextManager[object]:
        # Without it, one request could find the blob there while the last owner of before is about to remove it.
        lock: AbstractContextManager[object] = self._redis.lock(
            self._keys("lock", sha256), timeout=_LOCK_S, blocking_timeout=_LOCK_S
        )
        return lock


def _name(sha256: str) -> str:
    return f"audio/{sha256}.wav"
