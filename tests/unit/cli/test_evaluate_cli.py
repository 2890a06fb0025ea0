"""``tonestream train genre`` and ``tonestream evaluate genre`` as they are typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from services.cli.commands.evaluate import leak_warning
from services.cli.main import main
from services.cli.status import FAILED, OK, WRONG_USAGE
from shared.models.manifest import load_manifest
from tests.unit.training.test_genre_training import TinyProtocol, write_clips
from training.data.variations import VARIATIONS
from training.genre import training
from training.genre.protocol import PROTOCOLS
from training.reports.figures import ClipLeak


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("data") / "clips", artists=2, length_s=3.2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs share the features of the clips: a run of ffmpeg each."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def tiny_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    use_tiny_recipe(monkeypatch, tmp_path, cache)


def use_tiny_recipe(patch: pytest.MonkeyPatch, folder: Path, cache: Path) -> None:
    """Work in ``folder``, where the default folder of features is ``cache``."""
    patch.setitem(PROTOCOLS, "tiny", TinyProtocol)
    patch.setattr(training, "VARIATIONS", VARIATIONS[:1])
    patch.chdir(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "features").symlink_to(cache)


@pytest.fixture(scope="module")
def model(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-genre"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_recipe(patch, folder.parent, cache)
        arguments = ["--data", clips, "--model", "tiny", "--out", folder, "--folds", "2", "--threads", "1"]
        assert main(["train", "genre", *map(str, arguments)]) == OK
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["evaluate", "genre", *map(str, arguments), "--threads", "1"])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_manifest_holds_the_command_to_type_again(model: Path, clips: Path) -> None:
    manifest = load_manifest(model)
    expected = f"tonestream train genre --data {clips} --model tiny --out {model} --folds 2 --seed 1"
    assert manifest.command == expected
    assert expected in (model / "CARD.md").read_text(encoding="utf-8")


def test_a_model_folder_on_clips_it_knows_warns_loudly(
    model: Path, clips: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "report"
    status, out, err = evaluated(capsys, "--data", clips, "--model", model, "--report", report)
    assert status == OK
    assert "WARNING: LEAK. The model was trained on 20 of these 20 clips" in out
    assert "accuracy, tracks" in out
    assert err == ""
    assert {file.name for file in report.iterdir()} == {
        "REPORT.md", "figures.json", "confusion.png", "reliability.png",
    }  # fmt: skip
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in report.glob("*.png"))
    assert (report / "REPORT.md").read_text(encoding="utf-8").strip() == out.strip()


def test_json_is_one_object_with_every_figure(model: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = evaluated(capsys, "--data", clips, "--model", model, "--json")
    found: dict[str, Any] = json.loads(out)
    assert status == OK
    assert found["model"] == load_manifest(model).model_id
    assert found["cross_validated"] is False
    assert found["leak"] == {"clips": 20, "of": 20}
    assert {"track_accuracy", "segment_accuracy", "confusion", "recall", "uncertain", "temperature"} <= set(found)


@pytest.mark.parametrize("by", ["name", "folder"])
def test_cross_validation_trains_the_recipe_of_that_name_or_folder_afresh(
    by: str, model: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = "tiny" if by == "name" else model
    status, out, _ = evaluated(capsys, "--data", clips, "--model", given, "--cross-validate", "--folds", "2", "--json")
    found = json.loads(out)
    assert status == OK
    assert (found["model"], found["cross_validated"]) == ("tiny", True)
    assert found["leak"]["clips"] == 0
    assert found["leaky"]["test_segments"] == 4


def test_the_model_that_serves_is_the_default_and_models_go_by_their_name(
    model: Path, clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONESTREAM_MODELS_DIR", str(model.parent))
    monkeypatch.setenv("TONESTREAM_GENRE_MODEL", model.name)
    default, named = (
        json.loads(evaluated(capsys, "--data", clips, "--json", *given)[1]) for given in ((), ("--model", model.name))
    )
    assert default == named
    assert default["model"] == load_manifest(model).model_id


def test_a_corrupt_file_is_a_warning(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_clips(tmp_path / "clips", artists=1, length_s=3.2)
    (folder / "jazz" / "jazz.0.wav").write_bytes(b"RIFF....what is this")
    status, out, err = evaluated(capsys, "--data", folder, "--model", model, "--json")
    assert status == OK
    assert json.loads(out)["clips"] == 9
    assert "tonestream: WARNING: files left out, because they cannot be used: 1: jazz/jazz.0.wav (" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data", "nowhere"), "no folder nowhere"),
        (("--data", "empty"), "no clips in empty"),
        (("--data", "techno"), "techno"),
        (("--data", "empty", "--model", "no-such"), "no model folder no-such"),
        (("--data", "one", "--model", "tiny", "--cross-validate"), "two groups of each label"),
        (("--data", "one", "--model", "tiny", "--cross-validate", "--split", "fault-filtered"), "the full GTZAN"),
        (("--data", "one", "--threads", "0"), "--threads"),
    ],
)
def test_what_is_wrong_with_the_data_is_said_in_one_line(
    arguments: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "techno" / "techno").mkdir(parents=True)
    (tmp_path / "techno" / "techno" / "a.wav").touch()
    write_clips(tmp_path / "one", artists=1, length_s=3.2)
    assert main(["evaluate", "genre", *arguments]) == WRONG_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1


def test_a_recipe_that_is_none_is_refused(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "genre", "--data", str(clips), "--model", "vgg", "--out", "out"]) == WRONG_USAGE
    assert "choose from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_what_to_install(
    clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "services.cli.training_tools.find_spec", lambda name: None if name == "matplotlib" else sys.modules
    )
    assert main(["evaluate", "genre", "--data", str(clips)]) == FAILED
    err = capsys.readouterr().err
    assert "matplotlib" in err
    assert "tonestream[training]" in err


def test_a_leak_is_told_from_clips_that_are_new_and_from_what_nobody_knows() -> None:
    assert leak_warning(ClipLeak(clips=0, of=9)) is None
    assert "LEAK" in str(leak_warning(ClipLeak(clips=1, of=9)))
    assert "does not say" in str(leak_warning(ClipLeak(clips=None, of=9)))
