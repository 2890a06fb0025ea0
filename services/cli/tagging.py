"""``classify --write-tags``: the options, what a person sees of each file, and the count at the end."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.cli.inputs import Input
from services.cli.output import complain, encodable, has, printable
from services.cli.status import UsageError
from services.library.tagging.rules import DEFAULT_WORDS, Existing, Field, GenreMapError, Rules, genre_words
from shared.contracts.messages import Status, TrackResult

if TYPE_CHECKING:
    from services.library.tagging.journal import Journal
    from services.library.tagging.plan import Change, Identity

#: A genre map has ten lines; a file larger than this is something else, bytes.
_LARGEST_MAP: Final = 64 * 1024
#: From this width on the preview also names the frames, columns.
_WIDE: Final = 100
_DEFAULT_WIDTH: Final = 100
_FRAME_WIDTH: Final = 24
_GAP: Final = "  "
#: What goes with --write-tags, by the name of its attribute.
_NEEDS_WRITE_TAGS: Final[Mapping[str, str]] = {
    "dry_run": "--dry-run", "existing": "--keep, --merge or --overwrite", "genre_map": "--genre-map",
    "fields": "--fields", "floor": "--floor", "journal": "--journal",
}  # fmt: skip
#: Takes lines to show below the row of a track.
Say = Callable[[Sequence[str]], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``classify`` that write tags."""
    group = parser.add_argument_group("tags in files", "Write the answers into the files that were heard.")
    group.add_argument("--write-tags", action="store_true", help="write genre, mood, BPM, key, energy and evidence")
    group.add_argument("--dry-run", action="store_true", help="show old and new side by side, write nothing")
    choice = group.add_mutually_exclusive_group()
    for existing, what in (
        (Existing.KEEP, "leave values that a file has already (default)"),
        (Existing.MERGE, "add genre and mood to those that a file has; leave the rest"),
        (Existing.OVERWRITE, "replace values that a file has"),
    ):
        choice.add_argument(
            f"--{existing.value}", dest="existing", action="store_const", const=existing, default=None, help=what
        )
    group.add_argument(
        "--floor", type=_floor, metavar="P", help="least confidence, 0 to 1 (default: no answer marked `?`)"
    )
    group.add_argument(
        "--fields", type=_fields, metavar="LIST", help=f"only these, with commas: {', '.join(Field)} (default: all)"
    )
    group.add_argument("--genre-map", metavar="FILE", help="your words for genres: lines like `rock = Rock; Indie`")
    group.add_argument("--journal", metavar="FILE", help="where old values are noted for `tonestream undo`")


