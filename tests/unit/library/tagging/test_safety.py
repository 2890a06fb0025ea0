"""A file is the old one or the new one, never less: refusals, links, attributes, and death at any moment."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.library.tagging import journal as journal_module
from services.library.tagging import replacement
from services.library.tagging.apply import apply
from services.library.tagging.errors import Refusal, TagRefusedError
from services.library.tagging.formats import open_tags
from services.library.tagging.journal import Journal, read_journals
from services.library.tagging.leftovers import TEMPORARY_PREFIX, TEMPORARY_SUFFIX, is_unfinished_copy
from services.library.tagging.plan import Identity, plan
from services.library.tagging.rules import Rules
from services.library.tagging.undo import entries_of, plan_undo, undo
from shared.system.fault_points import TAG_FAULT_POINTS, TAGS_NOTED, TAGS_REPLACED, VARIABLE
from tests.support import tag_writer
from tests.support.samples import ROOT
from tests.support.tagged_files import Heard, make, sound_hash


def write(file: Path, folder: Path | None = None) -> Journal:
    journal = Journal((folder or file.parent) / "journal.jsonl")
    apply(plan(file, Heard().result(), Rules()), journal)
    return journal


def leftovers(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if is_unfinished_copy(entry.name)]


def refused_untouched(file: Path, refusal: Refusal, work: Callable[[], object]) -> TagRefusedError:
    before, found = file.read_bytes(), Identity.of(file)
    with pytest.raises(TagRefusedError) as error:
        work()
    assert error.value.refusal is refusal
    assert file.read_bytes() == before and Identity.of(file) == found
    assert leftovers(file.parent) == []
    return error.value


# Attributes and links


def test_modification_time_mode_and_extended_attributes_stay(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    file.chmod(0o640)
    os.utime(file, ns=(1_500_000_000_123_456_789, 1_400_000_000_987_654_321))
    try:
        os.setxattr(file, "user.rating", b"5")
    except (OSError, AttributeError):
        pytest.skip("this file system has no extended attributes")
    write(file)
    found = file.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640 and found.st_mtime_ns == 1_400_000_000_987_654_321
    assert os.getxattr(file, "user.rating") == b"5"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays_where_the_system_allows_it(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    os.chown(file, 1234, 2345)
    write(file)
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345)


def test_through_a_link_the_file_behind_it_is_written_and_the_link_stays(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    file, link = make(folder, "flac"), tmp_path / "link.flac"
    link.symlink_to("real/song.flac")
    write(link)
    assert link.is_symlink() and os.readlink(link) == "real/song.flac"  # noqa: PTH115
    assert open_tags(file).text("GENRE") == ("Rock",) and leftovers(tmp_path) == leftovers(folder) == []


def test_a_file_with_two_names_says_so_and_the_other_name_keeps_the_old_file(tmp_path: Path) -> None:
    file, other = make(tmp_path, "flac"), tmp_path / "other.flac"
    other.hardlink_to(file)
    change = plan(file, Heard().result(), Rules())
    assert change.names == 2
    apply(change, Journal(tmp_path / "j.jsonl"))
    assert open_tags(file).text("GENRE") == ("Rock",) and open_tags(other).text("GENRE") == ()


# Refusals


def test_a_read_only_file_is_refused(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    file.chmod(0o444)
    error = refused_untouched(file, Refusal.READ_ONLY, lambda: write(file, tmp_path))
    assert error.message == "the file is read-only"


def change_size(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"\0")


def change_time(file: Path) -> None:
    os.utime(file, (1, 1))


def replace_file(file: Path) -> None:
    found = file.stat()
    copy = file.with_suffix(".new")
    copy.write_bytes(file.read_bytes())
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    copy.rename(file)


@pytest.mark.parametrize("meddle", [change_size, change_time, replace_file])
def test_a_file_that_changed_since_it_was_heard_is_refused(meddle: Callable[[Path], None], tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    heard, change = Identity.of(file), plan(file, Heard().result(), Rules())
    meddle(file)
    journal = Journal(tmp_path / "journal.jsonl")
    refused_untouched(file, Refusal.CHANGED, lambda: plan(file, Heard().result(), Rules(), heard))
    refused_untouched(file, Refusal.CHANGED, lambda: apply(change, journal))


def test_a_file_that_changes_while_its_copy_is_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(tmp_path, "flac")
    change, journal = plan(file, Heard().result(), Rules()), Journal(tmp_path / "journal.jsonl")
    add = journal.add

    def meddle(entry: journal_module.Entry) -> None:
        add(entry)
        change_time(file)

    monkeypatch.setattr(journal, "add", meddle)
    with pytest.raises(TagRefusedError) as error:
        apply(change, journal)
    assert error.value.refusal is Refusal.CHANGED and open_tags(file).text("GENRE") == () and not leftovers(tmp_path)
    # The journal knows of a change that never came to be: there is nothing to undo.
    assert plan_undo(read_journals(journal.file).entries[0]).restored == ()


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("where", "name"), [(replacement, "_copy"), (replacement, "_adopt"), (os, "fsync")])
def test_on_a_full_disk_the_file_stays_and_no_copy_is_left(
    where: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path, "flac")
    change = plan(file, Heard().result(), Rules())
    monkeypatch.setattr(where, name, full)
    error = refused_untouched(file, Refusal.NO_SPACE, lambda: apply(change, Journal(tmp_path / "journal.jsonl")))
    assert error.message == "there is no room for a copy of the file (No space left on device)"


@pytest.mark.parametrize("pages_left", [0, 1, None], ids=["no room", "room for a part", "room for the copy alone"])
def test_on_a_disk_that_is_really_full_the_file_stays(pages_left: int | None, tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", mounted], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        file = make(mounted, "mp3-bare")
        page = os.sysconf("SC_PAGE_SIZE")
        file.write_bytes(file.read_bytes() + bytes(-file.stat().st_size % page))
        change = plan(file, Heard().result(), Rules())
        left = file.stat().st_size // page if pages_left is None else pages_left
        free = os.statvfs(mounted)
        (mounted / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - left * page))
        refused_untouched(file, Refusal.NO_SPACE, lambda: apply(change, Journal(tmp_path / "journal.jsonl")))
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_without_a_journal_nothing_is_written(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    change = plan(file, Heard().result(), Rules())
    (tmp_path / "file").write_text("no folder")
    error = refused_untouched(file, Refusal.JOURNAL, lambda: apply(change, Journal(tmp_path / "file" / "j.jsonl")))
    assert error.message.startswith(f"the journal {tmp_path / 'file' / 'j.jsonl'} cannot be written: ")


def test_a_journal_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(tmp_path, "flac")
    journal = write(file)
    before = journal.file.read_bytes()
    other = make(tmp_path, "ogg")
    change = plan(other, Heard().result(), Rules())
    written = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return written(descriptor, data[:100])
        return int(full())

    monkeypatch.setattr(os, "write", half)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TagRefusedError):
        apply(change, journal)
    assert journal.file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        ("song.mka", b"\x1a\x45\xdf\xa3" + bytes(100), Refusal.NOT_TAGGABLE),
        ("notes.mp3", b"just text, many words " * 50, Refusal.NOT_TAGGABLE),
        ("empty.flac", b"", Refusal.NOT_TAGGABLE),
        ("cut.flac", b"fLaC\x00\x00\x00\x22" + bytes(10), Refusal.DAMAGED),
        ("cut.m4a", b"\0\0\0\x18ftypM4A " + bytes(40), Refusal.DAMAGED),
        ("cut.ogg", b"OggS" + bytes(60), Refusal.NOT_TAGGABLE),
        ("cut.wav", b"RIFF\xff\0\0\0WAVEfmt ", Refusal.DAMAGED),
    ],
)
def test_what_holds_no_tags_or_damaged_ones_is_refused_in_a_sentence(
    name: str, content: bytes, refusal: Refusal, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(TagRefusedError) as error:
        plan(file, Heard().result(), Rules())
    assert error.value.refusal is refusal and error.value.message.isprintable()


def test_a_file_whose_other_tags_would_not_stay_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path, "mp3-v24")
    change = plan(file, Heard().result(), Rules())

    def lossy(path: Path) -> Any:
        tags = open_tags(path)
        if is_unfinished_copy(path.name):
            tags.remove("TIT2")
        return tags

    monkeypatch.setattr(replacement, "open_tags", lossy)
    refused_untouched(file, Refusal.NOT_KEPT, lambda: apply(change, Journal(tmp_path / "journal.jsonl")))


# Death


def killed_at(point: str, what: str, file: Path, journal: Path) -> None:
    """A process that dies at a fault point while it writes tags or takes them back."""
    environment = os.environ | {VARIABLE: f"{point}=1"}
    command = [sys.executable, "-m", "tests.support.tag_writer", what, str(file), str(journal)]
    died = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr


@pytest.mark.parametrize("point", TAG_FAULT_POINTS)
def test_whenever_the_process_dies_the_file_is_whole_and_undo_brings_it_back(point: str, tmp_path: Path) -> None:
    file, journal = make(tmp_path, "mp3-v23"), tmp_path / "j" / "journal.jsonl"
    before, old, sound = open_tags(file).contents(), file.read_bytes(), sound_hash(file)
    killed_at(point, "write", file, journal)
    assert (file.read_bytes() == old) == (point != TAGS_REPLACED) and sound_hash(file) == sound
    assert len(leftovers(tmp_path)) == (point != TAGS_REPLACED)

    noted = journal.exists()
    assert noted == (point in (TAGS_NOTED, TAGS_REPLACED))
    if noted:
        tag_writer.main("undo", file, journal)
    assert open_tags(file).contents() == before and sound_hash(file) == sound

    tag_writer.main("write", file, journal)
    assert open_tags(file).text("TCON") == ("Rock",) and sound_hash(file) == sound
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("point", TAG_FAULT_POINTS)
def test_an_undo_that_dies_can_be_done_again(point: str, tmp_path: Path) -> None:
    file, journal = make(tmp_path, "m4a"), tmp_path / "j" / "journal.jsonl"
    before, sound = open_tags(file).contents(), sound_hash(file)
    tag_writer.main("write", file, journal)
    killed_at(point, "undo", file, journal)
    assert sound_hash(file) == sound
    tag_writer.main("undo", file, journal)
    assert open_tags(file).contents() == before and sound_hash(file) == sound
    assert all(one.undone for one in read_journals(journal).entries)


def test_a_copy_that_another_process_is_making_is_no_leftover(tmp_path: Path) -> None:
    with replacement._temporary(tmp_path) as (path, _):
        assert replacement.remove_leftovers(tmp_path) == 0 and path.exists()
    (tmp_path / f"{TEMPORARY_PREFIX}{'0' * 32}{TEMPORARY_SUFFIX}").write_bytes(b"left")
    mine = tmp_path / f"{TEMPORARY_PREFIX}notes{TEMPORARY_SUFFIX}"
    mine.write_bytes(b"not made by a run")
    assert replacement.remove_leftovers(tmp_path) == 1 and mine.exists()


def test_a_line_that_a_crash_has_cut_spoils_neither_the_lines_before_nor_the_next(tmp_path: Path) -> None:
    one, other = make(tmp_path, "flac"), make(tmp_path, "ogg")
    journal = write(one)
    with journal.file.open("ab") as opened:
        opened.write(b'{"type":"entry","version":1,"id":"ab')
    apply(plan(other, Heard().result(), Rules()), journal)
    found = read_journals(journal.file)
    assert [entry.entry.file for entry in found.entries] == [one, other] and found.unreadable == {journal.file: 1}


# Undo


def test_a_value_that_somebody_changed_since_stays_unless_it_is_forced(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    journal = write(file)
    tags = open_tags(file)
    tags.put("GENRE", ["Shoegaze"])
    tags.save(file)
    planned = plan_undo(read_journals(journal.file).entries[0])
    assert [(one.value.key, one.now, one.before) for one in planned.left] == [("GENRE", ("Shoegaze",), ())]
    undo(planned)
    tags = open_tags(file)
    assert tags.text("GENRE") == ("Shoegaze",) and tags.text("MOOD") == ()
    undo(plan_undo(read_journals(journal.file).entries[0], force=True))
    assert open_tags(file).text("GENRE") == () and read_journals(journal.file).entries[0].undone


def test_a_file_that_has_moved_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    before = open_tags(file).contents()
    journal = write(file)
    apply(plan(file, Heard(tempo=90.0).result(), Rules()), journal)
    moved = file.rename(tmp_path / "moved.flac")
    found = entries_of(moved, read_journals(journal.file).entries)
    assert len(found) == 2
    with pytest.raises(TagRefusedError) as error:
        plan_undo(found[0])
    assert error.value.refusal is Refusal.GONE
    for one in reversed(found):
        undo(plan_undo(one, moved))
    assert open_tags(moved).contents() == before


def test_another_file_in_its_place_does_not_pass_for_the_one_that_was_written(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    before = open_tags(file).contents()
    journal = write(file)
    moved = file.rename(tmp_path / "moved.flac")
    other = open_tags(make(tmp_path, "flac"))
    other.put("TITLE", ["Another song"])
    other.save(file)
    undo(plan_undo(read_journals(journal.file).entries[0]))
    assert open_tags(file).text("TITLE") == ("Another song",)
    (recorded,) = read_journals(journal.file).entries
    assert not recorded.undone
    undo(plan_undo(recorded, moved))
    assert open_tags(moved).contents() == before


def test_a_name_that_is_no_text_is_found_again(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    try:
        odd = file.rename(tmp_path / os.fsdecode(b"L\xf8rd \xff.flac"))
    except OSError:
        pytest.skip("this file system takes only text")
    before = open_tags(odd).contents()
    journal = write(odd)
    (recorded,) = read_journals(journal.file).entries
    assert recorded.entry.file == odd
    undo(plan_undo(recorded))
    assert open_tags(odd).contents() == before
