"""The blob store: does it take blobs, give them back and remove them? Does it remove by itself what is forgotten?"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.cli.doctor import machine
from services.cli.doctor.finding import Finding, fail, ok, warn
from shared.blobs.store import UPLOADS, BlobStore
from shared.contracts.errors import DependencyError
from shared.settings import Settings

_SUBJECT: Final = "blob store"
_DAY_S: Final = 24 * 3600
_ADVICE: Final = 'docs/cluster.md, "Blobs in S3", has the settings, the rights and the rules that it needs'


def blob_store(settings: Settings) -> Iterator[Finding]:
    """A folder of this machine is looked at; another store is tried."""
    if settings.blob_url.startswith("file://"):
        yield from machine.blob_folder(settings)
        return
    try:
        store = BlobStore.of(settings)
        away = store.away()
        if away is not None:
            yield fail(_SUBJECT, away, _ADVICE)
            return
        _try(store)
    except DependencyError as error:
        yield fail(_SUBJECT, str(error), _ADVICE)
        return
    yield ok(_SUBJECT, f"{settings.blob_url} takes blobs, gives them back and removes them")
    yield from _rules(store, settings)


def _try(store: BlobStore) -> None:
    """Raises DependencyError."""
    said = uuid.uuid4().hex.encode()
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "given", Path(folder) / "got"
        given.write_bytes(said)
        reference = store.put(given, f"{UPLOADS}/doctor-{said.decode()}")
        store.fetch(reference, got)
        back = got.read_bytes()
    store.delete(reference)
    if back != said or store.exists(reference):
        raise DependencyError("it gives back other bytes than it was given, or what was removed")


def _rules(store: BlobStore, settings: Settings) -> Iterator[Finding]:
    try:
        found = store.housekeeping()
    except DependencyError as error:
        yield warn(_SUBJECT, f"its lifecycle rules cannot be read: {error}", "look at them by hand")
        return
    if found is None:
        return
    if found.expires_days is None:
        yield warn(_SUBJECT, "no rule of the bucket expires blobs that were forgotten", _ADVICE)
    elif found.expires_days * _DAY_S < settings.blob_ttl_s:
        yield fail(
            _SUBJECT,
            f"blobs expire after {found.expires_days} days, sooner than TONESTREAM_BLOB_TTL_S says",
            "the rule must be longer, or requests under way lose their audio",
        )
    if not found.aborts_uploads:
        yield warn(_SUBJECT, "no rule of the bucket removes the parts of uploads that were never completed", _ADVICE)
    if found.versioned:
        yield warn(_SUBJECT, "the bucket keeps old versions of what is removed", "switch versioning off for it")
