"""Takes back what a run wrote: value by value, unless somebody has changed it since."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.library.tagging.apply import hashed, others, require_kept
from services.library.tagging.errors import Refusal, TagRefusedError, unreadable
from services.library.tagging.formats import TagFile, drop_tags, open_tags, same, save_tags
from services.library.tagging.journal import Recorded, Written, mark
from services.library.tagging.plan import Identity
from services.library.tagging.replacement import replace


@dataclass(frozen=True, slots=True)
class Restored:
    """One value: what a file has now, and what it had before, as people read it."""

    value: Written
    now: tuple[str, ...]
    before: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What undoing an entry does to ``file``.

    ``left`` are values that somebody has changed since; ``already`` are as they were before. ``known``: all other tags
    are those of the file that was written, so that it is not another file in its place.
    """

    recorded: Recorded
    file: Path
    identity: Identity
    restored: tuple[Restored, ...]
    left: tuple[Restored, ...]
    already: tuple[Written, ...]
    known: bool


def plan_undo(recorded: Recorded, file: Path | None = None, force: bool = False) -> UndoPlan:
    """What undoing an entry would do; ``file`` is where it is now, by default where it was. Nothing is written.

    ``force`` also restores what was changed since. Raises TagRefusedError, MutagenMissingError.
    """
    entry = recorded.entry
    path = file if file is not None else entry.file
    try:
        real = path.resolve(strict=True)
        identity = Identity.of(real)
        tags, before = open_tags(real), open_tags(real)
    except OSError as error:
        raise unreadable(error) from error
    restored: list[Restored] = []
    left: list[Restored] = []
    already: list[Written] = []
    for value in entry.values:
        if value.key in recorded.restored:
            continue
        now = tags.raw(value.key)
        _restore(before, value)
        shown = Restored(value, tags.text(value.key), before.text(value.key))
        if same(now, value.old):
            already.append(value)
        elif force or same(now, value.new):
            restored.append(shown)
        else:
            left.append(shown)
    known = hashed(others(tags, [value.key for value in entry.values])) == entry.rest
    return UndoPlan(recorded, real, identity, tuple(restored), tuple(left), tuple(already), known)


def undo(plan: UndoPlan) -> None:
    """Do what ``plan`` says, and note it in the journal.

    Raises TagRefusedError, after which the file is what it was, MutagenMissingError, and OSError if the journal cannot
    be written; the file is restored then.
    """
    entry = plan.recorded.entry
    keys = [value.key for value in entry.values]

    def edit(copy: Path) -> TagFile:
        tags = open_tags(copy)
        before = others(tags, keys)
        for one in plan.restored:
            _restore(tags, one.value)
        rest = others(tags, keys)
        require_kept(before, rest)
        if entry.created and hashed(rest) == entry.rest and not any(map(tags.raw, keys)):
            drop_tags(tags, copy)
            return open_tags(copy)
        save_tags(tags, copy)
        return tags

    if plan.restored:
        replace(plan.file, plan.identity, edit, lambda _: None)
    done = [one.value for one in plan.restored]
    if plan.restored or plan.known:
        done += plan.already
    if done:
        mark(plan.recorded, (value.key for value in done))


def entries_of(file: Path, recorded: Sequence[Recorded]) -> list[Recorded]:
    """The entries of ``file``: those under its path; if there are none, those that left exactly these bytes.

    Raises OSError.
    """
    real = file.resolve(strict=True)
    if found := [one for one in recorded if one.entry.file == real]:
        return found
    hashed = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            hashed.update(chunk)
    return _chain(hashed.hexdigest(), recorded)


def _chain(after: str, recorded: Sequence[Recorded]) -> list[Recorded]:
    """The entries, oldest first, that led to the hash ``after``: each begins where the one before ended."""
    chain: list[Recorded] = []
    for one in reversed(recorded):
        if one.entry.after_sha256 == after:
            chain.insert(0, one)
            after = one.entry.before_sha256
    return chain


def _restore(tags: TagFile, value: Written) -> None:
    if value.old is None:
        tags.remove(value.key)
        return
    try:
        tags.put_raw(value.key, value.old)
    except (ValueError, KeyError, TypeError) as error:
        raise TagRefusedError(Refusal.DAMAGED, f"the journal holds no value for {value.key}") from error
