"""Learning moods from listeners: what is clear, what is learnt, and that no artist is on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import training.mood.listeners as listeners
import training.reports.metrics as metrics
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import GENRES, MOODS
from training.data.clips import Clip, DataError
from training.genre.protocol import Workspace
from training.mood.feature_checks import orders, tempo_agreement
from training.mood.listener_figures import Listened, clear_clips, clear_clips_by_deviation, correlations
from training.mood.listeners import cross_validate, fit_audio_mood, scaler_for, targets, train

COLUMNS = ("calmness", "tenderness", "power", "tension", "joyful_activation", "sadness")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_STEPS", 60)
    monkeypatch.setattr(metrics, "_RESAMPLES", 50)


def clips(artists: int = 12, each: int = 4) -> Listened:
    """Each clip has a mood, which one feature shows and most of its listeners felt."""
    random = np.random.default_rng(7)
    mood = np.tile(np.arange(4), artists * each // 4)
    features = random.normal(size=(len(mood), len(AUDIO_FEATURES))) * 0.1
    features[np.arange(len(mood)), 3 + mood] += 3.0
    shares = np.full((len(mood), 4), 0.1) + random.uniform(0, 0.02, (len(mood), 4))
    shares[np.arange(len(mood)), mood] = 0.7
    return Listened(features, shares, tuple(f"artist {i // each}" for i in range(len(mood))))


def test_a_mood_is_clear_where_its_part_of_the_shares_leads_the_next() -> None:
    shares = np.array([[0.6, 0.2, 0.1, 0.1], [0.4, 0.3, 0.1, 0.2], [0.0, 0.0, 0.0, 0.1], [0.0, 0.0, 0.0, 0.0]])
    clear, mood = clear_clips(shares)
    assert clear.tolist() == [True, False, True, False]
    assert mood[[0, 2]].tolist() == [0, 3]


def test_by_deviation_a_rare_mood_is_clear_with_a_smaller_share() -> None:
    shares = np.array([[0.8, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]] * 10 + [[0.5, 0.0, 0.0, 0.4]])
    clear, mood = clear_clips_by_deviation(shares)
    assert clear[-1] and MOODS[mood[-1]] == "sad"
    assert not clear_clips(shares)[0][-1]


def test_targets_add_up_to_one_and_give_a_rare_mood_more_than_its_share() -> None:
    usual = np.array([0.4, 0.2, 0.3, 0.1])
    (row,) = targets(usual[None, :], usual)
    assert row.sum() == pytest.approx(1.0)
    assert row[3] > usual[3] and row[0] < usual[0]


def test_a_network_learns_the_shares_and_ignores_the_duration() -> None:
    listened = clips()
    scaler = scaler_for(listened.features)
    network = train(scaler.standardise(listened.features), targets(listened.shares, np.full(4, 0.25)), seed=1)
    logits = network(scaler.standardise(listened.features)).numpy()
    assert (logits.argmax(axis=1) == listened.shares.argmax(axis=1)).all()
    longer = listened.features + np.eye(10)[AUDIO_FEATURES.index("duration_ms")] * 1e6
    np.testing.assert_array_equal(scaler.standardise(longer), scaler.standardise(listened.features))


def test_no_artist_is_trained_on_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    listened = clips()
    seen: list[int] = []

    class Nothing:
        def __call__(self, features: np.ndarray) -> Nothing:
            seen.append(len(features))
            return self

        def numpy(self) -> np.ndarray:
            return np.zeros((seen[-1], 4))

    trained: list[int] = []

    def counted(features: np.ndarray, labels: object, seed: int) -> Nothing:
        trained.append(len(features))
        return Nothing()

    monkeypatch.setattr(listeners, "train", counted)
    cross_validate(listened, 3, 1, 1, Workspace(Path(), 1))
    assert sum(seen) == len(listened.groups)
    assert all(count % 4 == 0 for count in seen + trained)
    assert [a + b for a, b in zip(seen, trained, strict=True)] == [len(listened.groups)] * 3


def test_the_figures_of_what_can_be_told_are_good_and_have_intervals() -> None:
    figures = cross_validate(clips(), 2, 2, 1, Workspace(Path(), 1)).as_json()
    assert figures["clips"] == 48 and figures["groups"] == 12
    assert sum(figures["clear_clips"].values()) == 48
    assert figures["clear_accuracy"]["value"] > 0.9
    assert figures["clear_accuracy"]["low"] <= figures["clear_accuracy"]["value"] <= figures["clear_accuracy"]["high"]
    assert set(figures["correlation"]) == {*MOODS, "mean"}
    assert figures["correlation"]["mean"]["value"] > 0.5
    assert np.sum(figures["clear_confusion"]) == 2 * 48
    assert figures["temperature"] > 0
    assert sum(one["count"] for one in figures["reliability_after"]) == 2 * 48
    assert figures["sure"]["share"] > 0.9 and figures["sure"]["accuracy"]["value"] > 0.9
    assert figures["top"] == dict.fromkeys(MOODS, 0.25)
    felt = {(one["feature"], one["mood"]): one["correlation"]["value"] for one in figures["felt"]}
    assert set(felt) >= {("energy", "energetic"), ("valence", "sad")} and max(map(abs, felt.values())) <= 1.0


def test_a_probability_that_follows_what_was_felt_correlates_fully_and_a_constant_one_not_at_all() -> None:
    listened = clips()
    listened = Listened(listened.features, np.random.default_rng(3).random((48, 4)), listened.groups)
    assert correlations(np.stack([listened.shares] * 2), listened)["mean"].as_json() == {
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
    }
    assert correlations(np.full((1, 48, 4), 0.25), listened)["mean"].value == 0.0


def test_a_mood_is_learnt_from_a_folder_of_recordings(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lines = [",".join(("track_id", "group", *COLUMNS))]
    for number in range(8):
        loud = number % 2
        soundfile.write(tmp_path / f"{number}.wav", random.normal(0, 0.01 + 0.2 * loud, 22050 * 4), 22050)
        felt = (0.1, 0.1, 0.6, 0.6, 0.1, 0.1) if loud else (0.6, 0.6, 0.1, 0.1, 0.1, 0.1)
        lines.append(",".join((str(number), f"artist {number // 2}", *map(str, felt))))
    (tmp_path / "index.csv").write_text("\n".join(lines))
    mood = fit_audio_mood(tmp_path, Workspace(tmp_path / "cache", 1), folds=2, repeats=1)
    assert mood.network(np.zeros((3, 10), np.float32)).shape == (3, 4)
    assert mood.scaler.ignored == ("duration_ms",)
    assert mood.temperature == mood.figures.temperature
    assert mood.figures.clear_clips["calm"] == 4


@pytest.mark.parametrize("text", ["", "track_id,group\n1,a\n", ",".join(("track_id", "group", *COLUMNS)) + "\n"])
def test_a_folder_without_what_listeners_felt_is_a_data_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.csv").write_text(text)
    soundfile.write(tmp_path / "1.wav", np.zeros(22050), 22050)
    with pytest.raises(DataError):
        fit_audio_mood(tmp_path, Workspace(tmp_path / "cache", 1))


def test_the_order_of_genres_is_the_chance_of_more() -> None:
    made = [Clip(f"{g}{i}", Path("x"), g, f"{g}{i}") for g in GENRES for i in range(2)]
    measured = np.zeros((len(made), len(AUDIO_FEATURES)))
    measured[[clip.label == "metal" for clip in made], AUDIO_FEATURES.index("energy")] = 0.9
    found = {(o.feature, o.more[0], o.less[0]): o.auc.as_json() for o in orders(made, measured)}
    # Also where a bootstrap draws artists of one side only, which happens with few of them.
    assert found["energy", "metal", "classical"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["acousticness", "classical", "disco"]["value"] == 0.5
    assert orders(made[:2], measured[:2]) == ()


def test_a_tempo_may_be_right_or_an_octave_off() -> None:
    agreement = tempo_agreement(
        np.array([100.0, 203.0, 40.0, 77.0, 50.0]), np.array([101.0, 100.0, 120.0, 100.0, np.nan])
    )
    assert agreement.as_json() == {"clips": 4, "right": 0.25, "right_up_to_octaves": 0.75}
