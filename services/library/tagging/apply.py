"""Writes a planned change into its file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from services.library.tagging.errors import Refusal, TagRefusedError
from services.library.tagging.formats import TagFile, open_tags, same, save_tags
from services.library.tagging.journal import Entry, Journal, Written, new_id, path_fields
from services.library.tagging.plan import Change, FieldChange
from services.library.tagging.replacement import Replacement, replace


def apply(change: Change, journal: Journal) -> Entry:
    """Write ``change`` into its file, noted in ``journal`` first; returns what the journal holds of it.

    ``change`` has to change something. Raises TagRefusedError, after which the file is what it was, and
    MutagenMissingError.
    """
    assert change.changes, "there is nothing to write"
    keys = [one.key for one in change.changes]
    edited: list[TagFile] = []
    values: list[Written] = []
    entries: list[Entry] = []

    def edit(copy: Path) -> TagFile:
        tags = open_tags(copy)
        before = others(tags, keys)
        values[:] = [_put(tags, one) for one in change.changes]
        require_kept(before, others(tags, keys))
        save_tags(tags, copy)
        edited[:] = [tags]
        return tags

    def note(done: Replacement) -> None:
        path, path_hex = path_fields(change.file)
        entry = Entry(
            id=new_id(),
            run=journal.run,
            time=datetime.now(UTC),
            path=path,
            path_hex=path_hex,
            system=edited[0].system,
            created=edited[0].created,
            rest=hashed(others(edited[0], keys)),
            before_sha256=done.before_sha256,
            after_sha256=done.after_sha256,
            mtime_ns=change.identity.mtime_ns,
            values=tuple(values),
        )
        journal.add(entry)
        entries.append(entry)

    replace(change.file, change.identity, edit, note)
    return entries[0]


def others(tags: TagFile, keys: Iterable[str]) -> Counter[tuple[str, str]]:
    """All that ``tags`` hold but what is under ``keys``."""
    apart = {key.lower() for key in keys}
    return Counter({item: count for item, count in tags.contents().items() if item[0].lower() not in apart})


def hashed(contents: Counter[tuple[str, str]]) -> str:
    """A hash of contents, whatever their order."""
    return hashlib.sha256(repr(sorted(contents.elements())).encode("utf-8", "surrogatepass")).hexdigest()


def require_kept(before: Counter[tuple[str, str]], after: Counter[tuple[str, str]]) -> None:
    """Raises TagRefusedError unless both are the same."""
    if before != after:
        raise TagRefusedError(Refusal.NOT_KEPT, "its other tags would not stay as they are, so it is left as it is")


def _put(tags: TagFile, change: FieldChange) -> Written:
    old = tags.raw(change.key)
    if not same(old, change.old_raw):
        raise TagRefusedError(Refusal.CHANGED, "the tags of the file have changed since it was heard")
    if change.new:
        tags.put(change.key, change.new)
    else:
        tags.remove(change.key)
    return Written(field=change.field, key=change.key, old=old, new=tags.raw(change.key))
