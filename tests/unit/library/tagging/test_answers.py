"""What of an answer is worth writing, over what, and in whose words."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.library.tagging.answers import answers
from services.library.tagging.apply import apply
from services.library.tagging.formats import open_tags, save_tags
from services.library.tagging.journal import Journal
from services.library.tagging.plan import plan
from services.library.tagging.rules import Existing, Field, GenreMapError, Rules, genre_words
from shared.contracts.labels import GENRES
from tests.support.tagged_files import Heard, make


def values(heard: Heard, rules: Rules | None = None) -> dict[str, tuple[str, ...]]:
    return {field.value: one.values for field, one in answers(heard.result(), rules or Rules()).heard.items()}


def test_all_that_is_sure_is_written() -> None:
    assert values(Heard()) == {
        "genre": ("Rock",), "mood": ("Happy",), "bpm": ("128",), "key": ("F#m",), "energy": ("7",)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("heard", "missing", "reason"),
    [
        (Heard(uncertain=True, confidence=0.31), "genre", "Rock 31% is a guess"),
        (Heard(outside=True, tags=("ambient", "drone")), "genre", "probably none of the ten genres (Rock 92% at best)"),
        (Heard(mood_uncertain=True, mood_confidence=0.3), "mood", "Happy 30% is a guess"),
        (Heard(key=("A", "minor", 0.3)), "key", "Am 30% is a guess"),
        (Heard(key=None), "key", "no answer"),
        (Heard(genre=None), "genre", "no answer"),
        (Heard(tempo=0.0), "bpm", "no steady beat"),
    ],
)
def test_a_guess_is_not_written_and_the_rest_is(heard: Heard, missing: str, reason: str) -> None:
    found = answers(heard.result(), Rules())
    assert set(Field) - {Field(missing), Field.EVIDENCE} == set(found.heard)
    assert found.withheld == {Field(missing): reason}
    if missing in ("genre", "mood"):
        assert not {name for name in found.evidence if name.startswith(missing.upper())}


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (Heard(content="speech"), "no music, but speech (90%)"),
        (Heard(content="other"), "no music, but other sounds (90%)"),
        (Heard(genre=None, mood=None), "the track could not be heard"),
    ],
)
def test_of_what_is_no_music_nothing_is_written(heard: Heard, reason: str) -> None:
    found = answers(heard.result(), Rules())
    assert not found.heard and not found.evidence and set(found.withheld.values()) == {reason}


def test_a_floor_takes_the_place_of_the_models_limits() -> None:
    unsure = Heard(uncertain=True, confidence=0.4, mood_confidence=0.55)
    assert "genre" in values(unsure, Rules(floor=0.3))
    assert set(values(unsure, Rules(floor=0.6))) == {"bpm", "key", "energy"}
    assert "genre" not in values(Heard(outside=True, tags=("ambient",)), Rules(floor=0.1))


def test_a_track_far_from_the_usual_keeps_the_genre_that_its_tags_name() -> None:
    assert values(Heard(outside=True, tags=("rock", "noise")))["genre"] == ("Rock",)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        (("A", "minor", 0.9), "Am"),
        (("C", "major", 0.9), "C"),
        (("F#", "minor", 0.9), "F#m"),
        (("A#", "major", 1), "A#"),
    ],
)
def test_a_key_is_written_as_id3_spells_it(key: tuple[str, str, float], written: str) -> None:
    assert values(Heard(key=key))["key"] == (written,)


def with_tags(folder: Path, **given: str) -> Path:
    file = make(folder, "flac")
    tags = open_tags(file)
    for key, value in given.items():
        tags.put(key, value.split("|"))
    save_tags(tags, file)
    return file


def new(file: Path, existing: Existing, heard: Heard | None = None, words: str = "") -> dict[str, tuple[str, ...]]:
    change = plan(file, (heard or Heard()).result(), Rules(existing=existing, words=genre_words(words)))
    return {one.key: one.new for one in change.changes if one.field is not Field.EVIDENCE}


def test_keep_fills_only_what_is_empty(tmp_path: Path) -> None:
    file = with_tags(tmp_path, GENRE="Shoegaze", BPM="126.00", MOOD="")
    assert new(file, Existing.KEEP) == {"MOOD": ("Happy",), "INITIALKEY": ("F#m",), "ENERGYLEVEL": ("7",)}


def test_a_tempo_of_zero_is_none(tmp_path: Path) -> None:
    assert new(with_tags(tmp_path, BPM="0"), Existing.KEEP)["BPM"] == ("128",)


@pytest.mark.parametrize(
    ("old", "merged"),
    [("Shoegaze", ("Shoegaze", "Hip-Hop")), ("A|B", ("A", "B", "Hip-Hop")), ("hip hop", None), ("Pop/HipHop", None)],
)
def test_merge_adds_a_genre_that_is_not_there_in_any_spelling(
    old: str, merged: tuple[str, ...] | None, tmp_path: Path
) -> None:
    file = with_tags(tmp_path, GENRE=old, BPM="90")
    found = new(file, Existing.MERGE, Heard(genre="hiphop"))
    assert found.get("GENRE") == merged and "BPM" not in found


def test_overwrite_replaces_what_is_there(tmp_path: Path) -> None:
    file = with_tags(tmp_path, GENRE="Shoegaze|Dream Pop", BPM="90", MOOD="Dreamy")
    found = new(file, Existing.OVERWRITE)
    assert (found["GENRE"], found["BPM"], found["MOOD"]) == (("Rock",), ("128",), ("Happy",))


def test_only_the_chosen_fields_are_written(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    change = plan(file, Heard().result(), Rules(fields=frozenset({Field.BPM})))
    assert [one.key for one in change.changes] == ["BPM"]


def test_evidence_of_an_earlier_answer_does_not_stay_beside_that_of_a_new_one(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    apply(plan(file, Heard().result(), Rules()), Journal(tmp_path / "j.jsonl"))
    apply(plan(file, Heard(uncertain=True, tempo=90.0).result(), Rules()), Journal(tmp_path / "j.jsonl"))
    tags = open_tags(file)
    assert tags.text("TONESTREAM_GENRE") == () and tags.text("TONESTREAM_TEMPO") == ("90.0",)
    assert tags.text("GENRE") == ("Rock",)


def test_every_genre_has_a_usual_name() -> None:
    words = genre_words("")
    assert set(words) == set(GENRES) and words["hiphop"] == ("Hip-Hop",) and words["metal"] == ("Metal",)


def test_a_genre_map_may_have_comments_and_several_names() -> None:
    words = genre_words("\ufeff# mine\n\nRock = Rock ; Alternative;Rock\r\nhiphop=Rap = Hip-Hop\n")
    assert words["rock"] == ("Rock", "Alternative") and words["hiphop"] == ("Rap = Hip-Hop",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rock = Rock\nshoegaze = Indie", "line 2: there is no genre 'shoegaze'; there are blues, classical"),
        ("\nrock", "line 2: write `genre = Name`"),
        ("rock =", "line 1: rock has no name"),
        ("rock = ; ;", "line 1: rock has no name"),
        ("rock = A\nrock = B", "line 2: rock has a line already, line 1"),
        ("rock = A\x00B", "line 1: 'A\\x00B' has characters that cannot be shown"),
        ("rock = A\u2028B", "line 1: 'A\\u2028B' has characters that cannot be shown"),
        (f"rock = {'x' * 101}", "line 1: a name has 101 characters"),
        ("rock = " + ";".join(map(str, range(17))), "line 1: rock has 17 names"),
    ],
)
def test_a_wrong_line_of_a_genre_map_is_named_with_its_number(text: str, said: str) -> None:
    with pytest.raises(GenreMapError) as error:
        genre_words(text)
    assert said in str(error.value)
