"""Both engines give the same outputs of every shipped network, and say what is wrong with a folder."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from shared.audio.segment_features.extraction import segment_features
from shared.audio.spec import FeatureSpec
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.models import engine as engines
from shared.models.engine import load_engine
from shared.models.manifest import ModelError, ModelManifest, load_manifest, store_manifest
from shared.settings import Settings
from tests.support.samples import SAMPLES
from training.data.features import read_segments

FOLDERS = sorted(folder.parent for folder in Settings().models_dir.glob("*/manifest.json"))


def inputs(manifest: ModelManifest) -> np.ndarray:
    """Features of real music, or rows of standardised audio features."""
    if manifest.feature_spec is None:
        return np.random.default_rng(0).normal(size=(9, len(AUDIO_FEATURES))).astype(np.float32)
    return features_of_samples(manifest.feature_spec)


@cache
def features_of_samples(spec: FeatureSpec) -> np.ndarray:
    return np.concatenate([segment_features(read_segments(sample, spec)[:3], spec) for sample in SAMPLES])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_both_engines_give_the_same_outputs(folder: Path) -> None:
    manifest = load_manifest(folder)
    batch = inputs(manifest)
    light, heavy = (load_engine(name, folder, manifest, 1).run(batch) for name in ("onnx", "tensorflow"))
    assert set(light) == set(heavy)
    for name, values in heavy.items():
        assert light[name].dtype == np.float32
        np.testing.assert_allclose(light[name], values, atol=1e-4 * max(1.0, np.abs(values).max()), err_msg=name)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_answer_for_one_does_not_depend_on_the_others_in_the_batch(folder: Path) -> None:
    manifest = load_manifest(folder)
    batch = inputs(manifest)
    network = load_engine("onnx", folder, manifest, 1)
    whole, alone = network.run(batch), network.run(batch[1:2])
    for name, values in alone.items():
        np.testing.assert_allclose(values[0], whole[name][1], atol=1e-4)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Settings().models_dir / "mood-ten", tmp_path / "mood-ten"))


def test_a_damaged_network_is_refused(copied: Path) -> None:
    manifest = load_manifest(copied)
    (copied / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"model\.onnx is damaged"):
        load_engine("onnx", copied, manifest, 1)
    (copied / "model.onnx").unlink()
    with pytest.raises(ModelError, match="no whole model"):
        load_engine("onnx", copied, manifest, 1)


def test_what_is_no_network_is_refused_by_both_engines(copied: Path) -> None:
    import hashlib

    (copied / "model.onnx").write_bytes(b"no network")
    digest = hashlib.sha256(b"no network").hexdigest()
    known = load_manifest(copied)
    assert known.onnx is not None
    manifest = known.model_copy(update={"onnx": known.onnx.model_copy(update={"sha256": digest})})
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot load"):
        load_engine("onnx", copied, manifest, 1)
    (copied / "model.keras").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"TensorFlow .* cannot load"):
        load_engine("tensorflow", copied, manifest, 1)


def test_a_model_of_an_older_version_runs_where_tensorflow_is(copied: Path) -> None:
    manifest = store_manifest(copied, load_manifest(copied).model_copy(update={"onnx": None}))
    assert set(load_engine("auto", copied, manifest, 1).run(inputs(manifest))) == {"audio", "spotify"}
    with pytest.raises(ModelError, match="tonestream train export"):
        load_engine("onnx", copied, manifest, 1)


def test_an_engine_that_is_not_installed_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda package: None)
    manifest = load_manifest(copied)
    with pytest.raises(ModelError, match="pip install tensorflow"):
        load_engine("tensorflow", copied, manifest, 1)
    with pytest.raises(ModelError, match="pip install onnxruntime or tensorflow"):
        load_engine("auto", copied, manifest, 1)


def test_the_light_engine_needs_no_tensorflow() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from shared.models.networks import MoodModel; from shared.settings import Settings;"
        "MoodModel.load(Settings().models_dir / 'mood-ten', engine='onnx').warm_up();"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
