"""Any text in the tags of a file survives beside ours, and comes back after an overwrite."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from services.library.tagging.apply import apply
from services.library.tagging.errors import TagRefusedError
from services.library.tagging.formats import open_tags, save_tags
from services.library.tagging.journal import Journal, read_journals
from services.library.tagging.leftovers import is_unfinished_copy
from services.library.tagging.plan import plan
from services.library.tagging.rules import Existing, GenreMapError, Rules, genre_words
from services.library.tagging.undo import plan_undo, undo
from shared.contracts.labels import GENRES
from tests.support.tagged_files import FORMATS, Heard, make

#: No null: it separates values. No surrogates: no tag can hold them.
TEXTS = some.text(some.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
VALUES = some.lists(TEXTS, min_size=1, max_size=4)
ITUNES = "----:com.apple.iTunes:"
#: Genre, mood, and a field that is none of ours.
SLOTS = {
    "mp3-v23": ("TCON", "TXXX:MOOD", "TXXX:odd"),
    "mp3-v24": ("TCON", "TMOO", "TXXX:odd"),
    "flac": ("GENRE", "MOOD", "ODD"),
    "m4a": ("\xa9gen", f"{ITUNES}MOOD", f"{ITUNES}odd"),
    "wavpack": ("Genre", "Mood", "Odd"),
}


@pytest.mark.parametrize("name", SLOTS)
@settings(max_examples=15, deadline=None)
@given(genre=VALUES, mood=VALUES, other=VALUES, existing=some.sampled_from(Existing))
def test_what_a_file_says_survives_writing_and_undo(
    name: str, genre: list[str], mood: list[str], other: list[str], existing: Existing
) -> None:
    with tempfile.TemporaryDirectory() as given_folder:
        folder = Path(given_folder)
        file = make(folder, name, 0.2)
        tags = open_tags(file)
        for key, values in zip(SLOTS[name], (genre, mood, other), strict=True):
            tags.put(key, values)
        save_tags(tags, file)
        before = open_tags(file)
        change = plan(file, Heard().result(), Rules(existing=existing))
        journal = Journal(folder / "journal.jsonl")
        apply(change, journal)
        after = open_tags(file)
        assert after.raw(SLOTS[name][2]) == before.raw(SLOTS[name][2])
        undo(plan_undo(read_journals(journal.file).entries[0]))
        assert open_tags(file).contents() == before.contents()


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None)
@given(data=some.data())
def test_a_damaged_file_is_written_whole_or_refused(name: str, data: some.DataObject) -> None:
    with tempfile.TemporaryDirectory() as given_folder:
        file = make(Path(given_folder), name, 0.2)
        content = bytearray(file.read_bytes())
        # Most of what can go wrong is near the beginning.
        places = some.integers(0, len(content) - 1) | some.integers(0, min(2000, len(content) - 1))
        for at in data.draw(some.lists(places, max_size=6)):
            content[at] = data.draw(some.integers(0, 255))
        del content[data.draw(some.just(len(content)) | places) :]
        file.write_bytes(content)
        try:
            change = plan(file, Heard().result(), Rules(existing=Existing.OVERWRITE))
            if change.changes:
                apply(change, Journal(Path(given_folder) / "journal.jsonl"))
        except TagRefusedError as error:
            assert error.message.isprintable() and file.read_bytes() == bytes(content)
        else:
            assert plan(file, Heard().result(), Rules(existing=Existing.OVERWRITE)).changes == ()
        assert not [one for one in file.parent.iterdir() if is_unfinished_copy(one.name)]


@settings(max_examples=200)
@given(some.text(max_size=200) | some.lists(some.sampled_from(["rock", "=", ";", "\n", "A", "#", " "])).map("".join))
def test_any_genre_map_is_words_or_an_error_with_a_line(text: str) -> None:
    try:
        words = genre_words(text)
    except GenreMapError as error:
        assert str(error).startswith("line ") and str(error).isprintable()
    else:
        assert set(words) == set(GENRES) and all(name.isprintable() for names in words.values() for name in names)
