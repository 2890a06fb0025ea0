"""Writes a planned change into its file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.library.tagging.errors import Refusal, TagRefusedError
from services.library.tagging.formats import TagFile, open_tags, same, save_tags
from services.library.tagging.journal import Entry, Journal, Written, new_id, path_fields
from services.library.tagging.plan import Change, FieldChange, Identity
from services.library.tagging.replacement import Replacement, replace


@dataclass(frozen=True, slots=True)
class Applied:
    """``entry`` is what the journal holds of it; ``identity`` is that of the file afterwards."""

    entry: Entry
    identity: Identity


def apply(change: Change, journal: Journal) -> Applied:
    """Write ``change`` into its file, noted in ``journal`` first.

    ``change`` has to change something. Raises TagRefusedError, after which the file is what it was, and
    MutagenMissingError.
    """
    assert change.changes, "there is nothing to write"
    edited: list[TagFile] = []
    values: list[Written] = []
    entries: list[Entry] = []

    def edit(copy: Path) -> TagFile:
        tags = open_tags(copy)
        values[:] = [_put(tags, one) for one in change.changes]
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
            rest=rest(edited[0], values),
            before_sha256=done.before_sha256,
            after_sha256=done.after_sha256,
            mtime_ns=change.identity.mtime_ns,
            values=tuple(values),
        )
        journal.add(entry)
        entries.append(entry)

    replace(change.file, change.identity, edit, note)
    return Applied(entries[0], Identity.of(change.file))


def rest(tags: TagFile, values: list[Written]) -> str:
    """A hash of all tags but those of ``values``."""
    keys = {value.key.lower() for value in values}
    others = sorted(item for item in tags.contents().elements() if item[0].lower() not in keys)
    return hashlib.sha256(repr(others).encode("utf-8", "surrogatepass")).hexdigest()


def _put(tags: TagFile, change: FieldChange) -> Written:
    old = tags.raw(change.key)
    if not same(old, change.old_raw):
        raise TagRefusedError(Refusal.CHANGED, "the tags of the file have changed since it was heard")
    if change.new:
        tags.put(change.key, change.new)
    else:
        tags.remove(change.key)
    return Written(field=change.field, key=change.key, old=old, new=tags.raw(change.key))
