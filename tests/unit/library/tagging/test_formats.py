"""Each kind of file: the right frame, every other frame and every sample as before, and back again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tinytag

from services.library.tagging.apply import apply
from services.library.tagging.formats import TagFile, open_tags, save_tags
from services.library.tagging.journal import Journal, read_journals
from services.library.tagging.plan import plan
from services.library.tagging.rules import Existing, Field, Rules, genre_words
from services.library.tagging.undo import plan_undo, undo
from tests.support.tagged_files import FORMATS, Heard, ffmpeg, ffmpeg_tags, make, sound_hash

ID3 = ["mp3-v23", "mp3-v24", "mp3-bare", "wav", "aiff"]
#: What ffmpeg calls the frames, by the family of the file.
NAMES_BY_FFMPEG = {
    "ID3v2.3": {"GENRE": "Rock", "MOOD": "Happy", "TBPM": "128", "TKEY": "F#m", "ENERGYLEVEL": "7"},
    "ID3v2.4": {"GENRE": "Rock", "TMOO": "Happy", "TBPM": "128", "TKEY": "F#m", "ENERGYLEVEL": "7"},
    "Vorbis comments": {"GENRE": "Rock", "MOOD": "Happy", "BPM": "128", "INITIALKEY": "F#m", "ENERGYLEVEL": "7"},
    "MP4": {"GENRE": "Rock", "MOOD": "Happy", "INITIALKEY": "F#m", "ENERGYLEVEL": "7"},
    "APEv2": {"GENRE": "Rock", "MOOD": "Happy", "BPM": "128", "INITIALKEY": "F#m", "ENERGYLEVEL": "7"},
}
#: What tinytag calls them, where it knows them.
NAMES_BY_TINYTAG = {
    "mp3-v23": {"genre": "Rock", "bpm": "128", "initial_key": "F#m"},
    "mp3-v24": {"genre": "Rock", "bpm": "128", "initial_key": "F#m"},
    "flac": {"genre": "Rock", "bpm": "128", "initial_key": "F#m", "mood": "Happy"},
    "opus": {"genre": "Rock", "bpm": "128", "initial_key": "F#m", "mood": "Happy"},
    "m4a": {"genre": "Rock", "bpm": "128", "mood": "Happy"},
}


def write(file: Path, heard: Heard | None = None, rules: Rules | None = None) -> Journal:
    """Plan and write; the journal lies beside the file."""
    journal = Journal(file.parent / "journal.jsonl")
    apply(plan(file, (heard or Heard()).result(), rules or Rules()), journal)
    return journal


def take_back(journal: Journal, force: bool = False) -> None:
    """Undo everything in the journal, newest first."""
    for recorded in reversed(read_journals(journal.file).entries):
        undo(plan_undo(recorded, force=force))


def without(contents: Counter[tuple[str, str]], tags: TagFile, journal: Journal) -> Counter[tuple[str, str]]:
    """All frames but those that the journal says were written."""
    keys = {value.key.lower() for one in read_journals(journal.file).entries for value in one.entry.values}
    return Counter({item: count for item, count in contents.items() if item[0].lower() not in keys})


@pytest.mark.parametrize("name", FORMATS)
def test_another_program_reads_what_was_written(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    write(file)
    read = ffmpeg_tags(file)
    wanted = NAMES_BY_FFMPEG[open_tags(file).system]
    assert {key: read.get(key) for key in wanted} == wanted
    assert read["TONESTREAM_GENRE_CONFIDENCE"] == "0.92" and read["TONESTREAM_MODEL"] == "genre-model-1; mood-model-1"
    assert read["TONESTREAM_TAGS"] == "rock 0.50; indie 0.50" and read["TONESTREAM_MOOD"] == "happy"


@pytest.mark.parametrize("name", NAMES_BY_TINYTAG)
def test_another_library_reads_what_was_written(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    write(file)
    read = {key: str(value[0] if isinstance(value, list) else value)
            for key, value in tinytag.TinyTag.get(file).as_dict().items()}  # fmt: skip
    assert {key: read.get(key) for key in NAMES_BY_TINYTAG[name]} == NAMES_BY_TINYTAG[name]


@pytest.mark.parametrize("name", FORMATS)
def test_every_other_frame_the_picture_and_the_sound_stay(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    before, sound = open_tags(file).contents(), sound_hash(file)
    journal = write(file)
    tags = open_tags(file)
    assert without(tags.contents(), tags, journal) == before
    assert sound_hash(file) == sound


@pytest.mark.parametrize("name", FORMATS)
def test_undo_brings_back_the_tags_and_a_second_undo_finds_nothing(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    before, sound = open_tags(file).contents(), sound_hash(file)
    journal = write(file, rules=Rules(existing=Existing.OVERWRITE))
    take_back(journal)
    assert open_tags(file).contents() == before and sound_hash(file) == sound
    assert all(one.undone for one in read_journals(journal.file).entries)
    written = file.read_bytes()
    take_back(journal)
    assert file.read_bytes() == written


@pytest.mark.parametrize("name", ["mp3-bare", "flac", "wav"])
def test_a_file_without_tags_has_none_again_after_undo(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    if name == "flac":
        import mutagen.flac

        mutagen.flac.FLAC(file).delete()  # type: ignore[no-untyped-call]
    before = file.read_bytes()
    take_back(write(file))
    if name == "flac":  # its blocks are written anew
        assert open_tags(file).created
    else:
        assert file.read_bytes() == before


@pytest.mark.parametrize("name", FORMATS)
def test_writing_the_same_again_changes_nothing(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    words = genre_words("rock = Rock; Alternative/Indie")
    for existing in Existing:
        rules = Rules(existing=existing, words=words)
        if (change := plan(file, Heard().result(), rules)).changes:
            apply(change, Journal(tmp_path / "j.jsonl"))
        assert plan(file, Heard().result(), rules).changes == ()


@pytest.mark.parametrize(("name", "shown"), [("mp3-v24", ("Rock", "Indie")), ("mp3-v23", ("Rock/Indie",)),
                                             ("flac", ("Rock", "Indie")), ("ogg", ("Rock", "Indie")),
                                             ("opus", ("Rock", "Indie")), ("m4a", ("Rock", "Indie")),
                                             ("wav", ("Rock", "Indie")), ("wavpack", ("Rock", "Indie"))])  # fmt: skip
def test_several_genres_are_several_values(name: str, shown: tuple[str, ...], tmp_path: Path) -> None:
    file = make(tmp_path, name)
    write(file, rules=Rules(words=genre_words("rock = Rock; Indie")))
    tags = open_tags(file)
    assert tags.text(tags.slot(Field.GENRE)) == shown


@pytest.mark.parametrize(("name", "major", "mood", "unwanted"), [("mp3-v23", 3, "TXXX:MOOD", "TMOO"),
                                                                 ("mp3-v24", 4, "TMOO", "TXXX:MOOD"),
                                                                 ("aiff", 3, "TXXX:MOOD", "TMOO")])  # fmt: skip
def test_id3_keeps_its_version_and_the_mood_stands_where_that_version_has_it(
    name: str, major: int, mood: str, unwanted: str, tmp_path: Path
) -> None:
    file = make(tmp_path, name)
    write(file)
    tags = open_tags(file)
    assert tags.system == f"ID3v2.{major}"
    assert tags.text(mood) == ("Happy",) and tags.text(unwanted) == ()


def test_the_old_id3v1_tag_stays_byte_for_byte(tmp_path: Path) -> None:
    file = make(tmp_path, "mp3-v23")
    old = file.read_bytes()[-128:]
    assert old[:3] == b"TAG"
    journal = write(file)
    assert file.read_bytes()[-128:] == old
    take_back(journal)
    assert file.read_bytes()[-128:] == old


def test_of_a_file_with_only_id3v1_the_title_is_carried_over(tmp_path: Path) -> None:
    file = make(tmp_path, "mp3-bare")
    sound = file.read_bytes()
    file.write_bytes(
        sound + (b"TAG" + b"Old title".ljust(30, b"\0") + b"Old artist".ljust(30, b"\0")).ljust(127) + b"\xff"
    )
    before = file.read_bytes()
    journal = write(file)
    read = ffmpeg_tags(file)
    assert (read["TITLE"], read["ARTIST"], read["GENRE"]) == ("Old title", "Old artist", "Rock")
    take_back(journal)
    assert file.read_bytes() == before


def test_several_values_in_other_frames_of_id3v23_keep_their_separator(tmp_path: Path) -> None:
    from mutagen.id3 import ID3, TPE1

    file = make(tmp_path, "mp3-v23")
    tags = ID3(file, translate=False)  # type: ignore[no-untyped-call]
    tags.setall("TPE1", [TPE1(encoding=1, text=["One", "Two/Three"])])  # type: ignore[no-untyped-call]
    tags.save(file, v2_version=3, v23_sep=None)
    write(file)
    assert list(ID3(file, translate=False)["TPE1"].text) == ["One", "Two/Three"]  # type: ignore[no-untyped-call]


def test_a_field_whose_name_begins_with_that_of_a_written_one_stays(tmp_path: Path) -> None:
    file = make(tmp_path, "mp3-v23")
    tags = open_tags(file)
    for key in ("TXXX:MOOD", "TXXX:MOOD:mine"):
        tags.put(key, ["Dreamy"])
    save_tags(tags, file)
    take_back(write(file, rules=Rules(existing=Existing.OVERWRITE)))
    assert open_tags(file).text("TXXX:MOOD:mine") == open_tags(file).text("TXXX:MOOD") == ("Dreamy",)


def test_frames_that_nobody_knows_stay(tmp_path: Path) -> None:
    from mutagen.id3 import ID3

    file = make(tmp_path, "mp3-v23")
    tags = ID3(file, translate=False)  # type: ignore[no-untyped-call]
    tags.unknown_frames.append(b"XYZW" + (5).to_bytes(4, "big") + b"\0\0hello")
    tags.save(file, v2_version=3, v23_sep=None)
    write(file)
    assert b"XYZW\0\0\0\5\0\0hello" in file.read_bytes()


def test_a_numbered_genre_of_mp4_gives_way_to_the_named_one(tmp_path: Path) -> None:
    file = make(tmp_path, "m4a")
    tags = open_tags(file)
    tags.put("\xa9gen", ["Jazz"])
    save_tags(tags, file)
    data = file.read_bytes()
    old = b"\xa9gen" + (20).to_bytes(4, "big") + b"data" + (1).to_bytes(4, "big") + bytes(4) + b"Jazz"
    assert old in data
    # The same length: number 9 (Jazz, counted from 1), and two bytes of padding that readers skip.
    new = b"gnre" + (18).to_bytes(4, "big") + b"data" + bytes(8) + (9).to_bytes(2, "big")
    at = data.index(old) - 4
    free = data.index(b"free", at)
    assert free > 0
    size = int.from_bytes(data[at : at + 4], "big")
    ilst = data.rindex(b"ilst", 0, at) - 4
    smaller = int.from_bytes(data[ilst : ilst + 4], "big") - 2
    padded = int.from_bytes(data[free - 4 : free], "big") + 2
    file.write_bytes(
        data[:ilst] + smaller.to_bytes(4, "big") + data[ilst + 4 : at] + (size - 2).to_bytes(4, "big") + new
        + data[at + size : free - 4] + padded.to_bytes(4, "big") + b"free" + b"\0\0" + data[free + 4 :]
    )  # fmt: skip
    assert ffmpeg_tags(file)["GENRE"] == "Jazz"
    kept = plan(file, Heard().result(), Rules())
    assert kept.of(Field.GENRE) == () and kept.kept[0].values == ("Jazz",)
    journal = write(file, rules=Rules(existing=Existing.OVERWRITE))
    assert b"gnre" not in file.read_bytes() and ffmpeg_tags(file)["GENRE"] == "Rock"
    take_back(journal)
    assert ffmpeg_tags(file)["GENRE"] == "Jazz"


@pytest.mark.parametrize("name", ["flac", "ogg", "wavpack"])
def test_a_key_under_another_name_is_kept_or_overwritten_and_never_contradicted(name: str, tmp_path: Path) -> None:
    file = make(tmp_path, name)
    tags = open_tags(file)
    tags.put("KEY" if name != "wavpack" else "Key", ["8A"])
    save_tags(tags, file)
    assert plan(file, Heard().result(), Rules()).of(Field.KEY) == ()
    write(file, rules=Rules(existing=Existing.OVERWRITE))
    after = open_tags(file)
    spellings = [key for key in after.keys() if key.lower() in ("key", "initialkey")]  # noqa: SIM118 (no mapping)
    assert [after.text(key) for key in spellings] == [("F#m",), ("F#m",)]


def test_a_genre_in_the_info_list_of_a_wav_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "song.wav"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.3", "-metadata", "title=odd", "-metadata", "genre=Jazz", file)
    kept = plan(file, Heard().result(), Rules())
    assert kept.of(Field.GENRE) == () and kept.kept[0].values == ("Jazz",)
    merged = plan(file, Heard().result(), Rules(existing=Existing.MERGE))
    assert [(one.key, one.new) for one in merged.of(Field.GENRE)] == [("TCON", ("Jazz", "Rock"))]
    write(file, rules=Rules(existing=Existing.MERGE))
    assert plan(file, Heard().result(), Rules(existing=Existing.MERGE)).changes == ()


def test_a_comment_keeps_its_place_among_the_others(tmp_path: Path) -> None:
    from mutagen.flac import FLAC

    file = make(tmp_path, "flac")
    opened: Any = FLAC(file)  # type: ignore[no-untyped-call]
    opened.tags[:] = [("TITLE", "x"), ("Genre", "Jazz"), ("ARTIST", "y")]
    opened.save()
    write(file, rules=Rules(existing=Existing.OVERWRITE, fields=frozenset({Field.GENRE})))
    opened = FLAC(file)  # type: ignore[no-untyped-call]
    assert list(opened.tags) == [("TITLE", "x"), ("GENRE", "Rock"), ("ARTIST", "y")]


def test_id3v22_becomes_id3v23_with_what_it_held(tmp_path: Path) -> None:
    def frame(name: bytes, text: bytes) -> bytes:
        return name + (len(text) + 1).to_bytes(3, "big") + b"\0" + text

    file = make(tmp_path, "mp3-bare")
    frames = frame(b"TT2", b"Title") + frame(b"TP1", b"Artist") + frame(b"TYE", b"1997") + frame(b"TCO", b"(8)")
    size = bytes([0, 0, len(frames) >> 7, len(frames) & 0x7F])
    file.write_bytes(b"ID3\x02\0\0" + size + frames + file.read_bytes())
    write(file, rules=Rules(existing=Existing.MERGE))
    read = ffmpeg_tags(file)
    assert open_tags(file).system == "ID3v2.3"
    assert (read["TITLE"], read["ARTIST"], read["GENRE"]) == ("Title", "Artist", "Jazz/Rock")
    assert open_tags(file).text("TYER") == ("1997",)
