"""Model folders: what ships can be loaded, what is damaged is refused, and predictions keep their promises."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.audio.spec import LOG_MEL96, MFCC13, FeatureSpec
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import GENRES, MOODS
from shared.models.manifest import ModelError, ModelManifest, Scaler, load_manifest, write_manifest

MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = {"genre": MODELS / "mfcc-lstm", "mood": MODELS / "mood-ten"}
ONES = Scaler(mean=(0.0,) * 10, std=(1.0,) * 10)
COMMON = {"temperature": 1.0, "weights": "w.bin", "versions": {}, "command": "", "figures": {}}


def genre_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(b"weights")
    fields = {**COMMON, "kind": "genre", "labels": GENRES, "feature_spec": MFCC13, **changes}
    write_manifest(folder, "some-model", **fields)
    return folder


def test_reading_a_manifest_does_not_import_tensorflow() -> None:
    code = "import sys, shared.models.manifest; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=MODELS.parent, check=False).returncode == 0


def test_a_folder_without_a_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no whole model"):
        load_manifest(tmp_path / "missing")


def test_damaged_weights_are_a_model_error(tmp_path: Path) -> None:
    folder = genre_folder(tmp_path / "m")
    (folder / "w.bin").write_bytes(b"weightz")
    with pytest.raises(ModelError, match="damaged"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 2.0), ("labels", GENRES[::-1]), ("weights", "../w.bin"), ("extra", 1)]
)
def test_a_manifest_changed_by_hand_is_a_model_error(tmp_path: Path, field: str, value: Any) -> None:
    folder = genre_folder(tmp_path / "m")
    written = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**written, field: value}))
    with pytest.raises(ModelError):
        load_manifest(folder)


def test_the_model_id_changes_with_whatever_changes_an_answer(tmp_path: Path) -> None:
    ids = {
        load_manifest(genre_folder(tmp_path / "a")).model_id,
        load_manifest(genre_folder(tmp_path / "b", temperature=2.0)).model_id,
        load_manifest(genre_folder(tmp_path / "c", feature_spec=FeatureSpec(id="x", n_mfcc=20))).model_id,
        load_manifest(genre_folder(tmp_path / "e", feature_spec=LOG_MEL96)).model_id,
        load_manifest(genre_folder(tmp_path / "f", track_temperature=0.8)).model_id,
        load_manifest(genre_folder(tmp_path / "g", uncertain_below=0.4)).model_id,
    }
    assert len(ids) == 6
    assert load_manifest(genre_folder(tmp_path / "d", command="another")).model_id in ids


def test_a_manifest_from_before_a_field_keeps_its_model_id(tmp_path: Path) -> None:
    known = {
        "model_id", "kind", "labels", "feature_spec", "scalers", "temperature", "weights", "sha256", "versions",
        "command", "figures",
    }  # fmt: skip
    folder = genre_folder(tmp_path / "m", feature_spec=FeatureSpec(id="mfcc13-22050hz-3s-v1"))
    written = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({name: written[name] for name in known & written.keys()}))
    manifest = load_manifest(folder)
    assert manifest.model_id == "some-model-ae3d215881f1"  # as it was before there were such fields
    assert (manifest.track_temperature, manifest.uncertain_below) == (1.0, None)


def test_a_log_mel_spec_and_a_calibration_of_tracks_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = genre_folder(tmp_path / "m", feature_spec=LOG_MEL96, track_temperature=0.8, uncertain_below=0.4)
    manifest = load_manifest(folder)
    assert manifest.require_feature_spec() == LOG_MEL96
    assert (manifest.track_temperature, manifest.uncertain_below) == (0.8, 0.4)


@pytest.mark.parametrize(
    "wrong", [{"track_temperature": 0.0}, {"uncertain_below": 1.1}, {"uncertain_below": -0.1}], ids=str
)
def test_a_calibration_of_tracks_out_of_range_is_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError):
        genre_folder(tmp_path / "m", **wrong)


def test_a_mood_model_may_be_uncertain_but_has_no_track_temperature(tmp_path: Path) -> None:
    mood = {"kind": "mood", "labels": MOODS, "feature_spec": None, "scalers": {"spotify": ONES, "audio": ONES}}
    assert load_manifest(genre_folder(tmp_path / "a", **mood, uncertain_below=0.4)).uncertain_below == 0.4
    with pytest.raises(ModelError, match="track temperature"):
        genre_folder(tmp_path / "b", **mood, track_temperature=0.8)


def test_a_genre_model_has_no_scalers_and_a_mood_model_no_feature_spec(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        genre_folder(tmp_path / "a", scalers={"spotify": ONES, "audio": ONES})
    with pytest.raises(ModelError):
        genre_folder(tmp_path / "b", kind="mood", labels=MOODS)
    with pytest.raises(ModelError):
        genre_folder(tmp_path / "c", feature_spec=None)


def test_a_scaler_standardises_clips_and_ignores() -> None:
    scaler = Scaler(mean=(1.0,) * 10, std=(2.0,) * 10, ignored=("tempo",))
    row = scaler.standardise([5.0, 5.0, 1.0, 1e9, -1e9, 3.0, 1.0, 1.0, 1.0, 1.0])
    assert row.dtype == np.float32
    assert row.tolist() == [2.0, 0.0, 0.0, 3.0, -3.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="10 means"):
        Scaler(mean=(0.0,), std=(1.0,))


# From here on TensorFlow is at work.


@pytest.fixture(scope="module")
def genre() -> Any:
    from shared.models.networks import GenreModel

    model = GenreModel.load(SHIPPED["genre"], threads=1)
    model.warm_up()
    return model


@pytest.fixture(scope="module")
def mood() -> Any:
    from shared.models.networks import MoodModel

    model = MoodModel.load(SHIPPED["mood"], threads=1)
    model.warm_up()
    return model


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Features of 150 made-up segments, about as large as real ones."""
    random = np.random.default_rng(2)
    scale = np.maximum(150.0 / (1.0 + np.arange(64)), 8.0)
    level = np.zeros(64)
    level[:2] = -150.0, 100.0
    each, frames = random.standard_normal((150, 1, 64)), random.standard_normal((150, 130, 64))
    return np.asarray(level + scale * each + 0.3 * scale * frames, np.float32)


