"""Training and evaluation of genre models: splits, figures, calibration, and whole runs on made-up clips."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pytest

from shared.audio.spec import MFCC13
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES
from shared.models.manifest import load_manifest
from tests.support.sounds import noise, sine
from tests.support.wav_files import wav_bytes
from tests.unit.training.test_training import labelled_groups
from training.data.clips import Clip, DataError, content_id, read_clips
from training.data.features import clip_features, usable_clips
from training.data.splits import (
    Part,
    SplitError,
    fault_filtered,
    fault_filtered_positions,
    fold_of_each,
    merge_artists,
    names_in,
    random_segments,
)
from training.data.variations import VARIATIONS
from training.genre import training
from training.genre.evaluation import evaluate_model
from training.genre.figures import HeldOut, Temperatures, answers_by_fold, figures
from training.genre.network import Segments
from training.genre.protocol import (
    PROTOCOLS,
    Finished,
    TrainingProtocol,
    UnknownProtocolError,
    Workspace,
    protocol_named,
)
from training.genre.seed import SeedProtocol
from training.genre.training import Plan, cross_validate_protocol, train_model
from training.reports.card import genre_card
from training.reports.metrics import (
    expected_calibration_error,
    fit_tempered,
    mean_by_track,
    reliability,
    softmax,
    tempered,
)

Item = TypeVar("Item")


class TinyProtocol:
    """A `TrainingProtocol` that takes no time: the nearest centre of the frames' means. Notes what it was shown."""

    name = "tiny"
    description = "The nearest mean."
    notices = "Nobody's rights."
    spec = MFCC13
    max_segments = 12
    tags = None

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {"centres": 10}
        self.prepared: list[Clip] = []
        self.trained_on: list[list[int]] = []
        self.trained_segments: list[tuple[int, int]] = []

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        self.prepared = list(clips)
        self._features = clip_features(clips, self.spec, data.cache, data.threads)

    def fit(self, train_on: Any, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        self.trained_on.append(train_on.tolist())
        labels = [GENRES.index(self.prepared[i].label) for i in train_on for _ in self._features[i]]
        return self._network(np.concatenate([self._features[i] for i in train_on]), labels, seed)

    def finished(self, network: Any) -> Finished:
        return Finished(network)

    def fit_segments(self, clip_of: Any, position: Any, seed: int) -> Any:
        self.trained_segments = list(zip(clip_of.tolist(), position.tolist(), strict=True))
        labels = [GENRES.index(self.prepared[i].label) for i in clip_of]
        features = [self._features[i][j] for i, j in self.trained_segments]
        return self._network(np.array(features), labels, seed)

    def _network(self, features: Any, labels: list[int], seed: int) -> Any:
        import keras

        pooled = features.mean(axis=1)
        random = np.random.default_rng(seed)
        centres = np.array([pooled[np.array(labels) == label].mean(axis=0) for label in range(len(GENRES))])
        centres += 0.01 * random.standard_normal(centres.shape)
        inputs = keras.Input((self.spec.frames, self.spec.coefficients))
        nearest = keras.layers.Dense(len(GENRES))
        network = keras.Model(inputs, nearest(keras.layers.GlobalAveragePooling1D()(inputs)))
        nearest.set_weights([2 * centres.T / 500, -(centres**2).sum(axis=1) / 500])
        return network


def write_clips(folder: Path, artists: int, length_s: float, detuned: float = 1.0) -> Path:
    """A tone a genre in noise, at another pitch by each artist; and an index."""
    rows = []
    for position, genre in enumerate(GENRES):
        (folder / genre).mkdir(parents=True)
        for artist in range(artists):
            hertz = detuned * 110.0 * 2 ** (position / 3) * (1 + 0.02 * artist)
            pcm = np.round((sine(hertz, -12.0, length_s) + noise(0.01, length_s)) * 20_000)
            (folder / genre / f"{genre}.{artist}.wav").write_bytes(wav_bytes(pcm))
            rows.append({"track": f"{genre}.{artist}", "genre": genre, "group": f"{artist}|{genre}"})
    write_index(folder, rows)
    return folder


def write_index(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "index.csv").open("w", newline="") as index:
        writer = csv.DictWriter(index, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(autouse=True)
def one_variation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is enough here: each takes a run of ffmpeg a clip."""
    monkeypatch.setattr(training, "VARIATIONS", VARIATIONS[:1])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips a genre by three artists, two segments each, an index beside them."""
    return write_clips(tmp_path_factory.mktemp("data") / "clips", artists=3, length_s=6.2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data(cache: Path) -> Workspace:
    return Workspace(cache, 1)


# Artists


@pytest.mark.parametrize(
    ("credit", "names"),
    [
        ("Ice Cube, Mack 10 & Ms. Toi", {"ice cube", "mack 10", "ms. toi"}),
        ("KC and the Sunshine Band", {"kc", "sunshine band"}),
        ("Song feat. Somebody; Other", {"song", "somebody", "other"}),
        ("Band (featuring  THE Guest)", {"band", "guest"}),
        ("Andy Feathers", {"andy feathers"}),
        ("UNKNOWN ARTIST", set()),
        ("", set()),
        ("Coleman Hawkins & Manny Albam and His Orchestra", {"coleman hawkins", "manny albam"}),
    ],
)
def test_a_credit_is_split_into_names(credit: str, names: set[str]) -> None:
    assert names_in(credit) == names


def test_artists_in_one_anothers_credits_are_one_group_and_strangers_are_not() -> None:
    credits = ["Ice Cube", "Ice Cube, Mack 10 & Ms. Toi", "MACK 10", "Public Enemy"]
    merged = merge_artists(["hiphop"] * 4, [f"{credit}|hiphop" for credit in credits], credits)
    assert merged == ["MACK 10|hiphop"] * 3 + ["Public Enemy|hiphop"]


def test_groups_of_several_genres_stay_apart_and_so_do_unknown_artists() -> None:
    labels = ["jazz", "blues", "jazz", "jazz"]
    groups = ["A|jazz", "A|blues", "UNKNOWN ARTIST|jazz", "other|jazz"]
    assert merge_artists(labels, groups, ["A", "A", "UNKNOWN ARTIST", "Unknown Artist"]) == groups


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_an_index_with_artists_merges_their_groups(tmp_path: Path) -> None:
    touch(tmp_path, "rock/a.wav", "rock/b.wav", "rock/c.wav")
    credits = {"a": "Morphine", "b": "George S. Clinton & Morphine", "c": "The Beach Boys"}
    write_index(tmp_path, [{"track": track, "genre": "rock", "artist": who} for track, who in credits.items()])
    first, second, third = read_clips(tmp_path)
    assert first.group == second.group != third.group


def test_tracks_without_artists_are_not_merged_by_words_in_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "rock/Up & Down.mp3", "rock/Down.mp3", "rock/._Down.mp3")
    assert len({clip.group for clip in read_clips(tmp_path)}) == 2


def test_an_unknown_genre_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "rock/a.wav", "techno/b.wav")
    with pytest.raises(DataError, match="techno"):
        read_clips(tmp_path)


def test_an_index_without_its_columns_is_named(tmp_path: Path) -> None:
    write_index(touch(tmp_path, "rock/a.wav"), [{"track": "a", "label": "rock"}])
    with pytest.raises(DataError, match="column genre"):
        read_clips(tmp_path)


# Splits


def test_a_single_group_or_fold_cannot_be_split() -> None:
    with pytest.raises(SplitError, match="blues"):
        fold_of_each(["blues", "blues", "jazz", "jazz"], ["a", "a", "b", "c"], 2, 1)
    labels, groups = labelled_groups()
    with pytest.raises(SplitError, match="two folds"):
        fold_of_each(labels, groups, 1, 1)


def test_the_fault_filtered_lists_are_whole_and_disjoint() -> None:
    lists = [fault_filtered(part) for part in ("train", "valid", "test")]
    assert [len(names) for names in lists] == [443, 197, 290]
    assert len(frozenset.union(*lists)) == 930


def test_the_fault_filtered_split_finds_tracks_by_name_and_says_what_is_missing() -> None:
    names = sorted(frozenset.union(*(fault_filtered(part) for part in ("train", "valid", "test"))))
    names.append("blues.99999")
    labels = [name.partition(".")[0] for name in names]
    found = fault_filtered_positions(names, labels)
    assert {part: len(positions) for part, positions in found.items()} == {"train": 443, "valid": 197, "test": 290}
    few = [name for name in names if not (name.startswith("jazz") and name in fault_filtered("test"))]
    with pytest.raises(SplitError, match=r"of 290 in test.*no jazz in test"):
        fault_filtered_positions(few, [name.partition(".")[0] for name in few])


def test_the_leaky_split_tests_a_fifth_of_the_segments() -> None:
    train, test = random_segments(100, 1)
    assert (len(train), len(test)) == (80, 20)
    assert sorted([*train, *test]) == list(range(100))


# Temperatures and figures


def test_the_bins_of_a_reliability_diagram_hold_every_answer() -> None:
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.45, 0.55], [1.0, 0.0]])
    truth = np.array([0, 1, 1, 0])
    bins = reliability(probabilities, truth)
    assert [one.count for one in bins] == [1, 3]
    assert [one.accuracy for one in bins] == pytest.approx([1.0, 2 / 3])
    assert bins[1].confidence == pytest.approx(2.86 / 3)
    expected = (0.45 + 3 * abs(2.86 / 3 - 2 / 3)) / 4
    assert expected_calibration_error(probabilities, truth) == pytest.approx(expected)


