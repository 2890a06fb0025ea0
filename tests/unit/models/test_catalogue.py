"""The models that are installed: how they are found, waited for, and kept in memory."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.audio.spec import LOG_MEL96, MFCC13, MFCC40, FeatureSpec
from shared.contracts.errors import ErrorCode, HeldError, TonestreamError
from shared.contracts.labels import GENRES
from shared.contracts.messages import AnswerKey
from shared.models.answer_key import AnswerKeys, source_work
from shared.models.catalogue import Catalogue
from shared.models.loaded import LoadedModels
from shared.models.manifest import MANIFEST, ModelError, ModelManifest, load_manifest, write_manifest
from shared.settings import Settings

WAIT_S = 600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def install(models: Path, name: str, spec: FeatureSpec = MFCC40) -> str:
    """A genre model with next to no weights; its model ID."""
    (models / name).mkdir(parents=True)
    (models / name / "w.bin").write_bytes(name.encode())
    fields = {"kind": "genre", "labels": GENRES, "feature_spec": spec, "temperature": 1.0, "weights": "w.bin"}
    return write_manifest(models / name, name, **fields, versions={}, command="", figures={}).model_id


def answer_key(spec: FeatureSpec, genre_model: str = "newer-123") -> AnswerKey:
    return AnswerKey(
        feature_spec=spec.id, genre_model=genre_model, mood_model="m", tag_model="t", vote="soft", answer_version=2
    )


def test_a_model_is_found_by_its_id_and_by_its_folder_and_only_as_what_it_is(tmp_path: Path) -> None:
    model_id = install(tmp_path, "mine")
    catalogue = Catalogue(tmp_path)
    for name in ("mine", model_id):
        found = catalogue.find("genre", name)
        assert found is not None and found.folder == tmp_path / "mine" and found.manifest.model_id == model_id
    assert catalogue.find("genre", "mine-0123") is None
    assert catalogue.find("mood", "mine") is None
    assert [model.folder.name for model in Catalogue(Settings().models_dir).installed("genre")] == [
        "mfcc-lstm",
        "musicnn-lstm",
    ]


def test_a_model_outside_the_folder_is_found_where_a_setting_names_it_and_one_inside_it_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "models", "inside")
    outside = install(tmp_path / "elsewhere", "outside")
    monkeypatch.chdir(tmp_path)
    configured = [str(tmp_path / "models" / "inside"), "inside", "../elsewhere/outside"]
    catalogue = Catalogue(Path("models"), configured)
    assert [model.folder.name for model in catalogue.installed("genre")] == ["inside", "outside"]
    found = catalogue.find("genre", outside)
    assert found is not None and Catalogue(Path("models")).configured("genre", str(found.folder)) == found


def test_a_damaged_or_foreign_folder_is_named_in_the_log_and_left_out_unless_a_setting_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = install(tmp_path, "good")
    install(tmp_path, "damaged")
    (tmp_path / "damaged" / "w.bin").write_bytes(b"other weights")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / MANIFEST).write_text('{"kind": "genre", "a field of the future": 1}')
    with caplog.at_level(logging.WARNING):
        catalogue = Catalogue(tmp_path)
    assert [model.manifest.model_id for model in catalogue.installed("genre")] == [good]
    assert all(name in caplog.text for name in ("damaged", "foreign", "newer")) and "good" not in caplog.text
    with pytest.raises(ModelError, match="is damaged"):
        catalogue.configured("genre", "damaged")
    with pytest.raises(ModelError, match="a genre model, where a mood one belongs"):
        catalogue.configured("mood", "good")


def test_a_model_that_is_installed_later_is_found_and_a_copy_that_was_not_finished_then_too(tmp_path: Path) -> None:
    clock = Clock()
    install(tmp_path, "old")
    catalogue = Catalogue(tmp_path, wait_s=WAIT_S, clock=clock)
    assert catalogue.find("genre", "new") is None
    model_id = install(tmp_path, "new")
    (tmp_path / "new" / "w.bin").rename(tmp_path / "w.bin")
    clock.now += 10
    with pytest.raises(HeldError):
        catalogue.require("genre", model_id)
    (tmp_path / "w.bin").rename(tmp_path / "new" / "w.bin")
    clock.now += 10
    assert catalogue.require("genre", model_id).folder.name == "new"


def test_a_missing_model_is_waited_for_once_and_then_its_tracks_fail_and_say_what_to_do(tmp_path: Path) -> None:
    clock = Clock()
    catalogue = Catalogue(tmp_path, wait_s=WAIT_S, clock=clock)
    for now in (0.0, WAIT_S / 2, WAIT_S - 1):
        clock.now = 1000.0 + now
        with pytest.raises(HeldError, match="the genre model newer-123 is not installed in this service"):
            catalogue.require("genre", "newer-123")
    clock.now = 1000.0 + WAIT_S
    for _ in range(3):  # and nobody waits for it again
        with pytest.raises(TonestreamError) as refused:
            catalogue.require("genre", "newer-123")
        assert refused.value.code is ErrorCode.INTERNAL
        assert "newer-123" in str(refused.value) and "Upgrade the service" in str(refused.value)
    with pytest.raises(HeldError):  # another model has its own time
        catalogue.require("genre", "newest-456")


def test_features_are_made_for_a_model_that_is_missing_where_another_one_takes_the_same(tmp_path: Path) -> None:
    install(tmp_path, "old", LOG_MEL96)
    catalogue = Catalogue(tmp_path, wait_s=WAIT_S)
    assert catalogue.require_spec(answer_key(LOG_MEL96)) == LOG_MEL96
    with pytest.raises(HeldError, match="newer-123"):
        catalogue.require_spec(answer_key(MFCC13))


def test_two_models_are_two_pieces_of_work_for_the_same_source_and_the_same_one_is_one() -> None:
    one, same, other = answer_key(MFCC40, "a"), answer_key(MFCC40, "a"), answer_key(MFCC40, "b")
    assert source_work(one, "url:1") == source_work(same, "url:1")
    assert len({source_work(one, "url:1"), source_work(other, "url:1"), source_work(one, "url:2")}) == 3


def test_the_answer_key_of_another_model_differs_in_what_belongs_to_the_model() -> None:
    settings = Settings()
    catalogue = Catalogue.of(settings)
    answer_keys = AnswerKeys(settings, catalogue)
    cheap = catalogue.find("genre", "mfcc-lstm")
    assert cheap is not None
    other = answer_keys.by(cheap.manifest)
    changed = {name for name in AnswerKey.model_fields if getattr(other, name) != getattr(answer_keys.own, name)}
    assert changed == {"feature_spec", "genre_model", "max_segments"}
    assert answer_keys.by(load_manifest(settings.models_dir / settings.genre_model)) == answer_keys.own


# In memory


@dataclass(frozen=True)
class Network:
    manifest: ModelManifest


class Loader:
    """Notes what it loads, in order."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, folder: Path) -> Network:
        time.sleep(0.01)
        self.loaded.append(folder.name)
        return Network(load_manifest(folder))


