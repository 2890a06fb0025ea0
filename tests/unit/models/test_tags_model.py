"""The tag model: what ships is the published network, hears what it should, and comes from nowhere else."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.audio.spec import LOG_MEL96
from shared.audio.track_features.tag_scores import contrast, likely
from shared.models.heard_track import HeardTrack, hear_track
from shared.models.manifest import ModelError, load_manifest, write_manifest
from shared.models.networks import TagModel
from shared.settings import Settings
from tests.support.wav_files import wav_bytes
from training.musicnn import weights as musicnn_weights
from training.musicnn.weights import WeightsError, fetch_checkpoint

RATE = 22050


@pytest.fixture(scope="module")
def tag_model() -> TagModel:
    settings = Settings()
    return TagModel.load(settings.models_dir / "music-tags")


def pcm(seconds: float) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(round(seconds * RATE)) * 3000


def test_the_shipped_model_takes_log_mel_and_carries_its_licence() -> None:
    settings = Settings()
    manifest = load_manifest(settings.models_dir / "music-tags")
    assert manifest.kind == "tags" and manifest.require_feature_spec() == LOG_MEL96
    assert len(manifest.labels) == 50 and {"sad", "happy", "hip-hop"} <= set(manifest.labels)
    card = (settings.models_dir / "music-tags" / "CARD.md").read_text(encoding="utf-8")
    assert manifest.model_id in card and manifest.sha256 in card and "ISC" in card
    licence = (settings.models_dir / "MUSICNN-LICENSE.md").read_text(encoding="utf-8")
    assert "Jordi Pons" in licence and "Permission to use, copy, modify" in licence


def test_the_answer_for_a_segment_does_not_depend_on_the_others(tag_model: TagModel) -> None:
    batch = np.random.default_rng(1).uniform(0, 2, (3, 188, 96)).astype(np.float32)
    heard = tag_model.predict(batch)
    assert heard.embedding.shape == (3, 200) and heard.tags.shape == (3, 50)
    assert ((heard.tags > 0) & (heard.tags < 1)).all()
    assert heard.fit is None and heard.content is None
    alone = tag_model.predict(batch[1:2])
    np.testing.assert_allclose(alone.embedding[0], heard.embedding[1], atol=1e-4)
    np.testing.assert_allclose(alone.tags[0], heard.tags[1], atol=1e-5)


def test_features_of_another_shape_are_refused(tag_model: TagModel) -> None:
    with pytest.raises(ValueError, match=r"188, 96"):
        tag_model.predict(np.zeros((1, 130, 13), np.float32))


def test_a_model_of_another_kind_is_refused() -> None:
    settings = Settings()
    with pytest.raises(ModelError, match="without tags"):
        TagModel.load(settings.models_dir / "musicnn-lstm")


@pytest.mark.parametrize("labels", [(), ("sad", "sad")])
def test_a_tag_model_names_each_tag_once(tmp_path: Path, labels: tuple[str, ...]) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    with pytest.raises(ModelError, match="labels"):
        write_manifest(tmp_path, "tags", kind="tags", labels=labels, feature_spec=LOG_MEL96, temperature=1.0,
                       weights="w.bin", versions={}, command="", figures={})  # fmt: skip


def test_a_track_is_tagged_from_a_few_segments_and_silent_ones_say_nothing(tag_model: TagModel) -> None:
    sounding = hear_track(io.BytesIO(wav_bytes(np.tile(pcm(3.0), 2))), tag_model).tags
    assert tuple(sounding) == tag_model.manifest.labels
    half_silent = hear_track(io.BytesIO(wav_bytes(np.concatenate([pcm(3.0), np.zeros(3 * RATE)]))), tag_model).tags
    assert half_silent == pytest.approx(sounding, abs=1e-5)
    assert hear_track(io.BytesIO(wav_bytes(np.zeros(6 * RATE))), tag_model) == HeardTrack()
    assert hear_track(io.BytesIO(wav_bytes(pcm(2.0))), tag_model) == HeardTrack()


def test_a_long_track_costs_no_more_than_its_chosen_segments(
    tag_model: TagModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    predict = tag_model.predict

    def counted(batch: Any) -> Any:
        heard.append(len(batch))
        return predict(batch)

    monkeypatch.setattr(tag_model, "predict", counted)
    hear_track(io.BytesIO(wav_bytes(pcm(30.0))), tag_model, limit=4)
    assert sum(heard) == 4


def test_a_contrast_is_in_deviations_from_the_usual() -> None:
    usual, spread = -5.05, 0.91  # of the tag sad
    sadder = 1 / (1 + np.exp(-(usual + 2 * spread)))
    assert contrast({"sad": sadder}, ["sad"]) == pytest.approx(2.0)
    assert contrast({"sad": sadder}, ["happy"], ["sad"]) == pytest.approx(-2.0)
    assert contrast({"sad": sadder}, ["sad", "mellow"]) == pytest.approx(1.0)
    assert likely({}, ["sad"]) == 0.5
    assert 0.0 <= likely({"sad": 0.0}, ["sad"]) < 0.01 < 0.99 < likely({"sad": 1.0}, ["sad"]) <= 1.0


def archive_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package like the published one, with a hash that is believed."""
    archive = folder / "musicnn-0.1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        for name in ("MSD_musicnn/.index", "MSD_musicnn/.data-00000-of-00001", "../../../evil"):
            member = tarfile.TarInfo(f"musicnn-0.1.0/musicnn/{name}")
            member.size = len(name)
            made.addfile(member, io.BytesIO(name.encode()))
    monkeypatch.setattr(musicnn_weights, "_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    return archive


def test_of_the_package_only_the_checkpoint_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "a" / "b"
    cache.mkdir(parents=True)
    archive = archive_of(cache, monkeypatch)
    folder = fetch_checkpoint("MSD", cache)
    written = {file for file in tmp_path.rglob("*") if file.is_file()} - {archive}
    assert written == {folder / ".index", folder / ".data-00000-of-00001"}
    archive.unlink()
    assert fetch_checkpoint("MSD", cache) == folder


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "musicnn-0.1.0.tar.gz").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="is not the published"):
        fetch_checkpoint("MSD", tmp_path)


def test_a_download_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsError, match="pip cannot download"):
        fetch_checkpoint("MSD", tmp_path / "cache")