def test_tempering_a_tracks_probabilities_undoes_what_their_mean_softened() -> None:
    random = np.random.default_rng(2)
    sharp = softmax(random.standard_normal((20_000, 4)) * 1.5)
    truth = (sharp.cumsum(axis=1) < random.random((len(sharp), 1))).sum(axis=1)
    assert fit_tempered(tempered(sharp, 2.5), truth) == pytest.approx(1 / 2.5, rel=0.05)
    assert tempered(np.array([[1.0, 0.0]]), 2.0).sum() == pytest.approx(1.0)


def held_out(seed: int = 1, tracks: int = 200, segments: int = 4) -> HeldOut:
    """Overconfident logits; the truth is what they say most of the time."""
    random = np.random.default_rng(seed)
    made = []
    for track in range(tracks):
        label = track % 10
        logits = random.standard_normal((segments, 10)) + 1.2 * np.eye(10)[label]
        made.append((Clip(f"{track}", Path("none"), GENRES[label], f"{track // 2}", 16000), 4 * logits))
    clips, logits = [clip for clip, _ in made], [one.astype(np.float32) for _, one in made]
    return HeldOut(clips, logits, logits)


def test_calibration_by_fold_lowers_the_error_of_tracks_and_segments() -> None:
    held = held_out()
    fold_of = np.arange(len(held.clips)) // 2 % 5
    answers = answers_by_fold(held, fold_of)
    found = figures(held, answers, 0.5).as_json()
    assert found["segment_ece_after"] < found["segment_ece_before"] / 2
    assert found["track_ece_after"] < found["track_ece_before"]
    np.testing.assert_allclose(answers.tracks.sum(axis=1), 1.0)
    assert found["narrow_clips"] == 200
    assert found["track_accuracy_of_wide_clips"] is None
    assert found["same_answer_in_limited_bandwidth"] == 1.0
    assert sum(map(sum, found["confusion"])) == 200
    assert sum(one["count"] for one in found["segment_reliability_after"]) == 800
    json.dumps(found, allow_nan=False)


