"""Feature extraction, genre worker and mood worker: what goes in, what comes out, what is refused."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest

from services.feature_extraction.service import FeatureExtraction
from services.genre_worker.service import GenreWorker
from services.mood_worker.service import MoodWorker
from shared.audio.segment_features.extraction import segment_features as features_of
from shared.audio.segments import chosen_segments
from shared.audio.spec import LOG_MEL96, MFCC13, MFCC64, FeatureSpec
from shared.blobs.store import BlobStore
from shared.bus.base import Record
from shared.contracts.codec import Message, decode_message, encode_message
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    MOST_TAGS,
    AnswerKey,
    ErrorReport,
    IngestedAudio,
    IngestedTrack,
    MoodPrediction,
    SegmentFeatures,
    SegmentPrediction,
    SilentSegment,
    Stage,
)
from shared.contracts.topics import Channel
from shared.models.answer_key import AnswerKeys
from shared.models.catalogue import Catalogue
from shared.models.loaded import LoadedModels
from shared.models.manifest import write_manifest
from shared.models.networks import GenreModel, MoodModel, TagModel
from shared.runtime.service import AnyHandled, AnyService, Delivery, Origin, Outcome
from shared.settings import Settings
from shared.spotify.client import SpotifyClient, SpotifyCredentials
from tests.support.spotify_api import CLIENT_ID, CLIENT_SECRET, FEATURES, TRACK_ID, SpotifyApi

RATE = 22050


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(f"file://{tmp_path}/blobs")


SETTINGS = Settings()
CATALOGUE = Catalogue(SETTINGS.models_dir)


@cache
def genre_models() -> LoadedModels[GenreModel]:
    return LoadedModels(CATALOGUE, "genre", GenreModel.load, "mfcc-lstm")


@cache
def mood_models() -> LoadedModels[MoodModel]:
    return LoadedModels(CATALOGUE, "mood", MoodModel.load, SETTINGS.mood_model)


@cache
def tag_models() -> LoadedModels[TagModel]:
    return LoadedModels(CATALOGUE, "tags", TagModel.load, SETTINGS.tag_model)


def extraction(blobs: BlobStore, catalogue: Catalogue = CATALOGUE) -> FeatureExtraction:
    return FeatureExtraction(blobs, catalogue, MFCC13, 1)


def genre_worker(catalogue: Catalogue = CATALOGUE) -> GenreWorker:
    return GenreWorker(catalogue, genre_models())


def mood_worker(blobs: BlobStore, spotify: SpotifyClient | None = None, catalogue: Catalogue = CATALOGUE) -> MoodWorker:
    return MoodWorker(blobs, catalogue, mood_models(), tag_models(), spotify, 1)


def music(seconds: float) -> np.ndarray:
    """Chords that change every half second, with a little noise."""
    t = np.arange(int(seconds * RATE)) / RATE
    chords = np.array([[220, 277, 330], [247, 311, 370], [196, 247, 294]])[(t / 0.5).astype(int) % 3]
    noise = np.random.default_rng(3).standard_normal(t.size) * 0.01
    return np.asarray(np.sin(2 * np.pi * chords * t[:, None]).sum(axis=1) * 0.1 + noise, np.float32)


def stored(blobs: BlobStore, tmp_path: Path, samples: np.ndarray, **more: Any) -> IngestedTrack:
    """The samples as ingestion would announce them."""
    file = tmp_path / "decoded.wav"
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes((samples * 32767).astype("<i2").tobytes())
    audio = IngestedAudio(
        blob=blobs.put(file, "audio/x.wav"),
        sha256="ab" * 32,
        duration_s=len(samples) / RATE,
        segments=len(samples) // MFCC13.segment_samples,
    )
    return IngestedTrack.model_validate({"request_id": "r1", "track_key": "k", "source": "s", "audio": audio, **more})


def handle(service: AnyService, *messages: Message) -> list[AnyHandled]:
    deliveries = [Delivery(Record("t", 0, number, b"k", b""), message) for number, message in enumerate(messages)]
    return list(service.handle(deliveries))


def code(handled: AnyHandled) -> ErrorCode:
    assert isinstance(handled, TonestreamError), handled
    return handled.code


def test_each_segment_has_the_mfccs_librosa_gives_for_it_alone(blobs: BlobStore, tmp_path: Path) -> None:
    track = stored(blobs, tmp_path, music(10.5))
    (outcome,) = handle(extraction(blobs), track)
    assert isinstance(outcome, Outcome)
    assert [(m.index, m.start_s, m.end_s) for m in outcome.messages if isinstance(m, SegmentFeatures)] == [
        (0, 0.0, 3.0),
        (1, 3.0, 6.0),
        (2, 6.0, 9.0),
    ]
    samples = (music(10.5) * 32767).astype("<i2").astype(np.float32) / 32768
    for message in outcome.messages:
        assert isinstance(message, SegmentFeatures)
        alone = samples[message.index * 66150 : (message.index + 1) * 66150]
        expected = librosa.feature.mfcc(y=alone, sr=RATE, n_mfcc=13, n_fft=2048, hop_length=512).T
        assert message.matrix.shape == expected.shape == (130, 13)
        assert np.abs(message.matrix - expected).max() < 1e-3


def test_the_features_are_those_the_chosen_model_takes(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "logmel").mkdir()
    (tmp_path / "logmel" / "w.bin").write_bytes(b"weights")
    fields = {"kind": "genre", "labels": GENRES, "feature_spec": LOG_MEL96, "temperature": 1.0, "weights": "w.bin"}
    write_manifest(tmp_path / "logmel", "logmel", **fields, versions={}, command="", figures={})
    settings = Settings.model_validate(
        {"models_dir": tmp_path, "genre_model": "logmel", "blob_url": f"file://{tmp_path}/blobs"}
    )
    service = FeatureExtraction.build(settings)
    service.start()
    (outcome,) = handle(service, stored(blobs, tmp_path, music(10.5)))
    assert isinstance(outcome, Outcome) and len(outcome.messages) == 3
    samples = (music(10.5) * 32767).astype("<i2").astype(np.float32) / np.float32(32768)
    expected = features_of(samples[: 3 * 66150].reshape(3, 66150), LOG_MEL96)
    for message, matrix in zip(outcome.messages, expected, strict=True):
        assert isinstance(message, SegmentFeatures)
        assert message.feature_spec == LOG_MEL96.id
        np.testing.assert_array_equal(message.matrix, matrix)
        arrived = decode_message(Channel.FEATURES, encode_message(message))
        assert isinstance(arrived, SegmentFeatures)
        np.testing.assert_array_equal(arrived.matrix, matrix)


@pytest.mark.parametrize("announced", [1, 2, 3, 6])
def test_of_a_long_track_only_the_chosen_segments_are_computed_and_keep_their_times(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int
) -> None:
    computed: list[int] = []

    def counted(segments: np.ndarray, spec: Any, level_dbfs: float) -> np.ndarray:
        computed.append(len(segments))
        return features_of(segments, spec, level_dbfs)

    monkeypatch.setattr("services.feature_extraction.service.segment_features", counted)
    track = stored(blobs, tmp_path, music(19.0))
    assert track.audio is not None and track.audio.segments == 6
    shorter = track.model_copy(update={"audio": track.audio.model_copy(update={"segments": announced})})
    whole, few = (handle(extraction(blobs), each)[0] for each in (track, shorter))
    assert isinstance(whole, Outcome) and isinstance(few, Outcome)
    assert sum(computed) == 6 + announced
    for index, (position, message) in enumerate(zip(chosen_segments(6, announced), few.messages, strict=True)):
        same = whole.messages[position]
        assert isinstance(message, SegmentFeatures) and isinstance(same, SegmentFeatures)
        assert (message.index, message.start_s, message.end_s) == (index, 3.0 * position, 3.0 * position + 3)
        np.testing.assert_array_equal(message.matrix, same.matrix)


def test_silence_has_no_genre_and_silent_segments_have_no_vote(blobs: BlobStore, tmp_path: Path) -> None:
    service = extraction(blobs)
    (silent,) = handle(service, stored(blobs, tmp_path, np.zeros(9 * RATE, np.float32)))
    assert code(silent) is ErrorCode.SILENT_AUDIO
    half = music(9.0)
    half[: 3 * RATE] = 0
    (outcome,) = handle(service, stored(blobs, tmp_path, half))
    assert isinstance(outcome, Outcome)
    assert [type(message) for message in outcome.messages] == [SilentSegment, SegmentFeatures, SegmentFeatures]


def test_less_than_a_segment_is_too_short_for_a_genre_and_a_mood(blobs: BlobStore, tmp_path: Path) -> None:
    track = stored(blobs, tmp_path, music(2.9))
    (no_genre,) = handle(extraction(blobs), track)
    (no_mood,) = handle(mood_worker(blobs), track)
    assert code(no_genre) is code(no_mood) is ErrorCode.TOO_SHORT


def test_workers_have_nothing_to_do_where_there_is_no_audio_or_an_answer_already(blobs: BlobStore) -> None:
    error = ErrorReport(code=ErrorCode.NO_AUDIO, stage=Stage.INGESTION, message="no preview")
    track = IngestedTrack(request_id="r1", track_key="k", source="s", error=error)
    assert handle(extraction(blobs), track) == [Outcome()]


def test_a_blob_shorter_than_announced_is_a_typed_failure(blobs: BlobStore, tmp_path: Path) -> None:
    track = stored(blobs, tmp_path, music(9.0))
    assert track.audio is not None
    longer = track.model_copy(update={"audio": track.audio.model_copy(update={"segments": 9})})
    (handled,) = handle(extraction(blobs), longer)
    assert code(handled) is ErrorCode.INTERNAL


def features(index: int, **more: Any) -> SegmentFeatures:
    matrix = np.random.default_rng(index).standard_normal((130, 64)).astype(np.float32) * 20
    fields = {"request_id": f"r{index}", "track_key": "k", "index": index, "start_s": 3.0 * index}
    fields |= {"end_s": 3.0 * index + 3, "feature_spec": MFCC64.id, "matrix": matrix, **more}
    return SegmentFeatures.model_validate(fields)


def test_a_batch_across_tracks_is_predicted_at_once_with_the_answers_of_each_alone() -> None:
    worker = genre_worker()
    batch = [features(index) for index in range(20)]
    together = handle(worker, *batch)
    for message, handled in zip(batch, together, strict=True):
        (alone,) = handle(worker, message)
        for outcome in (handled, alone):
            assert isinstance(outcome, Outcome)
        prediction, same = handled.messages[0], alone.messages[0]  # type: ignore[union-attr]
        assert isinstance(prediction, SegmentPrediction) and isinstance(same, SegmentPrediction)
        assert prediction.request_id == message.request_id and prediction.index == message.index
        assert list(prediction.probabilities) == list(GENRES)
        assert prediction.probabilities == pytest.approx(same.probabilities, abs=1e-5)
        assert prediction.model == genre_models().own.manifest.model_id


def test_features_of_another_spec_or_shape_are_refused_and_the_others_predicted() -> None:
    handled = handle(
        genre_worker(),
        features(0),
        features(1, feature_spec="mel96"),
        features(2, matrix=np.zeros((130, 20), np.float32)),
        features(3),
        features(4, feature_spec=LOG_MEL96.id, model=genre_models().own.manifest.model_id),
    )
    assert isinstance(handled[0], Outcome) and isinstance(handled[3], Outcome)
    assert "mel96" in str(handled[1]) and "(130, 20)" in str(handled[2]) and LOG_MEL96.id in str(handled[4])
    assert code(handled[1]) is code(handled[2]) is code(handled[4]) is ErrorCode.INTERNAL


def test_the_mood_of_audio_says_that_it_was_measured(blobs: BlobStore, tmp_path: Path) -> None:
    (outcome,) = handle(mood_worker(blobs), stored(blobs, tmp_path, music(12.0)))
    assert isinstance(outcome, Outcome)
    (mood,) = outcome.messages
    assert isinstance(mood, MoodPrediction)
    assert mood.source == "audio" and mood.features is not None
    assert mood.features["duration_ms"] == pytest.approx(12_000)
    assert [(part.start_s, part.end_s) for part in mood.segments] == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert mood.embedding is not None and len(mood.embedding) == 200
    assert mood.key is not None
    assert len(mood.tags) == MOST_TAGS
    probabilities = [tag.probability for tag in mood.tags]
    assert probabilities == sorted(probabilities, reverse=True)


def test_music_among_long_silence_has_the_mood_of_the_music(blobs: BlobStore, tmp_path: Path) -> None:
    hidden = np.concatenate([np.zeros(300 * RATE, np.float32), music(18.0), np.zeros(300 * RATE, np.float32)])
    track = stored(blobs, tmp_path, hidden)
    assert track.audio is not None
    known = track.model_copy(update={"audio": track.audio.model_copy(update={"sounding": ((300, 318),)})})
    (outcome,) = handle(mood_worker(blobs), known)
    assert isinstance(outcome, Outcome)
    (mood,) = outcome.messages
    (alone,) = handle(mood_worker(blobs), stored(blobs, tmp_path, music(18.0)))
    assert isinstance(alone, Outcome) and isinstance(mood, MoodPrediction)
    (expected,) = alone.messages
    assert isinstance(expected, MoodPrediction) and mood.features is not None and expected.features is not None
    heard = {name: value for name, value in expected.features.items() if name != "duration_ms"}
    assert {name: value for name, value in mood.features.items() if name in heard} == pytest.approx(heard, abs=1e-4)


def test_what_is_loud_enough_for_a_genre_is_loud_enough_for_a_mood(blobs: BlobStore, tmp_path: Path) -> None:
    quiet = music(9.0)
    quiet *= 10 ** (-66.0 / 20) / float(np.sqrt(np.mean(np.square(quiet))))
    for samples in (quiet, quiet + np.float32(0.3)):
        (handled,) = handle(mood_worker(blobs), stored(blobs, tmp_path, samples))
        assert isinstance(handled, Outcome), handled


def test_a_constant_offset_has_no_mood(blobs: BlobStore, tmp_path: Path) -> None:
    (handled,) = handle(mood_worker(blobs), stored(blobs, tmp_path, np.full(9 * RATE, 0.5, np.float32)))
    assert code(handled) is ErrorCode.SILENT_AUDIO


def test_audio_that_an_older_worker_announced_can_still_be_read() -> None:
    older = {"blob": "blob:audio/x.wav", "sha256": "ab" * 32, "duration_s": 9.0, "segments": 3}
    audio = IngestedAudio.model_validate(older)
    assert audio.sounding == () and audio.chosen is None


def test_silence_has_no_mood(blobs: BlobStore, tmp_path: Path) -> None:
    track = stored(blobs, tmp_path, np.zeros(9 * RATE, np.float32))
    (handled,) = handle(mood_worker(blobs), track)
    assert code(handled) is ErrorCode.SILENT_AUDIO


def test_without_audio_the_mood_fails_for_the_reason_ingestion_gave(blobs: BlobStore) -> None:
    error = ErrorReport(code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="404")
    track = IngestedTrack(request_id="r1", track_key="k", source="s", error=error)
    worker = mood_worker(blobs)
    (fault,) = handle(worker, track)
    assert isinstance(fault, TonestreamError)
    (failed,) = worker.give_up(Origin("r1", "k", Record("t", 0, 0, b"k", b"")), fault).messages
    assert isinstance(failed, MoodPrediction) and failed.error == error


@pytest.fixture
def spotify() -> Iterator[tuple[SpotifyApi, SpotifyClient]]:
    with SpotifyApi() as api:
        credentials = SpotifyCredentials(CLIENT_ID, CLIENT_SECRET)
        yield api, SpotifyClient(credentials, api_url=api.api_url, token_url=api.token_url)


def test_where_spotify_gives_features_the_mood_is_read_from_them(
    blobs: BlobStore, spotify: tuple[SpotifyApi, SpotifyClient]
) -> None:
    error = ErrorReport(code=ErrorCode.NO_AUDIO, stage=Stage.INGESTION, message="no preview")
    track = IngestedTrack(request_id="r1", track_key="k", source="s", spotify_id=TRACK_ID, error=error)
    (outcome,) = handle(mood_worker(blobs, spotify[1]), track)
    assert isinstance(outcome, Outcome)
    (mood,) = outcome.messages
    assert isinstance(mood, MoodPrediction) and mood.features is not None
    assert mood.source == "spotify"
    assert mood.features["valence"] == FEATURES["valence"]


def test_with_spotifys_features_the_audio_is_heard_all_the_same(
    blobs: BlobStore, tmp_path: Path, spotify: tuple[SpotifyApi, SpotifyClient]
) -> None:
    (outcome,) = handle(mood_worker(blobs, spotify[1]), stored(blobs, tmp_path, music(9.0), spotify_id=TRACK_ID))
    assert isinstance(outcome, Outcome)
    (mood,) = outcome.messages
    assert isinstance(mood, MoodPrediction) and mood.features is not None
    assert (mood.source, mood.features["valence"]) == ("spotify", FEATURES["valence"])
    assert mood.tags and mood.key is not None and len(mood.segments) == 3


def test_with_spotifys_features_silent_audio_still_has_a_mood(
    blobs: BlobStore, tmp_path: Path, spotify: tuple[SpotifyApi, SpotifyClient]
) -> None:
    silent = stored(blobs, tmp_path, np.zeros(9 * RATE, np.float32), spotify_id=TRACK_ID)
    (outcome,) = handle(mood_worker(blobs, spotify[1]), silent)
    assert isinstance(outcome, Outcome)
    (mood,) = outcome.messages
    assert isinstance(mood, MoodPrediction)
    assert mood.source == "spotify" and mood.tags == ()


@pytest.mark.parametrize("status", [403, 429, 500])
def test_where_spotify_refuses_features_the_audio_is_measured_and_without_audio_the_reason_told(
    blobs: BlobStore,
    tmp_path: Path,
    spotify: tuple[SpotifyApi, SpotifyClient],
    status: int,
) -> None:
    api, client = spotify
    api.break_features(status, b"{}", {"Retry-After": "7200"})
    worker = mood_worker(blobs, client)
    (outcome,) = handle(worker, stored(blobs, tmp_path, music(9.0), spotify_id=TRACK_ID))
    assert isinstance(outcome, Outcome) and isinstance(outcome.messages[0], MoodPrediction)
    assert outcome.messages[0].source == "audio"
    error = ErrorReport(code=ErrorCode.NO_AUDIO, stage=Stage.INGESTION, message="no preview")
    (fault,) = handle(
        worker, IngestedTrack(request_id="r2", track_key="k", source="s", spotify_id=TRACK_ID, error=error)
    )
    assert code(fault) is ErrorCode.SPOTIFY_UNAVAILABLE


# By the answer key that travels with the track


def answer_key_by(folder: str, **more: Any) -> AnswerKey:
    model = CATALOGUE.find("genre", folder)
    assert model is not None
    return AnswerKeys(SETTINGS, CATALOGUE).by(model.manifest).model_copy(update=more)


@pytest.mark.parametrize(("model", "spec"), [("mfcc-lstm", MFCC64), ("musicnn-lstm", LOG_MEL96)])
def test_the_features_are_those_of_the_model_that_the_track_names(
    blobs: BlobStore, tmp_path: Path, model: str, spec: FeatureSpec
) -> None:
    answer_key = answer_key_by(model)
    (outcome,) = handle(extraction(blobs), stored(blobs, tmp_path, music(7.0), answer_key=answer_key))
    assert isinstance(outcome, Outcome)
    for message in outcome.messages:
        arrived = decode_message(Channel.FEATURES, encode_message(message))
        assert isinstance(arrived, SegmentFeatures)
        assert (arrived.feature_spec, arrived.model) == (spec.id, answer_key.genre_model)
        assert arrived.matrix.shape == (spec.frames, spec.coefficients)


def test_a_batch_for_two_models_is_one_pass_for_each_and_each_segment_is_answered_by_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = genre_worker()
    mel = np.random.default_rng(1).random((188, 96)).astype(np.float32)
    accurate = answer_key_by("musicnn-lstm")
    batch = [
        features(index)
        if index % 2
        else features(index, model=accurate.genre_model, feature_spec=accurate.feature_spec, matrix=mel)
        for index in range(8)
    ]
    passes: list[tuple[str, int]] = []
    predict = GenreModel.predict

    def counted(model: GenreModel, matrices: np.ndarray) -> np.ndarray:
        passes.append((model.manifest.name, len(matrices)))
        return predict(model, matrices)

    monkeypatch.setattr(GenreModel, "predict", counted)
    outcomes = handle(worker, *batch)
    assert sorted(passes) == [("mfcc-lstm", 4), ("musicnn-lstm", 4)]
    for message, outcome in zip(batch, outcomes, strict=True):
        assert isinstance(outcome, Outcome)
        (prediction,) = outcome.messages
        assert isinstance(prediction, SegmentPrediction)
        assert (prediction.index, prediction.feature_spec) == (message.index, message.feature_spec)
        assert prediction.model == (message.model or genre_models().own.manifest.model_id)
        found = CATALOGUE.find("genre", prediction.model)
        assert found is not None and prediction.calibration == found.manifest.calibration


def test_features_of_a_version_that_named_no_model_go_to_one_that_takes_them() -> None:
    mel = np.random.default_rng(1).random((188, 96)).astype(np.float32)
    (outcome,) = handle(genre_worker(), features(0, feature_spec=LOG_MEL96.id, matrix=mel))
    assert isinstance(outcome, Outcome)
    (prediction,) = outcome.messages
    assert isinstance(prediction, SegmentPrediction) and prediction.model == answer_key_by("musicnn-lstm").genre_model


def test_the_mood_and_its_tags_come_from_the_models_that_the_track_names(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(models: LoadedModels[Any]) -> None:
        def get(model_id: str) -> Any:
            asked.append(model_id)
            return models.own

        monkeypatch.setattr(models, "get", get)

    noted(mood_models())
    noted(tag_models())
    answer_key = answer_key_by("mfcc-lstm", mood_model="another-mood", tag_model="other-tags")
    (outcome,) = handle(mood_worker(blobs), stored(blobs, tmp_path, music(9.0), answer_key=answer_key))
    assert isinstance(outcome, Outcome) and asked == ["other-tags", "another-mood"]
    (mood,) = outcome.messages
    assert isinstance(mood, MoodPrediction) and mood.calibration == mood_models().own.manifest.calibration


def test_what_names_a_missing_model_is_held_until_the_time_is_up_and_then_fails(
    blobs: BlobStore, tmp_path: Path
) -> None:
    missing = answer_key_by("mfcc-lstm", feature_spec="f", genre_model="g", mood_model="m")
    track = stored(blobs, tmp_path, music(9.0), answer_key=missing)
    segment = features(0, model="g")
    patient, done = Catalogue(SETTINGS.models_dir, wait_s=60), CATALOGUE
    waiting: list[tuple[Message, AnyService]] = [
        (track, extraction(blobs, patient)),
        (segment, genre_worker(patient)),
        (track, mood_worker(blobs, catalogue=patient)),
    ]
    for message, service in waiting:
        assert "is not installed in this service" in str(service.held(message))
    out_of_time: list[tuple[Message, AnyService]] = [
        (track, extraction(blobs, done)),
        (segment, genre_worker(done)),
        (track, mood_worker(blobs, catalogue=done)),
    ]
    for message, service in out_of_time:
        assert service.held(message) is None
        (handled,) = handle(service, message)
        assert code(handled) is ErrorCode.INTERNAL and "not installed" in str(handled)
    # Who needs no model is not held for one.
    answered = track.model_copy(update={"follows": "r0"})
    error = ErrorReport(code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="404")
    silent = track.model_copy(update={"audio": None, "error": error})
    for message in (answered, silent, stored(blobs, tmp_path, music(9.0))):
        assert extraction(blobs, patient).held(message) is None
        assert mood_worker(blobs, catalogue=patient).held(message) is None