class TagWriting:
    """Writes the answers of one run into its files, or shows what it would write.

    ``well`` is false once a file was refused. Without --write-tags nothing is done.
    """

    def __init__(self, rules: Rules | None, dry_run: bool = False, journal: Journal | None = None) -> None:
        self.well = True
        self._rules = rules
        self._dry_run = dry_run
        self._journal = journal
        self._expected: dict[str, _Expected] = {}
        self._written: dict[Path, Identity] = {}
        self._counted: Counter[str] = Counter()

    @classmethod
    def of(cls, options: argparse.Namespace) -> TagWriting:
        """What the parsed ``options`` ask for. Raises UsageError."""
        if not options.write_tags:
            extra = [
                name
                for key, name in _NEEDS_WRITE_TAGS.items()
                if getattr(options, key) is not None and getattr(options, key) is not False
            ]
            if extra:
                raise UsageError(f"{extra[0]} goes with --write-tags")
            return cls(None)
        from services.library.tagging.errors import MutagenMissingError
        from services.library.tagging.formats import require_mutagen
        from services.library.tagging.journal import Journal

        try:
            require_mutagen()
        except MutagenMissingError as error:
            raise UsageError(str(error)) from error
        words = DEFAULT_WORDS if options.genre_map is None else _read_map(options.genre_map)
        rules = Rules(options.existing or Existing.KEEP, options.floor, options.fields or frozenset(Field), words)
        journal = Journal(None if options.journal is None else Path(options.journal).absolute())
        return cls(rules, options.dry_run, journal)

    def expect(self, request_id: str, given: Input) -> None:
        """A request is about to be made of ``given``: its file must stay as it is until its answer is written."""
        if self._rules is None or given.fault is not None or given.kind == "unknown":
            return
        from services.library.tagging.plan import Identity

        try:
            real = given.path.resolve(strict=True) if given.kind == "file" else None
            self._expected[request_id] = _Expected(real, None if real is None else Identity.of(real))
        except (OSError, RuntimeError):
            return  # it cannot be heard either

    def leave(self, result: TrackResult) -> None:
        """This answer is not wanted in its file."""
        self._expected.pop(result.request_id, None)

    def take(self, result: TrackResult, say: Say) -> bool:
        """Write an answer, or show what would be written; ``say`` shows lines below the row of the track. Returns
        whether the file was written."""
        expected = self._expected.pop(result.request_id, None)
        if self._rules is None or expected is None:
            return False
        if expected.real is None:
            self._counted["not files"] += 1
            say([f"{_GAP}tags: only local files can be tagged, and this is none"])
            return False
        if result.status is Status.FAILED:
            self._counted["not heard"] += 1
            return False
        if self._is_written(expected):
            say([f"{_GAP}tags: this file was written already, under another name"])
            return False
        from services.library.tagging.errors import TagRefusedError

        try:
            return self._take(result, expected, self._rules, say)
        except TagRefusedError as refused:
            self.well = False
            self._counted["refused"] += 1
            say([f"{_GAP}tags not written: {refused.message}"])
            return False

    def _is_written(self, expected: _Expected) -> bool:
        """Whether the file is as this run has written it since it was expected: it was given twice."""
        from services.library.tagging.plan import Identity

        written = None if expected.real is None else self._written.get(expected.real)
        if expected.real is None or written is None or written == expected.identity:
            return False
        try:
            return Identity.of(expected.real) == written
        except OSError:
            return False

    def _take(self, result: TrackResult, expected: _Expected, rules: Rules, say: Say) -> bool:
        from services.library.tagging.apply import apply
        from services.library.tagging.plan import Identity, plan

        assert expected.real is not None and self._journal is not None
        change = plan(expected.real, result, rules, expected.identity)
        links = _links(change)
        if self._dry_run:
            self._counted["to change" if change.changes else "as they are"] += 1
            say([*preview(change), *links])
            return False
        if change.changes:
            apply(change, self._journal)
            with contextlib.suppress(OSError):
                self._written[change.file] = Identity.of(change.file)
        self._counted["written" if change.changes else "as they are"] += 1
        say([outcome(change), *(links if change.changes else ())])
        return bool(change.changes)

    def tell(self) -> None:
        """The summary on standard error, if there is one."""
        if said := self.summary():
            complain(said)

    def summary(self) -> str:
        """How many files were written, and how to undo it; empty if there is nothing to say."""
        if self._rules is None or not self._counted:
            return ""
        parts = []
        if self._dry_run:
            parts.append(f"{_files(self._counted['to change'])} would change, none was written")
        else:
            parts.append(f"{_files(self._counted['written'])} written")
        for name, said in (("as they are", "left as they are"), ("not heard", "not heard"), ("refused", "refused"),
                           ("not files", "not local")):  # fmt: skip
            if count := self._counted[name]:
                parts.append(f"{count} {said}")
        text = f"tags: {', '.join(parts)}"
        if self._counted["written"] and self._journal is not None:
            text += f"; undo with: tonestream undo --run {self._journal.run}"
        return text


@dataclass(frozen=True, slots=True)
class _Expected:
    real: Path | None
    identity: Identity | None


