"""Training and evaluation of mood models: tables, the network, figures, and whole runs on made-up tracks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import training.mood.listeners as listeners
import training.reports.metrics as metrics
from services.cli.commands.mood import leak_warning
from services.cli.main import main
from shared.audio.spec import MFCC13
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import GENRES, MOODS
from shared.models.manifest import ModelError, Scaler, load_manifest, write_manifest
from shared.models.networks import MoodModel
from shared.settings import Settings
from tests.support.sounds import noise, sine
from tests.support.wav_files import wav_bytes
from training.data.clips import DataError
from training.genre.protocol import Workspace
from training.mood.card import mood_card
from training.mood.data import MoodTable, check_enough, read_mood_table
from training.mood.figures import figures, leak, repeated_accuracy
from training.mood.listeners import EMOTIONS, installed_audio_mood
from training.mood.network import MoodNetworkPlan, fit, joined
from training.mood.training import AudioData, MoodPlan, cross_validate_model, evaluate_model, train_model
from training.reports.figures import TrackLeak

TINY = MoodNetworkPlan(members=2, hidden=16, steps=150)
PLAN = MoodPlan(folds=2, repeats=2, seed=1, network=TINY)
#: Each repetition trains a network per fold, which takes seconds.
ONCE = MoodPlan(folds=2, repeats=1, seed=1, network=TINY)
COLUMNS = (*AUDIO_FEATURES, "mood", "artist", "source")


def made_up(count: int = 80, seed: int = 6) -> list[dict[str, Any]]:
    """Tracks of which valence and energy tell the mood, two by each artist, by two labellers."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        mood = number % len(MOODS)
        row: dict[str, Any] = dict(zip(AUDIO_FEATURES, random.uniform(0.2, 0.8, 10).round(4), strict=True))
        row |= {"duration_ms": 200_000 + number, "tempo": 120.0, "loudness": -9.0}
        row |= {"energy": 0.1 + 0.8 * (mood in (1, 2)), "valence": 0.1 + 0.8 * (mood in (0, 2))}
        row |= {"mood": MOODS[mood].capitalize(), "artist": f"Artist {number // 8}", "source": "ab"[number % 5 == 0]}
        rows.append(row)
    return rows


def write_table(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "moods.csv", made_up())


@pytest.fixture
def data(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "cache", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_STEPS", 60)
    monkeypatch.setattr(metrics, "_RESAMPLES", 100)


# Tables


def test_a_table_is_read_with_its_artists_and_labellers(table: Path) -> None:
    read = read_mood_table(table)
    assert read.artists_known
    assert read.features.shape == (80, 10)
    assert read.sources == ("a", "b")
    assert (read.source_of == [number % 5 == 0 for number in range(80)]).all()
    assert [MOODS[label] for label in read.labels] == read.moods == list(MOODS) * 20
    assert len(set(read.groups)) == 10


def test_length_will_do_for_the_duration_and_other_columns_are_ignored(tmp_path: Path) -> None:
    rows = [{**row, "length": row["duration_ms"], "popularity": "high"} for row in made_up()]
    columns = ("popularity", "length", *AUDIO_FEATURES[1:], "mood")
    assert read_mood_table(write_table(tmp_path / "t.csv", rows, columns)).features[3, 0] == 200_003


def test_without_artists_each_track_is_its_own_group_but_copies_share_one(tmp_path: Path) -> None:
    rows = made_up()
    read = read_mood_table(write_table(tmp_path / "t.csv", [*rows, rows[0]], (*AUDIO_FEATURES, "mood")))
    assert not read.artists_known
    assert read.sources == ("table",)
    assert len(set(read.groups)) == 80
    assert read.groups[0] == read.groups[80]


def test_artists_are_the_same_in_any_case(tmp_path: Path) -> None:
    rows = [{**row, "artist": ("Abba ", "ABBA")[number % 2]} for number, row in enumerate(made_up())]
    assert len(set(read_mood_table(write_table(tmp_path / "t.csv", rows)).groups)) == 1


def test_missing_columns_are_named(tmp_path: Path) -> None:
    columns = tuple(name for name in AUDIO_FEATURES if name not in {"duration_ms", "valence"})
    with pytest.raises(DataError, match="lacks the column duration_ms or length, valence, mood"):
        read_mood_table(write_table(tmp_path / "t.csv", made_up(), columns))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mood": "angry"}, "row 3: mood 'angry' is none of calm"),
        ({"mood": ""}, "row 3: mood ''"),
        ({"valence": "nan"}, "row 3: valence is nan"),
        ({"tempo": "inf"}, "row 3: tempo is inf"),
        ({"energy": "high"}, "row 3: energy is no number: 'high'"),
        ({"energy": ""}, "row 3: energy is no number"),
        ({"valence": 55}, "row 3: valence is 55, outside 0 to 1"),
        ({"duration_ms": 200}, "row 3: duration_ms is 200, outside 1000"),
        ({"loudness": 40}, "row 3: loudness is 40"),
    ],
)
def test_a_bad_value_is_an_error_that_says_where(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    rows = made_up()
    rows[2] |= changes
    with pytest.raises(DataError, match=said):
        read_mood_table(write_table(tmp_path / "t.csv", rows))


def test_what_is_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_mood_table(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="no rows"):
        read_mood_table(write_table(tmp_path / "empty.csv", []))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="no CSV"):
        read_mood_table(tmp_path / "binary.csv")


