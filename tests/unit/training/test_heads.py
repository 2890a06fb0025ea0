"""Fit and content: regions of genres, their calibration on left-out genres, and what is told from music."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.special
import soundfile

from shared.contracts.labels import CONTENTS, GENRES
from training.distillation import content_set
from training.distillation.content_set import MADE_UP, content_examples
from training.distillation.heads import (
    ContentExamples,
    ContentRule,
    FitTrial,
    GenreRegions,
    content_figures,
    with_heads,
)
from training.genre.protocol import Workspace
from training.reports.metrics import area_under_roc

RATE = 22050
TAGS = 12


def clips_of_ten_genres(spread: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tags [n, 12], clip of each segment, label of each clip): six clips of four segments of each genre."""
    random = np.random.default_rng(seed)
    centres = random.normal(scale=4.0, size=(len(GENRES), TAGS))
    labels = np.repeat(np.arange(len(GENRES)), 6)
    clip_of = np.repeat(np.arange(len(labels)), 4)
    return centres[labels[clip_of]] + random.normal(scale=spread, size=(len(clip_of), TAGS)), clip_of, labels


def test_a_segment_is_near_the_region_of_its_genre_and_far_from_none_of_its_own() -> None:
    tags, clip_of, labels = clips_of_ten_genres(0.5)
    known = labels[clip_of] != 3
    regions = GenreRegions.of(tags[known], labels[clip_of][known])
    assert regions.distance(tags[known]).max() < regions.distance(tags[~known]).min()


def fed_trial(spread: float) -> tuple[FitTrial, np.ndarray, np.ndarray, np.ndarray]:
    tags, clip_of, labels = clips_of_ten_genres(spread)
    trial = FitTrial(labels, [f"artist {number}" for number in range(len(labels))])
    for fold in range(3):
        trial.add(tags, clip_of, np.flatnonzero(np.arange(len(labels)) % 3 == fold))
    return trial, tags, clip_of, labels


def test_left_out_genres_are_found_and_their_fit_is_low() -> None:
    trial, *_ = fed_trial(0.5)
    figures = trial.figures()
    assert figures.auroc.value > 0.99 and set(figures.auroc_by_genre) == set(GENRES)
    assert figures.found > 0.95
    assert 0.5 < figures.below <= 1.0
    slope, _ = trial.calibrated()
    assert slope < 0.0


def test_genres_that_overlap_are_not_told_apart_and_the_figures_say_so() -> None:
    trial, *_ = fed_trial(60.0)
    assert 0.3 < trial.figures().auroc.value < 0.7


def test_an_area_counts_ties_half() -> None:
    assert area_under_roc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert area_under_roc(np.array([1.0]), np.array([1.0])) == 0.5


def test_the_heads_of_the_network_say_what_the_rules_say() -> None:
    trial, tags, clip_of, labels = fed_trial(0.5)
    regions = GenreRegions.of(tags, labels[clip_of])
    slope, offset = trial.calibrated()
    random = np.random.default_rng(2)
    rule = ContentRule(random.normal(size=(5, len(CONTENTS))), random.normal(size=len(CONTENTS)))
    inputs = keras.Input((TAGS,))
    hidden = keras.layers.Dense(5, name="hidden")(inputs)
    network = keras.Model(inputs, {"tags": keras.layers.Identity(name="tags")(inputs), "genres": hidden})
    whole = with_heads(network, regions, (slope, offset), rule)
    found = whole.predict(tags.astype(np.float32), verbose=0)
    np.testing.assert_allclose(found["fit"][:, 0], slope * regions.distance(tags) + offset, rtol=1e-2, atol=1e-2)
    wanted = rule.probabilities(found["genres"])
    np.testing.assert_allclose(scipy.special.softmax(found["content"], axis=1), wanted, rtol=1e-3, atol=1e-4)
    assert "content" not in with_heads(network, regions, (slope, offset), None).output_names


def test_contents_are_judged_with_their_source_left_out() -> None:
    random = np.random.default_rng(3)
    centres = np.eye(3) * 6.0
    labels = np.repeat([0, 0, 1, 1, 2, 2], 40)
    sources = np.repeat(["other music", "artist", "czech", "dutch", "engines", MADE_UP], 40)
    examples = ContentExamples(centres[labels] + random.normal(size=(240, 3)), labels, sources)
    clip_of = np.full(240, -1)
    clip_of[40:80] = np.arange(40) // 4
    figures = content_figures(examples, clip_of, np.arange(10) % 5)
    assert set(figures.auroc_against_music) == {"czech", "dutch", "engines", MADE_UP}
    assert min(figures.auroc_against_music.values()) > 0.98
    assert figures.music_right > 0.95 and figures.tracks_right == 1.0
    assert figures.segments == {"music": 80, "speech": 80, "other": 80}


def test_recordings_of_a_source_follow_one_another_and_noise_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_set, "_SEGMENTS", 5)
    random = np.random.default_rng(4)
    for number in range(8):
        path = tmp_path / "speech" / "czech" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, random.standard_normal(RATE) * 0.1, RATE)
    (tmp_path / "speech" / "czech" / "broken.wav").write_bytes(b"nothing")
    (tmp_path / "speech" / "empty").mkdir()
    found = content_examples([tmp_path / "speech"], [], Workspace(tmp_path / "cache", 1))
    speech = [source == "czech" for source in found.sources]
    # Eight seconds and their pauses are three segments.
    assert sum(speech) == 3 and set(found.sources) == {"czech", MADE_UP}
    assert set(found.labels[speech]) == {CONTENTS.index("speech")}
    assert len(found.labels) == len(found.decibels) == len(found.level) == 3 + 5
