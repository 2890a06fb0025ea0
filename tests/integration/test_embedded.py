"""The command line as a person uses it, in one process and on real music: files, folders, URLs, and what is broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import TrackResult
from tests.support.web_server import WebServer

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
ONE, OTHER, THIRD, *_ = sorted(SAMPLES.glob("*.mp3"))


def tonestream(*arguments: str, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{f"TONESTREAM_{name.upper()}": value for name, value in settings.items()}}
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The results by source; every line of standard output is one."""
    results = [TrackResult.model_validate_json(line) for line in done.stdout.splitlines()]
    return {result.track.source: result.model_dump(mode="json") for result in results}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A music library with what libraries hold."""
    root = tmp_path_factory.mktemp("library")
    (root / "albums" / "first").mkdir(parents=True)
    (root / ".hidden").mkdir()
    shutil.copy(ONE, root / "albums" / "first" / "01 – söng.mp3")
    shutil.copy(OTHER, root / "-dash.mp3")
    shutil.copy(THIRD, root / ".hidden" / "song.mp3")
    (root / "broken.mp3").write_bytes(b"\xff\xfb\x90\x00" + b"\x00" * 5000)
    (root / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "notes.txt").write_text("not music")
    (root / ".DS_Store").touch()
    (root / "to nowhere").symlink_to("nowhere")
    return root


def test_a_folder_is_classified_recursively_and_a_broken_file_does_not_stop_the_rest(folder: Path) -> None:
    done = tonestream("classify", "--json", str(folder))
    assert done.returncode == 1, done.stderr
    results = lines(done)
    assert set(results) == {
        str(folder / "albums" / "first" / "01 – söng.mp3"),
        str(folder / "-dash.mp3"),
        str(folder / "broken.mp3"),
        str(folder / ".hidden" / "song.mp3"),
        str(folder / "to nowhere"),
    }
    nowhere = results.pop(str(folder / "to nowhere"))["errors"][0]
    assert nowhere["code"] == "fetch_failed" and "a link to something that is not there" in nowhere["message"]
    assert "tonestream: left out: 2 files that are not music (1 .jpg, 1 .txt), 1 system file" in done.stderr
    broken = results.pop(str(folder / "broken.mp3"))
    assert (broken["status"], broken["errors"][0]["code"]) == ("failed", "corrupt_audio")
    for result in results.values():
        assert result["status"] == "ok"
        assert result["genre"]["label"] in GENRES and result["mood"]["label"] in MOODS
        assert set(result["timings_ms"]) >= {"ingestion", "feature-extraction", "genre-worker", "mood-worker", "total"}
        assert result["track"]["artist"] in {"0zone0ne", "Martin Gerhardy", "Unknown Horizons Team"}
    assert "Traceback" not in done.stderr


def test_all_well_is_status_0_with_a_table_for_people() -> None:
    done = tonestream("classify", str(ONE))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "genre" in done.stdout and ONE.name in done.stdout and "ok" in done.stdout


def test_the_same_audio_gives_the_same_answer_in_another_run() -> None:
    first, second = (tonestream("classify", "--json", str(ONE), *model) for model in ([], ["--model", "musicnn-lstm"]))
    (one,), (other,) = lines(first).values(), lines(second).values()
    for half in ("genre", "mood"):
        assert one[half] == other[half]


def test_the_model_may_be_chosen_for_one_run_and_a_local_file_is_no_download() -> None:
    done = tonestream("classify", "--json", "--model", "mfcc-lstm", str(ONE), fetch_max_bytes="1000")
    (result,) = lines(done).values()
    assert result["status"] == "ok" and result["genre"]["model"].startswith("mfcc-lstm-")


@pytest.mark.skipif(sys.platform != "linux", reason="where files cannot be written is another folder elsewhere")
def test_without_a_folder_for_compiled_functions_everything_works() -> None:
    """A read-only install and no home: numba refuses to be imported with librosa."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/proc/nowhere"}
    script = "from shared.audio.segment_features.mel_filters import mel_basis; print(mel_basis(22050, 2048, 40).shape)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1025, 40)\n", "")


def test_urls_files_that_do_not_exist_and_spotify_ids_are_each_answered_in_their_way(tmp_path: Path) -> None:
    with WebServer() as web:
        web.add("/song.mp3", ONE.read_bytes(), headers={"Content-Type": "audio/mpeg"})
        done = tonestream(
            "classify", "--json", web.url("/song.mp3"), web.url("/gone.mp3"), "nowhere.mp3", "4uLU6hMCjMI75M1A2tKUQC",
            "spotify:album:4uLU6hMCjMI75M1A2tKUQC", "http://[", "x" * 5000, cwd=tmp_path, fetch_allow="127.0.0.1",
        )  # fmt: skip
        results = lines(done)
        codes = {source: [error["code"] for error in result["errors"]] for source, result in results.items()}
        assert codes == {
            web.url("/song.mp3"): [],
            web.url("/gone.mp3"): ["fetch_failed"],
            "nowhere.mp3": ["invalid_request"],
            "4uLU6hMCjMI75M1A2tKUQC": ["spotify_unavailable"],
            "spotify:album:4uLU6hMCjMI75M1A2tKUQC": ["invalid_request"],
            "http://[": ["invalid_request"],
            "x" * 5000: ["invalid_request"],
        }
    assert done.returncode == 1


def test_a_url_of_this_machine_is_refused_unless_allowed() -> None:
    with WebServer() as web:
        web.add("/song.mp3", ONE.read_bytes())
        (result,) = lines(tonestream("classify", "--json", web.url("/song.mp3"))).values()
        assert result["errors"][0]["code"] == "fetch_forbidden"
        assert web.requests == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["classify"], "required"),
        (["worker", "no-such-service"], "invalid choice"),
        (["classify", "EMPTY"], "no audio files in"),
        (["submit", "song.mp3"], "there is no such file"),
        (["submit", str(ONE)], "is no URL and no Spotify track"),
        (["classify", "--model", "resnet", str(ONE)], "there is no genre model 'resnet'; there are mfcc-lstm (mfcc"),
    ],
)
def test_wrong_usage_is_status_2_with_a_word_of_help(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "EMPTY").mkdir()
    done = tonestream(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_and_a_missing_broker_or_model_is_said_in_a_line() -> None:
    wrong = tonestream("version", vote="loudest")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "vote" in wrong.stderr
    port = tonestream("classify", str(ONE), fetch_allow="localhost:99999")
    assert port.returncode == 2 and "fetch_allow: 'localhost:99999' has no valid port" in port.stderr
    missing = tonestream("classify", str(ONE), genre_model="nothing-here")
    assert missing.returncode == 1 and "nothing-here" in missing.stderr and "Traceback" not in missing.stderr
    dead = tonestream("submit", "https://example.org/a.mp3", kafka_bootstrap_servers="127.0.0.1:1")
    assert dead.returncode == 1 and "Traceback" not in dead.stderr and "127.0.0.1:1" in dead.stderr


def test_the_version_names_the_models() -> None:
    told = json.loads(tonestream("version").stdout)
    assert set(told["models"]) == {"genre", "mood"}