def test_uncertain_answers_are_counted_apart_and_more_often_wrong() -> None:
    held = held_out()
    answers = answers_by_fold(held, np.arange(len(held.clips)) // 2 % 5)
    found = figures(held, answers, 0.5).as_json()["uncertain"]
    assert found["below"] == 0.5
    assert found["share"] == pytest.approx((answers.tracks.max(axis=1) < 0.5).mean(), abs=1e-3)
    assert found["accuracy"] < found["accuracy_of_others"]["value"]
    assert figures(held, answers, None).uncertain.as_json() == {"below": None}
    assert figures(held, answers, 0.0).uncertain.accuracy is None
    assert figures(held, answers, 1.0).uncertain.accuracy_of_others is None


def test_the_answers_of_a_fold_do_not_depend_on_its_own_truth() -> None:
    held = held_out()
    fold_of = np.arange(len(held.clips)) // 2 % 5
    lying = HeldOut(
        [
            Clip(clip.name, clip.path, "rock" if fold == 0 else clip.label, clip.group)
            for clip, fold in zip(held.clips, fold_of, strict=True)
        ],
        held.full,
        held.limited,
    )
    told, lied = answers_by_fold(held, fold_of), answers_by_fold(lying, fold_of)
    np.testing.assert_array_equal(told.tracks[fold_of == 0], lied.tracks[fold_of == 0])
    assert (told.tracks[fold_of == 1] != lied.tracks[fold_of == 1]).any()


def test_a_track_is_the_tempered_mean_of_its_calibrated_segments() -> None:
    held = held_out(tracks=20)
    answers = Temperatures(2.0, 0.5).answers(held)
    expected = mean_by_track(softmax(np.concatenate(held.full), 2.0), held.track_of) ** 2
    np.testing.assert_allclose(answers.tracks, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


# Files


def test_corrupt_and_short_files_are_named_and_skipped(clips: Path, tmp_path: Path) -> None:
    broken, short = tmp_path / "jazz.00054.wav", tmp_path / "short.wav"
    broken.write_bytes(b"RIFF....what is this")
    short.write_bytes((clips / "blues" / "blues.0.wav").read_bytes()[:30_000])
    good = read_clips(clips)[0]
    given = [good, *(Clip(file.stem, file, "jazz", file.stem) for file in (broken, short, tmp_path / "gone.wav"))]
    usable, skipped = usable_clips(given, MFCC13, tmp_path / "cache", 2)
    assert usable == [good]
    assert [one.file for one in skipped] == [broken, short, tmp_path / "gone.wav"]
    assert skipped[1].reason.startswith(ErrorCode.TOO_SHORT.value)


def test_the_content_of_a_file_is_told_whatever_its_name(clips: Path, tmp_path: Path) -> None:
    original = clips / "blues" / "blues.0.wav"
    copy = shutil.copy(original, tmp_path / "other.wav")
    assert content_id(Path(copy)) == content_id(original) != content_id(clips / "blues" / "blues.1.wav")
    assert len(content_id(original)) == 16


# Recipes


def test_an_unknown_recipe_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UnknownProtocolError, match="mfcc-lstm-seed"):
        protocol_named("vgg")


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_recipe_goes_by_the_name_it_is_registered_under(name: str) -> None:
    protocol = protocol_named(name)
    assert protocol.name == name
    assert protocol.description


def test_the_seed_recipe_gives_a_network_of_logits_and_tells_of_each_epoch(clips: Path, data: Workspace) -> None:
    protocol: TrainingProtocol = SeedProtocol(epochs=1)
    protocol.prepare(read_clips(clips), data)
    epochs: list[Any] = []
    network = protocol.fit(np.arange(20), 1, epochs.append)
    assert network.output_shape == (None, 10)
    assert len(epochs) == 1


def test_the_seed_recipe_trains_on_the_very_segments_it_was_given(
    clips: Path, data: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Segments] = []
    monkeypatch.setattr("training.genre.seed.train", lambda network, material, *rest: shown.append(material))
    protocol = SeedProtocol()
    protocol.prepare(read_clips(clips), data)
    features = clip_features(read_clips(clips), MFCC13, data.cache, 1)
    protocol.fit(np.array([2, 7]), 1)
    protocol.fit_segments(np.array([29, 3]), np.array([1, 0]), 1)
    np.testing.assert_array_equal(shown[0].full, np.concatenate([features[2], features[7]]))
    np.testing.assert_array_equal(shown[1].full, np.stack([features[29][1], features[3][0]]))
    assert shown[1].labels.tolist() == [GENRES.index("rock"), GENRES.index("classical")]


# Whole runs


def test_training_keeps_artists_apart_and_writes_a_whole_model_folder(
    clips: Path, data: Workspace, tmp_path: Path
) -> None:
    protocol = TinyProtocol()
    out = tmp_path / "tiny-genre"
    manifest = train_model(clips, protocol, out, Plan(folds=3), "tonestream train genre", data)
    groups = [clip.group for clip in protocol.prepared]
    for trained_on in protocol.trained_on[:3]:
        tested = set(range(30)) - set(trained_on)
        assert not {groups[i] for i in trained_on} & {groups[i] for i in tested}
    assert protocol.trained_on[3] == list(range(30))
    assert len(protocol.trained_segments) == 48

    assert load_manifest(out) == manifest
    assert {file.name for file in out.iterdir()} == {
        "CARD.md", "confusion.png", "manifest.json", "model.keras", "model.onnx", "reliability.png",
    }  # fmt: skip
    assert manifest.figures["recipe"] == "tiny"
    assert manifest.figures["split"] == {"name": "artist", "folds": 3, "seed": 1}
    assert len(manifest.figures["trained_on"]) == 30
    assert manifest.figures["leaky"]["test_segments"] == 12
    card = (out / "CARD.md").read_text(encoding="utf-8")
    assert card == genre_card(manifest)
    for told in (manifest.model_id, "LEAKY", "Nobody's rights.", "The nearest mean.", "tonestream train genre"):
        assert told in card


def test_a_model_is_evaluated_as_it_serves_and_a_leak_is_found(clips: Path, data: Workspace, tmp_path: Path) -> None:
    from shared.models.networks import GenreModel

    out = tmp_path / "tiny-genre"
    manifest = train_model(clips, TinyProtocol(), out, Plan(folds=2, leaky=False), "", data)
    assert manifest.figures["leaky"] is None
    known = evaluate_model(clips, out, "artist", data).as_json()
    assert known["leak"] == {"clips": 30, "of": 30}
    served = [
        tempered(GenreModel.load(out).predict(one).mean(axis=0, keepdims=True), manifest.track_temperature)
        for one in clip_features(read_clips(clips), MFCC13, data.cache, 1)
    ]
    right = [GENRES[p.argmax()] == clip.label for p, clip in zip(served, read_clips(clips), strict=True)]
    assert known["track_accuracy"]["value"] == pytest.approx(np.mean(right), abs=5e-4)
    confidence = sum(one["count"] * one["confidence"] for one in known["track_reliability_after"]) / 30
    assert confidence == pytest.approx(np.mean([p.max() for p in served]), abs=1e-3)

    unknown = write_clips(tmp_path / "others", artists=1, length_s=4.0, detuned=1.01)
    assert evaluate_model(unknown, out, "artist", data).as_json()["leak"] == {"clips": 0, "of": 10}


def test_the_same_seed_gives_the_same_figures(clips: Path, data: Workspace) -> None:
    first, again = (cross_validate_protocol(clips, TinyProtocol(), Plan(folds=2), data) for _ in range(2))
    assert first == again


def test_a_corrupt_clip_and_missing_artists_are_told_and_do_not_stop_a_run(
    clips: Path, data: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    (folder / "index.csv").unlink()
    (folder / "jazz" / "jazz.00054.wav").write_bytes(b"RIFF....what is this")
    found = cross_validate_protocol(folder, TinyProtocol(), Plan(folds=2, leaky=False), data).as_json()
    assert found["clips"] == 30
    assert [one["file"] for one in found["skipped"]] == ["jazz/jazz.00054.wav"]
    assert found["artists_known"] is False


def test_the_fault_filtered_split_trains_fits_and_judges_on_its_own_lists(
    clips: Path, data: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "gtzan"
    for genre in GENRES:
        (folder / genre).mkdir(parents=True)
        for number, part in enumerate(get_args(Part)):
            name = min(name for name in fault_filtered(part) if name.startswith(genre))
            shutil.copy(clips / genre / f"{genre}.{number}.wav", folder / genre / f"{name}.wav")
    protocol = TinyProtocol()
    found = cross_validate_protocol(folder, protocol, Plan("fault-filtered", leaky=False), data).as_json()
    trained = {protocol.prepared[i].name for i in protocol.trained_on[0]}
    assert trained <= fault_filtered("train")
    assert len(protocol.trained_on) == 1
    assert found["clips"] == 10
    assert found["data"].startswith("GTZAN")
    assert found["split"]["present"] == {"train": 10, "valid": 10, "test": 10}
    with pytest.raises(SplitError, match="needs the full GTZAN"):
        cross_validate_protocol(clips, TinyProtocol(), Plan("fault-filtered"), data)


class Counting:
    """A `Progress` that notes its labels and how many items passed."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def track(self, iterable: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
        for item in iterable:
            self.seen[label] = self.seen.get(label, 0) + 1
            yield item


def test_progress_is_told_of_features_and_folds(clips: Path, cache: Path) -> None:
    progress = Counting()
    cross_validate_protocol(clips, TinyProtocol(), Plan(folds=2, leaky=False), Workspace(cache, 1, progress))
    assert progress.seen["features"] == 30
    assert progress.seen["folds"] == 2
