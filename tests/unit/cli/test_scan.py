"""From what was typed to what is tried: nothing that may be music is passed over, nothing is passed over in silence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.cli.inputs import Input, expand
from services.cli.scan import LeftOut
from tests.support.samples import SAMPLE

#: By name: all that ffmpeg reads of them is music when it is named, so it is music when it is found.
MUSIC = [
    "book.m4b",
    "ring.m4r",
    "a.aifc",
    "m.mp2",
    "f.mov",
    "x.wave",
    "v.mkv",
    "w.wv",
    "t.tta",
    "s.w64",
    "c.caf",
    "A.MP3",
]
NOT_MUSIC = ["cover.jpg", "notes.txt", "album.cue", "list.m3u8", "Folder.JPG"]


def found(*arguments: str) -> tuple[list[Input], LeftOut]:
    left_out = LeftOut()
    return list(expand(arguments, left_out)), left_out


def given(inputs: Sequence[Input]) -> list[str]:
    assert all(one.kind == "file" for one in inputs)
    return [one.given for one in inputs]


def test_names_that_begin_with_dots_are_names(tmp_path: Path) -> None:
    names = ["...And Justice for All/01.mp3", "ok/...Baby.mp3", ".38 Special/.5.mp3"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inputs, left_out = found(str(tmp_path))
    assert sorted(given(inputs)) == sorted(str(tmp_path / name) for name in names)
    assert str(left_out) == ""


def test_whatever_is_called_like_music_is_tried_and_what_is_not_is_counted(tmp_path: Path) -> None:
    for name in MUSIC + NOT_MUSIC:
        (tmp_path / name).touch()
    inputs, left_out = found(str(tmp_path))
    assert given(inputs) == [str(tmp_path / name) for name in sorted(MUSIC)]
    assert str(left_out) == "left out: 5 files that are not music (2 .jpg, 1 .cue, 1 .m3u8, 1 .txt)"


def test_a_file_of_another_name_is_judged_by_its_bytes(tmp_path: Path) -> None:
    for name in ("track01", "song.mp3.bak", "song.mp3 "):
        shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "README").write_text("words")
    (tmp_path / "data.xyz").write_bytes(b"\x00" * 1000)
    (tmp_path / "empty").touch()
    inputs, left_out = found(str(tmp_path))
    assert given(inputs) == [str(tmp_path / name) for name in ("song.mp3 ", "song.mp3.bak", "track01")]
    assert left_out.not_music == {"": 2, ".xyz": 1}
    assert "2 without a suffix, 1 .xyz" in str(left_out)


def test_what_systems_put_beside_music_is_counted(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    (tmp_path / "._song.mp3").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    shutil.copy(SAMPLE, tmp_path / "._a song of that name.mp3")
    for name in ("@eaDir", ".Trash-1000", "__MACOSX"):
        (tmp_path / name).mkdir()
        shutil.copy(SAMPLE, tmp_path / name / "song.mp3")
    inputs, left_out = found(str(tmp_path))
    assert given(inputs) == [str(tmp_path / "._a song of that name.mp3")]
    assert left_out.system.total() == 7 and left_out.system["._*"] == 1
    assert str(left_out).startswith("left out: 7 system files and folders (")
    assert given(found(str(tmp_path / ".Trash-1000"))[0]), "a folder that was named is searched, whatever it is called"


def test_a_pipe_or_a_device_without_a_name_of_music_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "song.mp3")
    inputs, left_out = found(str(tmp_path))
    assert given(inputs) == [str(tmp_path / "song.mp3")] and left_out.not_music.total() == 1


def test_what_cannot_be_read_is_an_input_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "to nowhere").symlink_to("/nowhere/at/all")
    (tmp_path / "circle.mp3").symlink_to("circle.mp3")
    shutil.copy(SAMPLE, tmp_path / "song.mp3")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs, left_out = found(str(tmp_path))
    faults = {Path(one.given).name: one.fault for one in inputs}
    assert faults == {
        "circle.mp3": "the file cannot be read: Too many levels of symbolic links",
        "song.mp3": None,
        "to nowhere": "the file cannot be read: it is a link to something that is not there",
        "locked": "the folder cannot be read: Permission denied",
    }
    assert str(left_out) == ""
    (alone,), left_out = found(str(tmp_path / "locked"))
    assert alone.fault == "the folder cannot be read: Permission denied" and left_out.empty == []


def test_a_file_in_a_locked_folder_that_is_named_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> Any:
        if path.name == "song.mp3":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    (one,), _ = found(str(tmp_path / "song.mp3"))
    assert (one.kind, one.fault) == ("file", "it cannot be read: Permission denied")


def test_a_folder_behind_a_link_is_searched_once_and_no_circle_is_followed(tmp_path: Path) -> None:
    music = tmp_path / "music"
    (music / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for place in (music, music / "sub", tmp_path / "elsewhere"):
        (place / "song.mp3").touch()
    (music / "link").symlink_to(tmp_path / "elsewhere")
    (music / "again").symlink_to(tmp_path / "elsewhere")
    (music / "sub" / "circle").symlink_to("..")
    (music / "sub" / "root").symlink_to("/")
    inputs, left_out = found(str(music))
    assert given(inputs) == [str(music / name) for name in ("song.mp3", "again/song.mp3", "sub/song.mp3")]
    assert str(left_out) == "left out: 3 links to folders that are searched anyway"


def test_a_tilde_is_a_home_only_where_there_is_such_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "Music").mkdir(parents=True)
    (home / "Music" / "song.mp3").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for name in ("~Demo.mp3", "~"):
        Path(name).touch()
    inputs, _ = found("~Demo.mp3", "~", "~/Music", "~nobody-of-that-name/x.mp3")
    assert [(one.kind, one.given) for one in inputs] == [
        ("file", "~Demo.mp3"),
        ("file", "~"),
        ("file", str(home / "Music" / "song.mp3")),
        ("unknown", "~nobody-of-that-name/x.mp3"),
    ]


def test_folders_without_music_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.txt").touch()
    inputs, left_out = found(str(tmp_path / "empty"), str(tmp_path / "words"))
    assert inputs == [] and left_out.empty == [str(tmp_path / "empty"), str(tmp_path / "words")]
    assert str(left_out) == "left out: 1 file that is not music (1 .txt)"


def test_what_is_no_path_may_be_a_url_or_a_spotify_track_or_nothing(tmp_path: Path) -> None:
    long = "https://example.org/" + "x" * 6000
    inputs, _ = found("https://example.org/a.mp3", long, "4uLU6hMCjMI75M1A2tKUQC", "nothing", "a\0b", "")
    assert [one.kind for one in inputs] == ["url", "url", "spotify", "unknown", "unknown", "unknown"]
    assert all(one.fault is None for one in inputs)
