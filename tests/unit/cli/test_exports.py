"""classify for other programs: the format, the filter, and a file that is whole or not there."""

from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import pytest

from shared.contracts.messages import TrackResult
from tests.support.quick_run import QuickRun, songs

Captured = pytest.CaptureFixture[str]


def test_json_is_a_whole_result_a_line_and_jsonl_a_flat_row(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    songs(tmp_path, "a.mp3")
    assert tonestream("classify", "--json", tmp_path) == 0
    by_name = capsys.readouterr().out
    assert TrackResult.model_validate_json(by_name).genre is not None
    assert tonestream("classify", "--format", "jsonl", tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["genre"] == "jazz"


def test_a_filter_selects_what_is_shown_and_the_summary_counts_the_rest(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    songs(tmp_path, "a.mp3", "rock.mp3", "bad.mp3")
    assert tonestream("classify", "--where", "genre == rock", tmp_path) == 1  # one track failed, shown or not
    out = capsys.readouterr().out
    assert "rock.mp3" in out and "a.mp3" not in out and "bad.mp3" not in out
    assert out.endswith("2 of 3 tracks ok\n1 shown, 2 left out by --where\n")


def test_beside_an_export_the_count_of_what_is_left_out_goes_to_standard_error(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    songs(tmp_path, "a.mp3", "rock.mp3")
    assert tonestream("classify", "--where", "genre == rock", "--format", "csv", tmp_path) == 0
    out, err = capsys.readouterr()
    assert [row["source"] for row in csv.DictReader(out.splitlines())] == [str(tmp_path / "rock.mp3")]
    assert err == "tonestream: 1 shown, 1 left out by --where\n"


def test_a_mistake_in_a_filter_is_shown_with_its_place_before_anything_is_done(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    assert tonestream("classify", "--where", "mood == clm", tmp_path) == 2
    err = capsys.readouterr().err
    assert "did you mean calm?" in err and err.endswith("  mood == clm\n          ^\n")


def test_the_end_of_the_files_name_says_the_format_and_the_table_is_shown_all_the_same(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    songs(tmp_path / "music", "a.mp3", "bad.mp3")
    tonestream("classify", "--output", tmp_path / "list.m3u8", tmp_path / "music")
    assert (tmp_path / "list.m3u8").read_text() == "#EXTM3U\n#EXTINF:30,Band - a\nmusic/a.mp3\n"
    out = capsys.readouterr().out
    assert "jazz 73%" in out and "1 failed, and not in the playlist" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json", "--format", "csv"), "--json and --format csv contradict each other"),
        (("--output", "list.txt"), "which format has the output file?"),
        (("--output", "x.csv", "--format", "table"), "which format has the output file?"),
        (("--output", "nowhere/x.csv"), "nowhere/x.csv cannot be written: No such file or directory"),
        (("--retry-failed",), "--retry-failed goes with --resume or --library"),
        (("--plot", "a.mp3"), "a.mp3 cannot be made: File exists"),
    ],
)
def test_wishes_that_cannot_be_met_are_wrong_usage(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    songs(tmp_path, "a.mp3")
    assert tonestream("classify", "a.mp3", *arguments) == 2
    assert said in capsys.readouterr().err
    assert tonestream.heard == [] and [file.name for file in tmp_path.iterdir()] == ["a.mp3"]


def test_an_existing_file_stays_until_the_new_one_is_whole_and_keeps_its_mode(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    old = tmp_path / "list.csv"
    old.write_text("old")
    old.chmod(0o640)
    songs(tmp_path / "music", "a.mp3", "z interrupt.mp3")
    assert tonestream("classify", "--output", old, tmp_path / "music") == 130
    assert old.read_text() == "old"
    err = capsys.readouterr().err
    (part,) = tmp_path.glob(".list.csv.*.part")
    assert f"list.csv was not finished; what there is lies in {part}" in err
    assert "a.mp3" in part.read_text()
    (tmp_path / "music" / "z interrupt.mp3").unlink()
    assert tonestream("classify", "--output", old, tmp_path / "music") == 0
    assert "a.mp3" in old.read_text() and stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_new_file_is_readable_as_usual_and_a_link_stays_a_link(tonestream: QuickRun, tmp_path: Path) -> None:
    songs(tmp_path / "music", "a.mp3")
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to("real/list.csv")
    assert tonestream("classify", "--output", tmp_path / "link.csv", tmp_path / "music") == 0
    mask = os.umask(0)
    os.umask(mask)
    real = tmp_path / "real" / "list.csv"
    assert (tmp_path / "link.csv").is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o666 & ~mask


def test_a_full_disk_is_one_sentence_that_names_the_file(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    songs(tmp_path, "a.mp3")
    (tmp_path / "full.csv").symlink_to("/dev/full")
    assert tonestream("classify", "--output", tmp_path / "full.csv", tmp_path / "a.mp3") == 1
    assert capsys.readouterr().err == f"tonestream: {tmp_path}/full.csv cannot be written: No space left on device\n"


def test_many_tracks_end_with_a_summary_by_genre_mood_and_error(
    tonestream: QuickRun, tmp_path: Path, capsys: Captured
) -> None:
    songs(tmp_path, *(f"{number}.mp3" for number in range(9)), "rock.mp3", "bad.mp3", "busy.mp3")
    assert tonestream("classify", tmp_path) == 1
    end = capsys.readouterr().out.splitlines()[-5:]
    assert end[0] == "10 of 12 tracks ok" and "/s" in end[1]
    assert end[2:] == ["genre  jazz 9  rock 1", "mood   calm 10", "error  corrupt_audio 1  fetch_timeout 1"]


def test_a_run_that_ends_before_its_first_track_leaves_no_file(tonestream: QuickRun, tmp_path: Path) -> None:
    songs(tmp_path / "music", "a interrupt.mp3")
    assert tonestream("classify", "--output", tmp_path / "x.csv", tmp_path / "music") == 130
    assert [file.name for file in tmp_path.iterdir()] == ["music"]


def test_a_playlist_holds_no_password(tonestream: QuickRun, tmp_path: Path, capsys: Captured) -> None:
    tonestream("classify", "--format", "m3u8", "https://me:secret@example.org/a.mp3")
    assert "secret" not in "".join(capsys.readouterr())