def test_genre_probabilities_are_distributions_over_the_ten(genre: Any, features: np.ndarray) -> None:
    probabilities = genre.predict(features)
    assert probabilities.shape == (150, len(GENRES))
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0.0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert len(set(probabilities.argmax(axis=1))) > 2


@pytest.mark.parametrize("size", [1, 7, 8, 9, 32, 33, 100, 128, 129])
def test_the_genres_of_a_segment_do_not_depend_on_the_batch_it_is_in(
    genre: Any, features: np.ndarray, size: int
) -> None:
    together = genre.predict(features)
    parts = [genre.predict(features[start : start + size]) for start in range(0, len(features), size)]
    np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-5)


def test_the_same_features_give_the_same_bits_again(genre: Any, features: np.ndarray) -> None:
    assert genre.predict(features).tobytes() == genre.predict(features).tobytes()


def test_no_segments_have_no_genres(genre: Any) -> None:
    assert genre.predict(np.empty((0, 130, 64), np.float32)).shape == (0, 10)


def test_features_of_another_shape_are_refused(genre: Any) -> None:
    with pytest.raises(ValueError, match="130, 64"):
        genre.predict(np.zeros((1, 130, 20), np.float32))


def test_a_genre_model_with_other_features_fits_too(tmp_path: Path) -> None:
    import keras

    from shared.models.networks import GenreModel

    spec = FeatureSpec(id="twenty", segment_s=1.0, n_mfcc=20)
    inputs = keras.Input((spec.frames, spec.n_mfcc))
    pooled = keras.layers.GlobalAveragePooling1D()(inputs)
    keras.Model(inputs, keras.layers.Dense(len(GENRES))(pooled)).save(tmp_path / "other.keras")
    fields = {**COMMON, "kind": "genre", "labels": GENRES, "feature_spec": spec, "weights": "other.keras"}
    write_manifest(tmp_path, "other", **fields)
    model = GenreModel.load(tmp_path)
    assert model.predict(np.zeros((3, spec.frames, 20), np.float32)).shape == (3, 10)