def preview(change: Change, width: int | None = None) -> list[str]:
    """Old and new side by side, a line a field, in ``width`` columns (default: those of the terminal)."""
    from services.cli.show import terminal_width

    columns = width or terminal_width() or _DEFAULT_WIDTH
    rows = [row for field in Field for row in _rows(change, field)]
    if not rows:
        return []
    wide = columns >= _WIDE
    fixed = len(_GAP) + 9 + len(_GAP) + (_FRAME_WIDTH + len(_GAP) if wide else 0)
    old_width = max(12, min((columns - fixed - len(_GAP)) * 2 // 5, max(_cells(row.old) for row in rows)))
    new_width = max(12, columns - fixed - old_width - len(_GAP))
    lines = [_Row("tag", change.system, "now", "new"), *rows]
    shown = []
    for line in lines:
        cells = [_pad(line.name, 9)]
        if wide:
            cells.append(_pad(_fit(line.key, _FRAME_WIDTH), _FRAME_WIDTH))
        cells += [_pad(_fit(line.old, old_width), old_width), _fit(line.new, new_width)]
        shown.append((_GAP + _GAP.join(cells)).rstrip())
    return shown


def outcome(change: Change) -> str:
    """One line about a file that was written: what is new, and what stayed."""
    dash = "–" if has("–") else "-"
    new = {
        one.field: "evidence" if one.field is Field.EVIDENCE else f"{_name(one.field)} {_joined(one.new)}"
        for one in change.changes
    }
    parts = [f"wrote {', '.join(new.values())}" if new else "nothing to write"]
    if change.kept:
        parts.append("kept " + ", ".join(f"{_name(one.field)} {_joined(one.values)}" for one in change.kept))
    for reason in dict.fromkeys(one.reason for one in change.withheld):
        names = ", ".join(_name(one.field) for one in change.withheld if one.reason == reason)
        parts.append(f"no {names}: {reason}")
    return f"{_GAP}tags: {f' {dash} '.join(parts)}"


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    key: str
    old: str
    new: str


def _rows(change: Change, field: Field) -> list[_Row]:
    name, changes = _name(field), change.of(field)
    if field is Field.EVIDENCE:
        if not changes:
            return []
        before = sum(1 for one in changes if one.old)
        after = sum(1 for one in changes if one.new)
        texts = {one.key.rpartition("TONESTREAM_")[2]: _joined(one.new) for one in changes if one.new}
        said = f"{after} TONESTREAM_ fields: " + ", ".join(f"{key} {text}" for key, text in texts.items())
        return [_Row(name, "TONESTREAM_*", f"{before} fields" if before else _nothing(), said)]
    rows = [_Row(name, _frame(one.key), _joined(one.old), _joined(one.new)) for one in changes]
    for kept in change.kept:
        if kept.field is field:
            sure = "" if kept.heard.confidence is None else f" {kept.heard.confidence:.0%}"
            same = "the same" if kept.values == kept.heard.values else f"heard {_joined(kept.heard.values)}{sure}"
            rows.append(_Row(name, "", _joined(kept.values), f"(kept; {same})"))
    rows += [
        _Row(name, "", _joined(one.values), f"(nothing: {one.reason})") for one in change.withheld if one.field is field
    ]
    return rows


def _links(change: Change) -> list[str]:
    if change.names < 2:
        return []
    others = change.names - 1
    said = "another name keeps" if others == 1 else f"{others} other names keep"
    return [f"{_GAP}this file has {change.names} names (hard links): {said} the old tags, in a file of their own"]


def _name(field: Field) -> str:
    return "BPM" if field is Field.BPM else field.value


def _frame(key: str) -> str:
    return key.removeprefix("----:com.apple.iTunes:")


def _joined(values: Sequence[str]) -> str:
    return "; ".join(values) if values else _nothing()


def _nothing() -> str:
    return "–" if has("–") else "-"


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _fit(text: str, width: int) -> str:
    """``text`` in ``width`` columns; a longer one loses its end."""
    text = encodable(printable(text))
    if _cells(text) <= width:
        return text
    mark = "…" if has("…") else "..."
    while text and _cells(text) > width - len(mark):
        text = text[:-1]
    return text + mark


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _floor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no confidence from 0 to 1")
    return value


def _fields(text: str) -> frozenset[Field]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Field)]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{(unknown or [text])[0]!r} is none of {', '.join(Field)}")
    return frozenset(map(Field, names))


def _read_map(name: str) -> Mapping[str, tuple[str, ...]]:
    try:
        with Path(name).open("rb") as opened:
            data = opened.read(_LARGEST_MAP + 1)
        if len(data) > _LARGEST_MAP:
            raise UsageError(f"{name}: too large for a genre map")
        return genre_words(data.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}: line {line}: not UTF-8") from error
    except GenreMapError as error:
        raise UsageError(f"{name}: {error}") from error
