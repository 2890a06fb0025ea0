"""Pictures of tracks: every result that has an answer can be drawn, whatever its title, without a word on standard
error."""

from __future__ import annotations

import builtins
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest

from services.cli.answer import Answer
from services.cli.pictures import file_name
from services.cli.pictures.drawing import png
from shared.contracts.messages import Silence, TrackResult
from tests.support.quick_run import QuickRun, songs
from tests.support.rows import failed_result, ok_result

PARTIAL = ok_result().model_copy(update={"mood": None, "audio_features": None, "tags": (), "content": None})


def without_segments(result: TrackResult) -> TrackResult:
    assert result.genre is not None and result.mood is not None
    genre = result.genre.model_copy(update={"segments": (), "fit": None, "uncertain": True})
    return result.model_copy(update={"genre": genre, "mood": result.mood.model_copy(update={"segments": ()})})


def with_gaps(result: TrackResult) -> TrackResult:
    """Half of the track was not heard, and a part of that is silent."""
    silences = (Silence(start_s=60.0, end_s=75.0),)
    track = result.track.model_copy(update={"duration_s": 120.0, "silences": silences})
    return result.model_copy(update={"track": track})


@pytest.mark.parametrize(
    "result",
    [
        ok_result(title="夜曲 · ночь · ليل · $x_1^2$ \x1b[31m\n" * 5),
        ok_result(title=None, artist=None),
        PARTIAL,
        without_segments(ok_result()),
        ok_result().model_copy(update={"track": ok_result().track.model_copy(update={"duration_s": 3 * 3600.0})}),
        with_gaps(ok_result()),
    ],
    ids=["any script", "no names", "no mood", "no segments", "three hours", "gaps"],
)
def test_a_track_is_drawn_without_a_warning(result: TrackResult, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = png(Answer.of(result, 0.0, "/music/song.mp3"))
    assert picture.startswith(b"\x89PNG") and struct.unpack(">II", picture[16:24]) == (1320, 880)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("a/b/So$ng: no 1?.mp3", "So_ng_ no 1_-"),
        ("....", "track-"),
        ("/x/" + "長" * 200 + ".mp3", "長" * 40 + "-"),
        ("🎵.mp3", "_-"),
    ],
)
def test_the_name_of_a_picture_can_be_that_of_a_file(source: str, start: str) -> None:
    answer = Answer.of(ok_result(source=source), 0.0, source, Path(source))
    name = file_name(answer)
    assert name.startswith(start) and name.endswith(".png") and len(name.encode()) < 200
    assert name != file_name(Answer.of(ok_result(source=source), 0.0, source, Path(f"/elsewhere/{source}")))


def test_each_track_that_did_not_fail_has_a_picture_and_a_second_run_replaces_it(
    tonestream: QuickRun, tmp_path: Path
) -> None:
    songs(tmp_path / "music", "a.mp3", "rock.mp3", "bad.mp3")
    for _ in range(2):
        tonestream("classify", "--plot", tmp_path / "pictures", "--where", "genre == jazz", tmp_path / "music")
        (picture,) = (tmp_path / "pictures").iterdir()
        assert picture.name.startswith("a-")


def test_a_failed_track_has_none(tmp_path: Path) -> None:
    from services.cli.pictures import Pictures

    Pictures(tmp_path).add(Answer.of(failed_result(), 0.0, "x"))
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_message_says_what_to_install(
    tonestream: QuickRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    songs(tmp_path, "a.mp3")
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        fromlist = arguments[2] if len(arguments) > 2 else ()
        if name == "services.cli.pictures" and fromlist and "drawing" in fromlist:
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert tonestream("classify", "--plot", tmp_path / "pictures", tmp_path / "a.mp3") == 1
    assert 'pip install "tonestream[plot]"' in capsys.readouterr().err
    assert tonestream.heard == []