def test_a_genre_model_of_log_mel_spectrograms_fits_too(tmp_path: Path) -> None:
    import keras

    from shared.models.networks import GenreModel

    inputs = keras.Input((188, 96))
    pooled = keras.layers.GlobalAveragePooling1D()(inputs)
    keras.Model(inputs, keras.layers.Dense(len(GENRES))(pooled)).save(tmp_path / "other.keras")
    fields = {**COMMON, "kind": "genre", "labels": GENRES, "feature_spec": LOG_MEL96, "weights": "other.keras"}
    write_manifest(tmp_path, "other", **fields)
    model = GenreModel.load(tmp_path)
    assert model.predict(np.zeros((3, 188, 96), np.float32)).shape == (3, 10)
    with pytest.raises(ValueError, match="188, 96"):
        model.predict(np.zeros((3, 130, 13), np.float32))


def test_weights_that_keras_cannot_read_are_a_model_error(tmp_path: Path) -> None:
    from shared.models.networks import GenreModel

    folder = tmp_path / "m"
    shutil.copytree(SHIPPED["genre"], folder)
    manifest = load_manifest(folder)
    (folder / manifest.weights).write_bytes(b"no model")
    fields = {
        name: getattr(manifest, name) for name in ModelManifest.model_fields if name not in {"model_id", "sha256"}
    }
    write_manifest(folder, "broken", **fields)
    assert load_manifest(folder).sha256 == hashlib.sha256(b"no model").hexdigest()
    with pytest.raises(ModelError, match="cannot load"):
        GenreModel.load(folder, engine="tensorflow")


#: Ten features as Spotify gives them for songs whose mood nobody doubts.
PLAIN_CASES = {
    "calm": (180e3, 75.0, -28.0, 0.05, 0.3, 0.99, 0.92, 0.1, 0.04, 0.15),
    "energetic": (220e3, 130.0, -4.0, 0.97, 0.5, 0.001, 0.1, 0.3, 0.08, 0.35),
    "happy": (200e3, 118.0, -6.0, 0.75, 0.75, 0.1, 0.0, 0.12, 0.05, 0.92),
    "sad": (220e3, 100.0, -12.0, 0.25, 0.45, 0.85, 0.0, 0.11, 0.04, 0.2),
}


@pytest.mark.parametrize("expected", MOODS)
def test_spotifys_features_of_a_plain_case_give_its_mood(mood: Any, expected: str) -> None:
    probabilities = mood.predict(dict(zip(AUDIO_FEATURES, PLAIN_CASES[expected], strict=True)), "spotify")
    assert tuple(probabilities) == MOODS
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert max(probabilities, key=probabilities.__getitem__) == expected


def test_the_length_of_a_file_does_not_change_the_mood_of_its_music(mood: Any) -> None:
    music = dict(zip(AUDIO_FEATURES, PLAIN_CASES["happy"], strict=True))
    preview, album = (mood.predict({**music, "duration_ms": ms}, "audio") for ms in (30e3, 400e3))
    assert preview == album


def test_the_source_of_the_features_matters(mood: Any) -> None:
    music = dict(zip(AUDIO_FEATURES, PLAIN_CASES["sad"], strict=True))
    assert mood.predict(music, "audio") != mood.predict(music, "spotify")


@pytest.mark.parametrize("broken", [{"valence": float("nan")}, {"tempo": float("inf")}, {"energy": None}])
def test_a_missing_or_endless_feature_is_refused(mood: Any, broken: dict[str, Any]) -> None:
    music: dict[str, Any] = dict(zip(AUDIO_FEATURES, PLAIN_CASES["sad"], strict=True)) | broken
    with pytest.raises(ValueError, match="finite"):
        mood.predict({name: value for name, value in music.items() if value is not None}, "audio")
