"""What would change in a file: its old values and the new ones, field by field."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.library.tagging.answers import Heard, answers
from services.library.tagging.errors import Refusal, TagRefusedError, unreadable
from services.library.tagging.formats import TagFile, open_tags
from services.library.tagging.rules import Existing, Field, Rules
from shared.contracts.messages import TrackResult


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a change of a file is noticed: device, inode, size in bytes and modification time in ns."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: Path | int) -> Self:
        """The identity of a file, or of an open descriptor. Raises OSError."""
        found = os.fstat(file) if isinstance(file, int) else file.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One value that is written. ``new`` is empty where a value is removed; ``old_raw`` restores what was there."""

    field: Field
    key: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    old_raw: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that stays, and what was heard."""

    field: Field
    values: tuple[str, ...]
    heard: Heard


@dataclass(frozen=True, slots=True)
class Withheld:
    """A field for which there is no answer worth writing, with the values that the file has."""

    field: Field
    values: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """All that a file's tags would change. ``file`` is where the data is, whatever links lead there.

    ``system`` names the tags (``ID3v2.3``). ``names`` is how many names the file has (hard links).
    """

    file: Path
    identity: Identity
    system: str
    names: int
    changes: tuple[FieldChange, ...]
    kept: tuple[Kept, ...] = ()
    withheld: tuple[Withheld, ...] = ()

    def of(self, field: Field) -> tuple[FieldChange, ...]:
        """The changes of one field."""
        return tuple(change for change in self.changes if change.field is field)


def plan(file: Path, result: TrackResult, rules: Rules, when_heard: Identity | None = None) -> Change:
    """What writing ``result`` into ``file`` under ``rules`` would change. Nothing is written.

    ``when_heard`` is the identity of the file when it was heard: another file in its place is refused. Raises
    TagRefusedError, MutagenMissingError.
    """
    try:
        real = file.resolve(strict=True)
        found = real.stat()
        if not stat.S_ISREG(found.st_mode):
            raise TagRefusedError(Refusal.NOT_TAGGABLE, "it is not a regular file")
        identity = Identity.of(real)
        if when_heard is not None and identity != when_heard:
            raise TagRefusedError(Refusal.CHANGED, "the file has changed since it was heard")
        tags = open_tags(real)
    except OSError as error:
        raise unreadable(error) from error
    except RuntimeError as error:  # a link that leads to itself
        raise TagRefusedError(Refusal.GONE, "its link leads nowhere") from error
    said = answers(result, rules)
    changes: list[FieldChange] = []
    kept: list[Kept] = []
    for field, heard in said.heard.items():
        wanted = _wanted(tags, field, heard, rules.existing)
        if wanted is None:
            kept.append(Kept(field, _values(tags, field), heard))
        else:
            changes += _changes(tags, field, wanted)
    if said.evidence:
        changes += _evidence(tags, {f"{tags.evidence_key}{name}": text for name, text in said.evidence.items()})
    withheld = tuple(Withheld(field, _values(tags, field), why) for field, why in said.withheld.items())
    return Change(real, identity, tags.system, found.st_nlink, tuple(changes), tuple(kept), withheld)


def _values(tags: TagFile, field: Field) -> tuple[str, ...]:
    """What the file says about ``field``, wherever it says so."""
    if field is Field.EVIDENCE:
        return ()
    values = [value for key in tags.existing(field) for value in tags.text(key)]
    return tuple(dict.fromkeys(values or tags.elsewhere(field)))


def _wanted(tags: TagFile, field: Field, heard: Heard, existing: Existing) -> tuple[str, ...] | None:
    """The values to write; None where the old ones stay."""
    old = _values(tags, field)
    if not old or existing is Existing.OVERWRITE:
        return heard.values
    if existing is Existing.MERGE and field in (Field.GENRE, Field.MOOD):
        there = {_plain(part) for value in old for part in (value, *value.split("/"))}
        # In ID3v2.3 a slash stands between values, and may be part of one.
        missing = (value for value in heard.values if _plain(value) not in there)
        if added := tuple(value for value in missing if not there.issuperset(map(_plain, value.split("/")))):
            return old + added
    return None


def _plain(value: str) -> str:
    """``Hip-Hop``, ``hip hop`` and ``HipHop`` are one genre."""
    return "".join(sign for sign in value.casefold() if sign.isalnum()) or value


def _changes(tags: TagFile, field: Field, wanted: tuple[str, ...]) -> list[FieldChange]:
    """``wanted`` in its slot, and in every other slot that has a value, so that no two contradict each other."""
    keys = dict.fromkeys((tags.slot(field), *tags.existing(field)))
    return [change for key in keys if (change := _change(tags, field, key, wanted)) is not None]


def _change(tags: TagFile, field: Field, key: str, wanted: tuple[str, ...]) -> FieldChange | None:
    old = tags.text(key)
    return (
        None if old == (tags.written(wanted) if wanted else ()) else FieldChange(field, key, old, wanted, tags.raw(key))
    )


def _evidence(tags: TagFile, wanted: dict[str, str]) -> list[FieldChange]:
    """Our own fields as ``wanted``, and none of an earlier answer beside them."""
    keys = dict.fromkeys((*wanted, *tags.evidence()))
    texts = {key: (wanted[key],) if key in wanted else () for key in keys}
    return [change for key in keys if (change := _change(tags, Field.EVIDENCE, key, texts[key])) is not None]
