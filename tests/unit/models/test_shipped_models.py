"""What ships in models/: every folder is whole, has a card that names it, and answers for real clips."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.audio.level import track_level
from shared.audio.segment_features.extraction import segment_features
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import GENRES, MOODS
from shared.models.catalogue import Kind
from shared.models.heard_track import HeardTrack, hear_track
from shared.models.manifest import load_manifest
from shared.settings import Settings
from tests.support.wav_files import wav_bytes

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = {manifest.parent.name: manifest.parent for manifest in sorted((ROOT / "models").glob("*/manifest.json"))}
KINDS: tuple[Kind, ...] = ("genre", "mood", "tags")
GENRE_MODELS, MOOD_MODELS, TAG_MODELS = (
    [name for name, folder in FOLDERS.items() if load_manifest(folder).serves_as(kind)] for kind in KINDS
)
SAMPLES = sorted((ROOT / "samples").glob("*.mp3"))


def test_the_accurate_and_the_cheap_genre_model_ship_and_so_do_mood_and_tags() -> None:
    assert set(FOLDERS) == {"mfcc-lstm", "musicnn-lstm", "mood-ten", "music-tags"}
    settings = Settings()
    assert settings.genre_model in GENRE_MODELS
    assert settings.mood_model in MOOD_MODELS
    assert settings.tag_model in TAG_MODELS
    # The moods were trained on the tags of the model that serves.
    assert load_manifest(FOLDERS[settings.tag_model]).model_id in (
        FOLDERS[settings.mood_model] / "manifest.json"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_shipped_model_is_whole_and_its_card_tells_what_made_it(name: str) -> None:
    manifest = load_manifest(FOLDERS[name])  # checks the hash of the weights and that of the answers' parts
    assert manifest.model_id.startswith(f"{name}-")
    card = (FOLDERS[name] / "CARD.md").read_text(encoding="utf-8")
    for fact in (manifest.model_id, manifest.sha256, manifest.command, "licence"):
        assert fact in card


@pytest.mark.parametrize("name", [*GENRE_MODELS, *MOOD_MODELS])
def test_a_card_shows_its_plots(name: str) -> None:
    card = (FOLDERS[name] / "CARD.md").read_text(encoding="utf-8")
    for plot in ("confusion.png", "reliability.png"):
        assert f"]({plot})" in card
        assert (FOLDERS[name] / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted({*GENRE_MODELS, *TAG_MODELS}))
def test_a_model_that_stands_on_musicnn_names_it_and_its_licence_is_there(name: str) -> None:
    card = (FOLDERS[name] / "CARD.md").read_text(encoding="utf-8")
    assert "Pons and Serra 2019" in card or "Jordi Pons" in card
    assert "Permission to use, copy, modify" in (ROOT / "models" / "MUSICNN-LICENSE.md").read_text(encoding="utf-8")


@cache
def segments_of(sample: Path, samples_each: int) -> np.ndarray:
    from training.data.features import read_segments

    spec = load_manifest(FOLDERS["mfcc-lstm"]).require_feature_spec()
    assert spec.segment_samples == samples_each
    return read_segments(sample, spec)


@pytest.mark.parametrize("name", GENRE_MODELS)
def test_a_genre_model_answers_for_real_clips(name: str) -> None:
    from shared.models.networks import GenreModel

    model = GenreModel.load(FOLDERS[name])
    spec = model.manifest.require_feature_spec()
    labels = set()
    for sample in SAMPLES:
        heard = segment_features(segments_of(sample, spec.segment_samples), spec)
        answers = model.predict(heard)
        assert answers.shape == (len(heard), len(GENRES))
        np.testing.assert_allclose(answers.sum(axis=1), 1.0, atol=1e-5)
        labels.add(GENRES[int(answers.mean(axis=0).argmax())])
    assert len(labels) >= 3, "six pieces of six styles, and hardly a difference heard"


@pytest.mark.parametrize("name", MOOD_MODELS)
def test_a_mood_model_answers_for_real_clips(name: str, tmp_path: Path) -> None:
    from shared.models.networks import MoodModel, TagModel
    from training.data.features import measured_features

    model = MoodModel.load(FOLDERS[name])
    measured = measured_features(SAMPLES, tmp_path, 1, TagModel.load(FOLDERS[Settings().tag_model]))
    labels = set()
    for row in measured:
        answer = model.predict(dict(zip(AUDIO_FEATURES, row.tolist(), strict=True)), "audio")
        assert tuple(answer) == MOODS
        assert sum(answer.values()) == pytest.approx(1.0, abs=1e-5)
        labels.add(max(answer, key=answer.__getitem__))
    assert len(labels) >= 2, "six pieces of six styles, and no difference felt"


def heard(wav: Path) -> HeardTrack:
    """What the model that serves for tags hears in a file."""
    from shared.models.networks import TagModel

    model = TagModel.load(FOLDERS[Settings().tag_model])
    with TemporaryDirectory() as folder:
        decoded = decode(wav, Path(folder) / "decoded.wav", DecodeLimits(), find_ffmpeg())
        with decoded.path.open("rb") as opened:
            return hear_track(opened, model, track_level_dbfs=track_level(decoded.levels_dbfs))


def content(track: HeardTrack) -> str:
    assert track.content is not None
    return max(track.content, key=track.content.__getitem__)


def test_the_samples_are_music_and_only_the_electronic_one_is_far_from_the_ten() -> None:
    tracks = {sample.stem: heard(sample) for sample in SAMPLES}
    assert {content(track) for track in tracks.values()} == {"music"}
    fit = {name: track.fit or 0.0 for name, track in tracks.items()}
    assert min(fit, key=fit.__getitem__) == "high-frequency"
    assert fit["high-frequency"] < (load_manifest(FOLDERS[Settings().tag_model]).unfit_below or 0.0) < fit["bay"]


@pytest.mark.parametrize("voice", ["en", "de", "es"])
def test_a_voice_is_speech(voice: str, tmp_path: Path) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("there is no espeak-ng")
    text = "The quick brown fox jumps over the lazy dog, and then it goes home and thinks about the day. " * 3
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(tmp_path / "speech.wav"), text], check=True)
    assert content(heard(tmp_path / "speech.wav")) == "speech"


def test_noise_is_neither_music_nor_speech(tmp_path: Path) -> None:
    white = np.random.default_rng(1).standard_normal(15 * 22050) * 3000
    (tmp_path / "noise.wav").write_bytes(wav_bytes(white))
    assert content(heard(tmp_path / "noise.wav")) == "other"
