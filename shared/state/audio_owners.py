"""Decoded audio, named by the hash of its samples and shared by all requests for the same audio.

Each request that waits for the audio is written down as an owner; the last one to be answered removes the blob.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, cast

import redis

from shared.blobs.store import BlobStore
from shared.bus.base import Record
from shared.contracts.tracks import BLOB_SCHEME
from shared.state.connection import Keys, redis_faults
from shared.state.fences import Fences
from shared.state.requests import OPEN_GUARD, Requests

_LOCK_S: Final = 60.0

#: KEYS: fence, the answer's claim, owners of the audio, audio of the request. ARGV: epoch, request ID, hash, seconds to
#: live.
_OWN: Final = f"""
{OPEN_GUARD}
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[4])
redis.call('SADD', KEYS[4], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[4])
return 1
"""


class AudioBlobs:
    """Owners in Redis, bytes in the blob store. Every call may be repeated without harm.

    ``requests`` knows which are closed, ``fences`` are those of the service whose records bring the audio.
    """

    def __init__(
        self, blobs: BlobStore, client: redis.Redis, keys: Keys, requests: Requests, fences: Fences, ttl_s: int
    ) -> None:
        self._blobs = blobs
        self._redis = client
        self._keys = keys
        self._requests = requests
        self._fences = fences
        self._ttl_s = ttl_s
        self._own = client.register_script(_OWN)

    @staticmethod
    def reference(sha256: str) -> str:
        """What the audio with that hash is called in messages."""
        return f"{BLOB_SCHEME}{_name(sha256)}"

    def keep(self, wav: Path, sha256: str, request_id: str, record: Record) -> str:
        """Store the WAV for the request unless the same audio is there; returns the reference.

        Nothing is stored for a request that is closed. ``record`` is the one that makes the request. Raises
        FencedError, DependencyError.
        """
        reference = self.reference(sha256)
        keys = [
            self._fences.key(record),
            self._requests.answer_key(request_id),
            self._owners(sha256),
            self._audio_of(request_id),
        ]
        with redis_faults(), self._lock(sha256):
            owned = self._own(keys=keys, args=[record.epoch, request_id, sha256, self._ttl_s])
            if owned and not self._blobs.exists(reference):
                self._blobs.put(wav, _name(sha256))
                # While this wrote, for longer than the lock lasts, the request may have been answered by others.
                if not self._redis.scard(self._owners(sha256)):
                    self._blobs.delete(reference)
        return reference

    def release(self, request_id: str) -> None:
        """The request is closed. Removes each blob that was stored for it and that no other request waits for.

        That includes audio stored by an attempt that was not committed.
        """
        with redis_faults():
            for sha256 in cast("set[str]", self._redis.smembers(self._audio_of(request_id))):
                with self._lock(sha256):
                    self._redis.srem(self._owners(sha256), request_id)
                    if not self._redis.scard(self._owners(sha256)):
                        self._blobs.delete(self.reference(sha256))
            self._redis.delete(self._audio_of(request_id))

    def _owners(self, sha256: str) -> str:
        return self._keys("owners", sha256)

    def _audio_of(self, request_id: str) -> str:
        return self._keys("audio", request_id)

    def _lock(self, sha256: str) -> AbstractContextManager[object]:
        # Without it, one request could find the blob there while the last owner of before is about to remove it.
        lock: AbstractContextManager[object] = self._redis.lock(
            self._keys("lock", sha256), timeout=_LOCK_S, blocking_timeout=_LOCK_S
        )
        return lock


def _name(sha256: str) -> str:
    return f"audio/{sha256}.wav"