def test_the_model_least_recently_used_goes_and_the_configured_one_stays(tmp_path: Path) -> None:
    ids = {name: install(tmp_path, name) for name in ("own", "a", "b", "c")}
    loader = Loader()
    models = LoadedModels(Catalogue(tmp_path), "genre", loader, "own", most_guests=2)
    assert loader.loaded == ["own"]
    for name in ("a", "b", "a", "own", "c", "a", "own", "b", "own"):
        assert models.get(ids[name]).manifest.model_id == ids[name]
    # b went for c: a had been used since. c went for b.
    assert loader.loaded == ["own", "a", "b", "c", "b"]


def test_many_threads_that_ask_for_a_model_at_once_load_it_once(tmp_path: Path) -> None:
    install(tmp_path, "own")
    model_id = install(tmp_path, "a")
    loader = Loader()
    models = LoadedModels(Catalogue(tmp_path), "genre", loader, "own")
    threads = [threading.Thread(target=models.get, args=(model_id,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert loader.loaded == ["own", "a"]


def test_a_model_that_cannot_be_loaded_counts_as_missing_and_is_not_tried_again(tmp_path: Path) -> None:
    install(tmp_path, "own")
    model_id = install(tmp_path, "broken")
    tries: list[str] = []

    def load(folder: Path) -> Network:
        tries.append(folder.name)
        if folder.name == "broken":
            raise ModelError("no network in there")
        return Network(load_manifest(folder))

    clock = Clock()
    models = LoadedModels(Catalogue(tmp_path, wait_s=WAIT_S, clock=clock), "genre", load, "own")
    for _ in range(2):
        with pytest.raises(HeldError, match=model_id):
            models.get(model_id)
    clock.now += WAIT_S
    with pytest.raises(TonestreamError, match=model_id):
        models.get(model_id)
    assert tries == ["own", "broken"]


def test_a_folder_whose_model_was_replaced_does_not_answer_in_the_old_ones_name(tmp_path: Path) -> None:
    install(tmp_path, "own")
    model_id = install(tmp_path, "mine")
    models = LoadedModels(Catalogue(tmp_path), "genre", Loader(), "own")
    (tmp_path / "mine").rename(tmp_path / ".retired")
    install(tmp_path, "mine", MFCC13)
    with pytest.raises(TonestreamError, match=model_id):
        models.get(model_id)