def test_too_few_artists_or_moods_are_an_error(tmp_path: Path) -> None:
    read = read_mood_table(write_table(tmp_path / "t.csv", made_up()))
    check_enough(read, 10)
    with pytest.raises(DataError, match=r"11 folds .* there are 10"):
        check_enough(read, 11)
    with pytest.raises(DataError, match="no track of sad"):
        check_enough(MoodTable(tuple(row for row in read.rows if row.mood != "sad"), True), 2)
    lonely = tuple(row for row in read.rows if row.mood != "sad" or row.group == read.rows[0].group)
    with pytest.raises(DataError, match="one of sad"):
        check_enough(MoodTable(lonely, True), 2)


# The network


def standardised(count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of which the first two tell the mood; labeller 1, of every fifth track, calls each mood the next one."""
    random = np.random.default_rng(3)
    features = random.standard_normal((count, 10)).astype(np.float32)
    moods = 2 * (features[:, 0] > 0) + (features[:, 1] > 0)
    source_of = (np.arange(count) % 5 == 0).astype(np.intp)
    return features, ((moods + source_of) % 4).astype(np.intp), source_of


def test_the_network_learns_and_its_softmax_is_a_distribution() -> None:
    features, labels, source_of = standardised()
    network = fit(features, labels, source_of, MoodNetworkPlan(members=3, hidden=16, steps=150), 1)
    logits = network(features).numpy()
    assert logits.shape == (300, 4)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1.0, atol=1e-4)
    first = source_of == 0
    assert (logits.argmax(axis=1) == labels)[first].mean() > 0.85
    # Whoever labelled the fewer tracks is heard too, by about his share of them.
    of_the_other = np.exp(logits)[~first, labels[~first]].mean()
    assert 0.1 < of_the_other < 0.35


@pytest.fixture(scope="module")
def two_networks() -> tuple[Any, Any]:
    """Trained on the same tracks with the seeds 1 and 2."""
    first, second = (fit(*standardised(60), TINY, seed) for seed in (1, 2))
    return first, second


def test_the_same_seed_gives_the_same_network(two_networks: tuple[Any, Any]) -> None:
    features, labels, source_of = standardised(60)
    again = fit(features, labels, source_of, TINY, 1)(features).numpy()
    first, other = (network(features).numpy() for network in two_networks)
    np.testing.assert_allclose(first, again, atol=1e-6)
    assert np.abs(first - other).max() > 1e-3


def test_a_joined_network_is_both_after_saving_too(two_networks: tuple[Any, Any], tmp_path: Path) -> None:
    features, _, _ = standardised(60)
    spotify, audio = two_networks
    joined(spotify, audio).save(tmp_path / "both.keras")
    answers = keras.saving.load_model(tmp_path / "both.keras", compile=False)(features)
    np.testing.assert_allclose(answers["spotify"], spotify(features), atol=1e-5)
    np.testing.assert_allclose(answers["audio"], audio(features), atol=1e-5)


def test_a_constant_feature_does_not_upset_the_network() -> None:
    features, labels, source_of = standardised(60)
    features[:, 4] = 0.0
    assert np.isfinite(fit(features, labels, source_of, TINY, 1)(features).numpy()).all()


def test_each_source_has_its_own_branch_and_temperature(tmp_path: Path) -> None:
    inputs = keras.Input((10,))
    first, second = (keras.layers.Dense(4)(inputs) for _ in range(2))
    network = keras.Model(inputs, {"spotify": first, "audio": second})
    network.save(tmp_path / "model.keras")
    scaler = Scaler(mean=(0.0,) * 10, std=(1.0,) * 10)
    fields: dict[str, Any] = {
        "kind": "mood",
        "labels": MOODS,
        "scalers": {"spotify": scaler, "audio": scaler},
        "versions": {},
    }
    fields |= {"temperature": 2.0, "weights": "model.keras", "command": "", "figures": {}}
    write_manifest(tmp_path, "moods", **fields, temperature_audio=0.5)
    model = MoodModel.load(tmp_path)
    model.warm_up()
    row = np.linspace(-1.0, 1.0, 10, dtype=np.float32)
    for source, temperature in (("spotify", 2.0), ("audio", 0.5)):
        logits = network(row[None])[source].numpy()[0] / temperature
        answer = model.predict(dict(zip(AUDIO_FEATURES, map(float, row), strict=True)), source)  # type: ignore[arg-type]
        np.testing.assert_allclose(list(answer.values()), np.exp(logits) / np.exp(logits).sum(), atol=1e-5)
    other = write_manifest(tmp_path, "moods", **fields, temperature_audio=0.6)
    assert other.model_id != model.manifest.model_id
    assert write_manifest(tmp_path, "moods", **fields).temperature_of("audio") == 2.0


def test_only_a_mood_model_has_a_temperature_for_audio(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    fields = {"kind": "genre", "labels": GENRES, "feature_spec": MFCC13, "temperature": 1.0, "weights": "w.bin"}
    fields |= {"versions": {}, "command": "", "figures": {}}
    write_manifest(tmp_path, "genres", **fields)
    with pytest.raises(ModelError, match="only a mood model"):
        write_manifest(tmp_path, "genres", **fields, temperature_audio=2.0)


# Figures


def test_figures_are_by_labeller_and_overall(table: Path) -> None:
    read = read_mood_table(table)
    answers = np.eye(4)[read.labels]
    wrong = read.source_of == 1
    answers[wrong] = np.roll(answers[wrong], 1, axis=1)
    found = figures(read, answers, answers).as_json()
    assert found["accuracy"]["a"]["accuracy"]["value"] == 1.0
    assert found["accuracy"]["b"]["accuracy"]["value"] == 0.0
    assert found["accuracy"]["all"] == {"tracks": 80, "accuracy": found["accuracy"]["all"]["accuracy"]}
    assert found["accuracy"]["all"]["accuracy"]["value"] == 0.8
    assert sum(map(sum, found["confusion"])) == 80
    repeated = repeated_accuracy(read, [answers.argmax(axis=1), read.labels]).as_json()
    assert repeated == {"runs": 2, "mean": 0.9, "deviation": 0.1, "by_source": {"a": 1.0, "b": 0.5}}


def test_a_leak_is_counted_by_what_the_model_sees(table: Path, tmp_path: Path) -> None:
    read = read_mood_table(table)
    renamed = read_mood_table(write_table(tmp_path / "r.csv", [{**row, "artist": "else"} for row in made_up()]))
    assert leak(renamed, [row.content for row in read.rows[:7]]).as_json() == {"tracks": 7, "of": 80}
    assert leak(read, None).as_json() == {"tracks": None, "of": 80}
    assert "does not say" in str(leak_warning(TrackLeak(tracks=None, of=3)))
    assert "LEAK. The model was trained on 2 of these 3" in str(leak_warning(TrackLeak(tracks=2, of=3)))
    assert leak_warning(TrackLeak(tracks=0, of=3)) is None


# From end to end


def write_listeners(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(6)
    felt = [emotion for emotions in EMOTIONS.values() for emotion in emotions]
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "group", *felt])
        for number in range(8):
            tone = sine(110.0 * 2 ** (number % 5), -12.0, 3.5) + noise(0.01 * (number + 1), 3.5)
            (folder / f"{number}.wav").write_bytes(wav_bytes(np.round(tone * 20_000)))
            mood = MOODS[number % 4]
            shares = [0.7 if name in EMOTIONS[mood] else 0.2 * random.random() for name in felt]
            writer.writerow([number, f"artist {number}", *np.round(shares, 2)])
    return folder


def write_genres(folder: Path) -> Path:
    for number, genre in enumerate(("metal", "metal", "classical", "classical")):
        (folder / genre).mkdir(parents=True, exist_ok=True)
        track = noise(0.3, 3.5) if genre == "metal" else sine(220.0, -30.0, 3.5)
        (folder / genre / f"{number}.wav").write_bytes(wav_bytes(np.round(track * 20_000)))
    (folder / "index.csv").write_text(
        "track,genre,artist,tempo_bpm\n0,metal,a,120\n1,metal,b,\n2,classical,c,0\n3,classical,d,60\n"
    )
    return folder


def test_training_writes_a_whole_model_folder_that_serves(table: Path, tmp_path: Path, data: Workspace) -> None:
    out = tmp_path / "tiny-mood"
    audio = AudioData(write_listeners(tmp_path / "listeners"), write_genres(tmp_path / "genres"))
    train_model(table, out, audio, PLAN, "the command", data)
    manifest = load_manifest(out)
    scalers = manifest.require_scalers()
    assert scalers["audio"].ignored == ("duration_ms",)
    assert scalers["audio"].mean[2] != scalers["spotify"].mean[2]
    listened = manifest.figures["audio"]
    assert (listened["clips"], listened["groups"], listened["folds"], listened["repeats"]) == (8, 8, 2, 2)
    assert manifest.temperature_of("audio") == listened["temperature"]
    checked = {one["feature"]: one["auc"]["value"] for one in listened["features"]["orders"]}
    assert checked["energy"] == checked["loudness"] == 1.0
    assert listened["features"]["tempo"]["clips"] == 2
    assert manifest.figures["repeated"]["runs"] == 2
    assert manifest.figures["accuracy"]["all"]["accuracy"]["value"] > 0.6
    assert len(manifest.figures["trained_on"]) == 80
    card = (out / "CARD.md").read_text(encoding="utf-8")
    assert card == mood_card(manifest)
    assert all(text in card for text in (manifest.model_id, manifest.sha256, "the command", "moods"))
    assert all(text in card for text in ("8 clips of about a minute by 8 artists", "| energy", "octave errors"))
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("confusion.png", "reliability.png"))
    found = evaluate_model(table, out, data).as_json()
    assert found["leak"] == {"tracks": 80, "of": 80}
    assert found["accuracy"]["all"]["accuracy"]["value"] > 0.8
    fresh = write_table(tmp_path / "fresh.csv", made_up(seed=8))
    assert evaluate_model(fresh, out, data).as_json()["leak"] == {"tracks": 0, "of": 80}


def test_without_listeners_the_mood_of_measured_features_is_that_of_the_installed_model(
    table: Path, tmp_path: Path, data: Workspace
) -> None:
    shipped = MoodModel.load(Settings().models_dir / Settings().mood_model)
    train_model(table, tmp_path / "own", AudioData(), ONCE, "the command", data)
    own = MoodModel.load(tmp_path / "own")
    features = dict(zip(AUDIO_FEATURES, (180_000.0, 120.0, -12.0, *np.linspace(0.1, 0.9, 7)), strict=True))
    assert own.predict(features, "audio") == pytest.approx(shipped.predict(features, "audio"), abs=1e-5)
    assert own.predict(features, "spotify") != pytest.approx(shipped.predict(features, "spotify"), abs=0.02)
    card = (tmp_path / "own" / "CARD.md").read_text(encoding="utf-8")
    assert f"This part is that of `{shipped.manifest.model_id}`" in card


def test_a_model_that_learnt_from_no_listeners_has_nothing_to_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.keras").write_bytes(b"weights")
    scaler = Scaler(mean=(0.0,) * 10, std=(1.0,) * 10)
    write_manifest(
        tmp_path / "bare", "bare", kind="mood", labels=MOODS, scalers={"spotify": scaler, "audio": scaler},
        temperature=1.0, weights="model.keras", versions={}, command="", figures={},
    )  # fmt: skip
    monkeypatch.setenv("TONESTREAM_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("TONESTREAM_MOOD_MODEL", "bare")
    with pytest.raises(DataError, match="listeners are needed"):
        installed_audio_mood()


def test_cross_validation_is_repeatable_and_judges_every_track_once(table: Path, data: Workspace) -> None:
    first, again = (cross_validate_model(table, ONCE, data).as_json() for _ in range(2))
    assert first == again
    assert sum(map(sum, first["confusion"])) == 80
    assert first["leak"] == {"tracks": 0, "of": 80}
    json.dumps(first)


def test_labels_that_follow_from_nothing_are_not_learnt(tmp_path: Path, data: Workspace) -> None:
    rows = made_up(160)
    for row, mood in zip(rows, np.random.default_rng(2).permutation([row["mood"] for row in rows]), strict=True):
        row["mood"] = mood
    found = cross_validate_model(write_table(tmp_path / "t.csv", rows), ONCE, data).as_json()
    assert found["accuracy"]["all"]["accuracy"]["value"] < 0.4


# Commands


def test_the_shipped_model_is_evaluated_and_json_alone_is_on_standard_output(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    assert main(["evaluate", "mood", "--csv", str(table), "--json", "--report", str(report)]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["tracks"] == 80
    assert found["leak"] == {"tracks": 0, "of": 80}
    assert "LEAK" not in printed.err
    assert json.loads((report / "figures.json").read_text()) == found
    assert "Truth in rows" in (report / "REPORT.md").read_text(encoding="utf-8")
    assert (report / "confusion.png").exists() and (report / "reliability.png").exists()


def test_a_wrong_table_or_option_is_wrong_usage(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = made_up()
    rows[0]["mood"] = "angry"
    wrong = write_table(tmp_path / "wrong.csv", rows)
    assert main(["evaluate", "mood", "--csv", str(wrong)]) == 2
    assert "mood 'angry' is none of calm" in capsys.readouterr().err
    assert main(["evaluate", "mood", "--csv", str(table), "--cross-validate", "--folds", "11"]) == 2
    assert "11 folds" in capsys.readouterr().err
    assert main(["evaluate", "mood", "--csv", str(table), "--model", str(tmp_path / "none")]) == 2
    assert "no model folder" in capsys.readouterr().err
    assert main(["train", "mood", "--csv", str(table), "--out", str(tmp_path / "o"), "--repeats", "0"]) == 2
    assert "--repeats" in capsys.readouterr().err
    assert main(["train", "mood", "--csv", str(table), "--out", str(tmp_path / "o"), "--genres", str(tmp_path)]) == 2
    assert "--listeners" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
