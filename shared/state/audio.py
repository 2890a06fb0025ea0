"""Decoded audio, named by the hash of its samples and shared by all requests for the same audio.

Each request that needs the audio is written down as an owner. The last one to be closed removes the blob, or leaves it
to be played, within limits of time and of bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, cast

import redis
from redis.lock import Lock

from shared.blobs.store import BlobGoneError, BlobStore
from shared.bus.base import Record
from shared.contracts.tracks import BLOB_SCHEME
from shared.settings import Settings
from shared.state.connection import redis_faults
from shared.state.requests import AUDIO, OPEN_GUARD, Requests

#: How long the lock of some audio outlives its last renewal, and how long others wait for it, seconds.
_LOCK_S: Final = 8.0
_LOCK_WAIT_S: Final = 60.0
_FOLDER: Final = "audio"
_SUFFIX: Final = ".wav"
#: How often a process looks for audio that was left too long, in seconds; it also looks when it has left so much more
#: of what may stay.
_LOOK_EVERY_S: Final = 60.0
_LOOK_AFTER_SHARE: Final = 0.05

#: KEYS: fence, request, owners of the audio. ARGV: epoch, request ID, hash, seconds that the owners and the request
#: live.
_OWN: Final = f"""
{OPEN_GUARD}
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[4])
redis.call('HSET', KEYS[2], '{AUDIO}' .. ARGV[3], '1')
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
"""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long audio without owners stays after it was stored, in seconds, and how many bytes of it. The oldest goes
    first. With 0 seconds it goes at once."""

    seconds: float = 0.0
    most_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As this installation wants it."""
        return cls(settings.keep_audio_s, settings.keep_audio_bytes)


class SharedAudio:
    """Owners in Redis, bytes in the blob store. Every call may be repeated without harm.

    ``ttl_s`` is how long the owners live. ``keeping`` says what becomes of audio that nobody needs any more.
    """

    def __init__(self, blobs: BlobStore, requests: Requests, ttl_s: int, keeping: Keeping | None = None) -> None:
        self._blobs = blobs
        self._requests = requests
        self._redis = requests.client
        self._keys = requests.keys
        self._ttl_s = ttl_s
        self._keeping = keeping or Keeping()
        self._left_bytes = 0  # by this process since it last looked
        self._next_look = 0.0
        self._own = self._redis.register_script(_OWN)

    def away(self) -> str | None:
        """Why the blob store gives no answer; see ``BlobStore.away``. Raises DependencyError."""
        return self._blobs.away()

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
        keys = [self._requests.fences.key(record), self._keys.request(request_id), self._keys.owners(sha256)]
        arguments: list[str | int] = [record.epoch, request_id, sha256, self._ttl_s, self._requests.ttl_s]
        with redis_faults(), self._lock(sha256):
            owned = self._own(keys=keys, args=arguments)
            if owned and not self._is_fresh(sha256):
                self._blobs.put(wav, _name(sha256))
                # While this wrote, for longer than the lock lasts, the request may have been answered by others.
                if not self._redis.scard(self._keys.owners(sha256)):
                    self._let_go(sha256)
        return reference

    def _is_fresh(self, sha256: str) -> bool:
        """Whether the blob is there, and is not one that was left: that might expire while its new owner needs it."""
        if self._keeping.seconds and self._redis.scard(self._keys.owners(sha256)) == 1:
            return False
        return self._blobs.exists(self.reference(sha256))

    def release(self, request_id: str) -> None:
        """The request is closed. Removes each blob that was stored for it and that no other request waits for.

        That includes audio stored by an attempt that was not committed.
        """
        with redis_faults():
            fields = cast("list[str]", self._redis.hkeys(self._keys.request(request_id)))
            for held in (field for field in fields if field.startswith(AUDIO)):
                sha256 = held.removeprefix(AUDIO)
                with self._lock(sha256):
                    self._redis.srem(self._keys.owners(sha256), request_id)
                    if not self._redis.scard(self._keys.owners(sha256)):
                        self._let_go(sha256)
                self._redis.hdel(self._keys.request(request_id), held)
            self._make_room()

    def forget(self, sha256: str) -> bool:
        """Remove the audio that was left to be played. False while a request needs it. Raises DependencyError."""
        with redis_faults(), self._lock(sha256):
            if self._redis.scard(self._keys.owners(sha256)):
                return False
            self._blobs.delete(self.reference(sha256))
        return True

    def _let_go(self, sha256: str) -> None:
        """Nobody needs the audio any more."""
        if not self._keeping.seconds:
            self._blobs.delete(self.reference(sha256))
            return
        with suppress(BlobGoneError):
            self._left_bytes += self._blobs.size(self.reference(sha256))

    def _make_room(self) -> None:
        """Now and then, remove audio that was left for too long, and the oldest of what is too much."""
        now = time.time()
        if not self._keeping.seconds or (
            now < self._next_look and self._left_bytes < self._keeping.most_bytes * _LOOK_AFTER_SHARE
        ):
            return
        self._next_look, self._left_bytes = now + _LOOK_EVERY_S, 0
        left = sorted(self._blobs.listed(_FOLDER), key=lambda blob: blob.written_at)
        total = sum(blob.size for blob in left)
        for blob in left:
            if total <= self._keeping.most_bytes and now - blob.written_at <= self._keeping.seconds:
                break
            sha256 = blob.reference.removeprefix(f"{BLOB_SCHEME}{_FOLDER}/").removesuffix(_SUFFIX)
            with self._lock(sha256):
                if not self._redis.scard(self._keys.owners(sha256)):
                    self._blobs.delete(blob.reference)
                    total -= blob.size

    @contextmanager
    def _lock(self, sha256: str) -> Iterator[None]:
        """Within the block nobody else stores or removes this audio.

        Otherwise one request could find the blob while the last owner of before is about to remove it. The lock is
        renewed as long as the block takes, and expires soon after its process has died or sleeps.
        """
        lock = self._redis.lock(
            self._keys.lock(sha256), timeout=_LOCK_S, blocking_timeout=_LOCK_WAIT_S, thread_local=False
        )
        with lock, _renewed(lock):
            yield


@contextmanager
def _renewed(lock: Lock) -> Iterator[None]:
    """Within the block a thread keeps the lock from expiring."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_LOCK_S / 4):
            # Where the lock is lost, its release will say so.
            with suppress(redis.RedisError, redis.exceptions.RedisClusterException):
                lock.extend(_LOCK_S, replace_ttl=True)

    threading.Thread(target=renew, name="lock-renewal", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _name(sha256: str) -> str:
    return f"{_FOLDER}/{sha256}{_SUFFIX}"
