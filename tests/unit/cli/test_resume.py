"""A run that was interrupted goes on where it ended: what is done is not heard again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.quick_run import QuickRun, songs

Captured = pytest.CaptureFixture[str]


def test_after_an_interruption_only_the_rest_is_heard_and_the_output_is_whole(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    songs(tmp_path / "music", "a.mp3", "b.mp3", "c interrupt.mp3", "d.mp3")
    options = ("classify", "--library", tmp_path / "library", "--json", tmp_path / "music")
    assert tonestream(*options) == 130
    assert tonestream.heard == ["a.mp3", "b.mp3", "c interrupt.mp3"]
    (tmp_path / "music" / "c interrupt.mp3").rename(tmp_path / "music" / "c.mp3")
    tonestream.heard.clear()
    capsys.readouterr()
    assert tonestream(*options) == 0
    assert tonestream.heard == ["c.mp3", "d.mp3"]
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(one["track"]["source"]).name, one["cached"]) for one in results] == [
        ("a.mp3", True), ("b.mp3", True), ("c.mp3", False), ("d.mp3", False),
    ]  # fmt: skip
    assert len({one["request_id"] for one in results}) == 4


def test_moved_and_copied_files_are_known_under_their_new_names(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    (song,) = songs(tmp_path / "music", "a.mp3")
    options = ("classify", "--library", tmp_path / "library", tmp_path / "music")
    tonestream(*options)
    shutil.copy(song, tmp_path / "music" / "copy.mp3")
    song.rename(tmp_path / "music" / "moved.mp3")
    tonestream.heard.clear()
    capsys.readouterr()
    assert tonestream(*options) == 0
    out = capsys.readouterr().out
    assert tonestream.heard == [] and "copy.mp3" in out and "moved.mp3" in out


def test_what_may_heal_is_tried_again_and_what_fails_for_good_only_on_request(
    tonestream: QuickRun, tmp_path: Path
) -> None:
    songs(tmp_path / "music", "bad.mp3", "busy.mp3", "good.mp3")
    options = ("classify", "--library", tmp_path / "library", tmp_path / "music")
    assert tonestream(*options) == 1
    tonestream.heard.clear()
    assert tonestream(*options) == 1
    assert tonestream.heard == ["busy.mp3"]
    tonestream.heard.clear()
    assert tonestream(*options, "--retry-failed") == 1
    assert tonestream.heard == ["bad.mp3", "busy.mp3"]


def test_another_model_hears_everything_anew(tonestream: QuickRun, tmp_path: Path) -> None:
    songs(tmp_path / "music", "a.mp3")
    options = ("classify", "--library", tmp_path / "library", tmp_path / "music")
    tonestream(*options)
    tonestream(*options, "--model", "mfcc-lstm")
    assert tonestream.heard == ["a.mp3", "a.mp3"]


def test_without_the_option_nothing_is_kept(
    tonestream: QuickRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    songs(tmp_path / "music", "a.mp3")
    tonestream("classify", tmp_path / "music")
    assert not (tmp_path / "data").exists()
    tonestream("classify", tmp_path / "music", "--resume")
    assert (tmp_path / "data" / "tonestream" / "classified.sqlite").is_file()


def test_a_store_that_cannot_be_used_is_one_sentence(tonestream: QuickRun, tmp_path: Path, capsys: Captured) -> None:
    songs(tmp_path, "a.mp3")
    (tmp_path / "library").write_bytes(b"no database" * 1000)
    assert tonestream("classify", "--library", tmp_path / "library", tmp_path / "a.mp3") == 1
    err = capsys.readouterr().err
    assert (
        err.startswith(f"tonestream: {tmp_path}/library cannot be opened: file is not a database")
        and err.count("\n") == 1
    )
