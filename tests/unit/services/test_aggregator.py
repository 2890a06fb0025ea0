"""The aggregator: how segments vote, what a result says, and that each request has exactly one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from services.aggregator.answer import Calibrations
from services.aggregator.service import Aggregator
from services.aggregator.vote import vote
from shared.blobs.store import BlobStore
from shared.bus.base import Committed, Record
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    AnswerKey,
    Calibration,
    ErrorReport,
    GenreFailure,
    IngestedAudio,
    IngestedTrack,
    MoodPrediction,
    MoodSegment,
    Overdue,
    SegmentPrediction,
    SilentSegment,
    Stage,
    Status,
    Tag,
    TrackResult,
)
from shared.contracts.topics import Topics
from shared.models.answer_key import ANSWER_VERSION, AnswerKeys, result_key
from shared.models.catalogue import Catalogue
from shared.models.manifest import load_manifest, write_manifest
from shared.runtime.envelope import outgoing
from shared.runtime.service import Delivery, Origin
from shared.settings import Settings, VoteStrategy
from shared.state.audio import SharedAudio
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Part, Requests
from shared.state.results import ResultCache
from tests.support.state import left_over

SHA = "ab" * 32
ANSWER_KEY = AnswerKey(
    feature_spec="spec",
    genre_model="genre-model",
    mood_model="mood-model",
    tag_model="tag-model",
    vote="soft",
    answer_version=ANSWER_VERSION,
)


def other_answer_key(**changed: object) -> AnswerKey:
    return ANSWER_KEY.model_copy(update=changed)


def one_hot(label: str, p: float = 0.91) -> dict[str, float]:
    rest = (1 - p) / (len(GENRES) - 1)
    return {genre: p if genre == label else rest for genre in GENRES}


def track(request_id: str = "r1", segments: int = 3, **more: object) -> IngestedTrack:
    audio = IngestedAudio(blob=f"blob:audio/{SHA}.wav", sha256=SHA, duration_s=3.0 * segments, segments=segments)
    fields = {"request_id": request_id, "track_key": "k", "source": "song.mp3", "audio": audio, **more}
    return IngestedTrack.model_validate(fields)


def prediction(index: int, label: str = "jazz", request_id: str = "r1", p: float = 0.91) -> SegmentPrediction:
    return SegmentPrediction(
        request_id=request_id,
        track_key="k",
        index=index,
        start_s=3.0 * index,
        end_s=3.0 * index + 3,
        probabilities=one_hot(label, p),
        feature_spec="spec",
        model="genre-model",
        timings_ms={"genre-worker": 1.0},
    )


def mood(request_id: str = "r1") -> MoodPrediction:
    return MoodPrediction(
        request_id=request_id,
        track_key="k",
        probabilities={"calm": 0.7, "energetic": 0.1, "happy": 0.1, "sad": 0.1},
        features=dict.fromkeys(AUDIO_FEATURES, 0.5),
        source="audio",
        model="mood-model",
    )


def failure(code: ErrorCode, request_id: str = "r1") -> GenreFailure:
    error = ErrorReport(code=code, stage=Stage.FEATURE_EXTRACTION, message="why")
    return GenreFailure(request_id=request_id, track_key="k", error=error)


class Bench:
    """An aggregator over a Redis of this process; a second one over the same state stands for another worker."""

    def __init__(self, folder: str) -> None:
        self.client = connect(f"memory://{random.random()}")
        self.keys = Keys("t")
        self.folder = folder
        self.blobs = BlobStore(f"file://{folder}")
        self.audio = SharedAudio(self.blobs, self.requests(), 1000)
        self.cache = ResultCache(self.client, self.keys, 1000)
        self.offsets = itertools.count()

    def worker(
        self, deadline_s: float = 1000.0, answer_key: AnswerKey = ANSWER_KEY, calibrations: Calibrations | None = None
    ) -> Aggregator:
        return Aggregator(self.requests(deadline_s), self.cache, self.audio, answer_key, calibrations or {})

    def requests(self, deadline_s: float = 1000.0) -> Requests:
        return Requests.open(self.client, self.keys, Stage.AGGREGATOR.value, 1000, deadline_s)

    def deliver(self, part: Part) -> Delivery[Part]:
        sent = outgoing(Topics("t"), part)
        return Delivery(Record(sent.topic, 0, next(self.offsets), sent.key, sent.value), part)


@pytest.fixture
def bench(tmp_path: object) -> Iterator[Bench]:
    yield Bench(str(tmp_path))


def results(outcomes: object) -> list[TrackResult]:
    assert isinstance(outcomes, list)
    return [message for outcome in outcomes for message in outcome.messages if isinstance(message, TrackResult)]


def rows(*labels: str) -> np.ndarray:
    return np.array([[one_hot(label)[genre] for genre in GENRES] for label in labels])


def starts(count: int) -> np.ndarray:
    return np.arange(count) * 3.0


def test_soft_voting_lets_one_sure_segment_outweigh_two_unsure_ones() -> None:
    unsure = np.full(10, 0.08)
    unsure[GENRES.index("blues")] = 0.28
    segments = np.vstack([unsure, unsure, rows("metal")])
    assert GENRES[vote(segments, starts(3), "soft").winner] == "metal"
    assert GENRES[vote(segments, starts(3), "majority").winner] == "blues"


def test_parts_vote_once_each_however_many_segments_they_have() -> None:
    # Two 30 s parts lean to rock by 6 of 10; a third is jazz throughout. By segments jazz leads 18 to 12.
    part = ["rock"] * 6 + ["jazz"] * 4
    segments = rows(*part, *part, *["jazz"] * 10)
    assert GENRES[vote(segments, starts(30), "majority").winner] == "jazz"
    verdict = vote(segments, starts(30), "parts")
    assert GENRES[verdict.winner] == "rock"
    assert verdict.probabilities[GENRES.index("rock")] == pytest.approx(2 / 3)
    assert verdict.agreement == pytest.approx(12 / 30)


def test_a_draw_goes_to_the_higher_mean_probability() -> None:
    segments = np.vstack([rows("pop"), np.array([[one_hot("blues", 0.95)[genre] for genre in GENRES]])])
    assert GENRES[vote(segments, starts(2), "majority").winner] == "blues"


def test_a_temperature_calibrates_the_mean_probabilities_of_the_track() -> None:
    segments = rows("jazz", "jazz", "blues")
    plain = vote(segments, starts(3), "soft")
    for temperature in (0.5, 1.0, 3.0):
        verdict = vote(segments, starts(3), "soft", temperature)
        expected = plain.probabilities ** (1 / temperature)
        np.testing.assert_allclose(verdict.probabilities, expected / expected.sum())
        assert (verdict.winner, verdict.agreement) == (plain.winner, plain.agreement)


def test_a_very_low_temperature_is_sure_of_the_winner() -> None:
    probabilities = vote(rows("jazz", "blues", "jazz"), starts(3), "soft", 1e-4).probabilities
    assert probabilities[GENRES.index("jazz")] == probabilities.sum() == 1.0


@pytest.mark.parametrize("strategy", ["majority", "parts"])
def test_shares_of_votes_are_not_calibrated(strategy: VoteStrategy) -> None:
    segments = rows("jazz", "jazz", "blues")
    plain, heated = (vote(segments, starts(3), strategy, temperature) for temperature in (1.0, 3.0))
    np.testing.assert_array_equal(heated.probabilities, plain.probabilities)


def test_no_segments_are_no_vote() -> None:
    with pytest.raises(ValueError, match="segments"):
        vote(np.empty((0, 10)), np.empty(0), "soft")


def test_a_request_is_answered_when_its_last_part_came_in_whatever_order(bench: Bench) -> None:
    parts: list[Part] = [track(), prediction(0), prediction(1), prediction(2, "blues"), mood()]
    for number, order in enumerate(itertools.islice(itertools.permutations(parts), 0, 120, 7)):
        request_id = f"r{number}"
        worker = bench.worker()
        found = []
        for part in order:
            found += results(worker.handle([bench.deliver(part.model_copy(update={"request_id": request_id}))]))
        (result,) = found
        assert result.request_id == request_id
        assert result.status is Status.OK
        assert result.genre is not None and result.genre.label == "jazz"
        assert [segment.label for segment in result.genre.segments] == ["jazz", "jazz", "blues"]
        for segment in result.genre.segments:
            assert segment.runner_up is not None and segment.runner_up.label != segment.label
            assert segment.runner_up.confidence <= segment.confidence
        assert result.genre.agreement == pytest.approx(2 / 3, abs=1e-6)
        assert result.mood is not None and result.mood.label == "calm"
        assert result.timings_ms["genre-worker"] == 3.0


def test_a_result_tells_the_next_genres_the_audio_features_and_the_tags(bench: Bench) -> None:
    tagged = mood().model_copy(update={"tags": (Tag(label="acoustic", probability=0.4),)})
    blues = prediction(0, "blues").model_copy(update={"probabilities": {**one_hot("jazz", 0.6), "blues": 0.3}})
    blues = blues.model_copy(update={"probabilities": {k: v / 1.2556 for k, v in blues.probabilities.items()}})
    parts: list[Part] = [track(segments=1), blues, tagged]
    (result,) = results(bench.worker().handle([bench.deliver(part) for part in parts]))
    assert result.genre is not None and result.audio_features is not None
    assert [result.genre.label, *(one.label for one in result.genre.alternatives)] == ["jazz", "blues", "classical"]
    assert result.genre.alternatives[0].confidence == result.genre.probabilities["blues"]
    assert result.tags == tagged.tags
    assert (result.audio_features.source, result.audio_features.valence) == ("audio", 0.5)


def test_the_mood_says_how_far_the_track_moves(bench: Bench) -> None:
    quiet = MoodSegment(start_s=0, end_s=3, energy=0.2, valence=0.5, label="calm", confidence=0.9)
    loud = MoodSegment(start_s=3, end_s=6, energy=0.8, valence=0.5, label="energetic", confidence=0.9)
    moving = mood().model_copy(update={"segments": (quiet, loud)})
    parts: list[Part] = [track(segments=1), prediction(0), moving]
    (result,) = results(bench.worker().handle([bench.deliver(part) for part in parts]))
    assert result.mood is not None and result.mood.dynamics is not None
    assert result.mood.segments == (quiet, loud)
    assert result.mood.dynamics.energy == pytest.approx(0.3)
    assert result.mood.dynamics.valence == 0.0


def test_an_embedding_is_kept_for_all_and_told_to_those_who_asked(bench: Bench) -> None:
    heard = mood().model_copy(update={"embedding": (0.5, 1.5)})
    parts: list[Part] = [track(segments=1, embedding=False), prediction(0), heard]
    (first,) = results(bench.worker().handle([bench.deliver(part) for part in parts]))
    kept = bench.cache.find([result_key(ANSWER_KEY, SHA, "audio")])
    assert first.embedding is None
    assert kept is not None and kept.embedding == (0.5, 1.5)
    (asked,) = results(bench.worker().handle([bench.deliver(track("r2", cached=kept, embedding=True))]))
    (silent,) = results(bench.worker().handle([bench.deliver(track("r3", cached=kept))]))
    assert asked.embedding == (0.5, 1.5) and silent.embedding is None


def test_a_result_that_an_older_version_cached_has_audio_features_too(bench: Bench) -> None:
    parts: list[Part] = [track(segments=1), prediction(0), mood()]
    (made,) = results(bench.worker().handle([bench.deliver(part) for part in parts]))
    older = made.model_copy(update={"audio_features": None, "request_id": "r0"})
    (again,) = results(bench.worker().handle([bench.deliver(track("r2", cached=older))]))
    assert again.audio_features == made.audio_features


def test_a_batch_that_was_not_committed_is_answered_again_with_the_same_words(bench: Bench) -> None:
    batch = [bench.deliver(part) for part in (track(), prediction(0), prediction(1), prediction(2), mood())]
    first = results(bench.worker().handle(batch))
    again = results(bench.worker().handle(batch))
    assert first == again and len(first) == 1


def test_of_two_aggregators_that_see_a_request_complete_one_answers(bench: Bench) -> None:
    one, other = bench.worker(), bench.worker()
    *before, last = [bench.deliver(part) for part in (track(), prediction(0), prediction(1), prediction(2), mood())]
    assert results(one.handle(before)) == []
    assert len(results(one.handle([last]))) == 1
    # The other worker gets a part of the same request once more, as after a rebalance.
    assert results(other.handle([before[1]])) == []
    # And the record that answered, redelivered to the other because the first died before its commit: answered again.
    assert len(results(other.handle([last]))) == 1


def test_after_the_answer_late_parts_say_nothing(bench: Bench) -> None:
    worker = bench.worker()
    batch = [bench.deliver(part) for part in (track(), prediction(0), prediction(1), prediction(2), mood())]
    outcomes = worker.handle(batch)
    for outcome in outcomes:
        for clean_up in outcome.after_commit:
            clean_up()
    assert results(worker.handle([bench.deliver(part) for part in (track(), mood(), prediction(1))])) == []
    assert left_over(bench.client, bench.keys) == {}


@pytest.mark.parametrize("parts", [1, 2])
def test_cleaning_up_removes_the_votes_and_the_blob_of_the_last_request_that_needed_it(
    bench: Bench, tmp_path: object, parts: int
) -> None:
    wav = bench.blobs._path("blob:x")  # any file will do
    with open(wav, "wb") as file:  # noqa: PTH123
        file.write(b"audio")
    owners = ["r1", "r2"][:parts]
    for owner in owners:
        reference = bench.audio.keep(Path(wav), SHA, owner, Record("t.requests", 0, 0, b"k", b""))
    for number, owner in enumerate(owners):
        assert bench.blobs.exists(reference)
        outcomes = bench.worker().handle(
            [bench.deliver(part) for part in (track(owner), failure(ErrorCode.TOO_SHORT, owner), mood(owner))]
        )
        for outcome in outcomes:
            for clean_up in outcome.after_commit:
                clean_up()
        assert bench.blobs.exists(reference) is (number + 1 < parts)


def test_a_half_that_cannot_come_makes_the_result_partial_with_the_reason(bench: Bench) -> None:
    (result,) = results(
        bench.worker().handle([bench.deliver(part) for part in (track(), failure(ErrorCode.SILENT_AUDIO), mood())])
    )
    assert result.status is Status.PARTIAL
    assert result.genre is None and result.mood is not None
    assert [error.code for error in result.errors] == [ErrorCode.SILENT_AUDIO]


def test_the_same_reason_for_both_halves_is_told_once(bench: Bench) -> None:
    error = ErrorReport(code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="404")
    without_audio = track(audio=None, error=error)
    without_mood = MoodPrediction(request_id="r1", track_key="k", error=error)
    (result,) = results(bench.worker().handle([bench.deliver(without_audio), bench.deliver(without_mood)]))
    assert result.status is Status.FAILED
    assert result.errors == (error,)


def test_silent_segments_are_counted_but_have_no_vote(bench: Bench) -> None:
    silent = SilentSegment(request_id="r1", track_key="k", index=2)
    (result,) = results(
        bench.worker().handle([bench.deliver(p) for p in (track(), prediction(0), prediction(1), silent, mood())])
    )
    assert result.genre is not None and len(result.genre.segments) == 2


def test_a_request_whose_worker_is_gone_ends_overdue_with_what_is_there(bench: Bench) -> None:
    worker = bench.worker(deadline_s=-1.0)
    worker.handle([bench.deliver(part) for part in (track(), prediction(0), mood())])
    (reminder,) = worker.tick()
    assert isinstance(reminder, Overdue)
    (result,) = results(worker.handle([bench.deliver(reminder)]))
    assert result.status is Status.PARTIAL
    assert result.mood is not None and result.genre is None
    assert "1 of 3 segments" in result.errors[0].message
    assert results(worker.handle([bench.deliver(reminder)])) == []


def test_parts_of_a_request_nobody_made_wait_for_nothing_and_expire(bench: Bench) -> None:
    worker = bench.worker(deadline_s=-1.0)
    worker.handle([bench.deliver(prediction(0, request_id="nobodys"))])
    assert list(worker.tick()) == []
    assert bench.requests().unfinished() == 0
    assert bench.client.ttl(bench.keys.request("nobodys")) > 0


def test_a_prediction_beyond_the_end_of_the_track_takes_no_segments_place(bench: Bench) -> None:
    worker = bench.worker()
    parts: list[Part] = [track(segments=3), mood(), prediction(0), prediction(1), prediction(99, "metal")]
    assert results(worker.handle([bench.deliver(part) for part in parts])) == []
    silent_twice = SilentSegment(request_id="r1", track_key="k", index=1)
    assert results(worker.handle([bench.deliver(silent_twice)])) == []
    (result,) = results(worker.handle([bench.deliver(prediction(2))]))
    assert result.genre is not None
    assert [segment.start_s for segment in result.genre.segments] == [0.0, 3.0, 6.0]


def test_whole_answers_are_cached_and_told_to_the_next_in_their_own_name(bench: Bench) -> None:
    worker = bench.worker()
    worker.handle([bench.deliver(part) for part in (track(), prediction(0), prediction(1), prediction(2), mood())])
    cached = bench.cache.find([result_key(ANSWER_KEY, SHA, "audio")])
    assert cached is not None
    again = track("r2", source="copy.mp3", cached=cached, timings_ms={"ingestion": 5.0})
    (result,) = results(worker.handle([bench.deliver(again)]))
    assert (result.request_id, result.cached, result.track.source) == ("r2", True, "copy.mp3")
    assert result.genre == cached.genre
    assert result.timings_ms["ingestion"] == 5.0


@pytest.mark.parametrize(("code", "kept"), [(ErrorCode.TOO_SHORT, True), (ErrorCode.INTERNAL, False)])
def test_failures_are_cached_only_where_the_audio_itself_is_the_reason(
    bench: Bench, code: ErrorCode, kept: bool
) -> None:
    error = ErrorReport(code=code, stage=Stage.FEATURE_EXTRACTION, message="why")
    no_mood = MoodPrediction(request_id="r1", track_key="k", error=error)
    bench.worker().handle([bench.deliver(part) for part in (track(), failure(code), no_mood)])
    assert (bench.cache.find([result_key(ANSWER_KEY, SHA, "audio")]) is not None) is kept


def test_an_answer_by_another_model_is_not_cached_under_this_ones_name(bench: Bench) -> None:
    old = [prediction(index).model_copy(update={"model": "older"}) for index in range(3)]
    parts: list[Part] = [track(), *old, mood()]
    (result,) = results(bench.worker().handle([bench.deliver(part) for part in parts]))
    assert result.genre is not None and result.genre.model == "older"
    assert bench.cache.find([result_key(ANSWER_KEY, SHA, "audio")]) is None


def test_a_track_announced_twice_keeps_its_first_length(bench: Bench) -> None:
    worker = bench.worker()
    parts = (track(segments=2), track(segments=9), prediction(0), prediction(1), mood())
    (result,) = results(worker.handle([bench.deliver(part) for part in parts]))
    assert result.genre is not None and len(result.genre.segments) == 2


def test_the_result_key_changes_with_everything_the_answer_follows_from() -> None:
    makers: list[Callable[[], str]] = [
        lambda: result_key(ANSWER_KEY, SHA, "audio"),
        lambda: result_key(ANSWER_KEY, "cd" * 32, "audio"),
        lambda: result_key(ANSWER_KEY, SHA, "spotify:x"),
        lambda: result_key(other_answer_key(feature_spec="spec2"), SHA, "audio"),
        lambda: result_key(other_answer_key(genre_model="genre-model2"), SHA, "audio"),
        lambda: result_key(other_answer_key(mood_model="mood-model2"), SHA, "audio"),
        lambda: result_key(other_answer_key(tag_model="tag-model2"), SHA, "audio"),
        lambda: result_key(other_answer_key(vote="parts"), SHA, "audio"),
        lambda: result_key(other_answer_key(max_segments=20), SHA, "audio"),
        lambda: result_key(other_answer_key(answer_version=ANSWER_VERSION + 1), SHA, "audio"),
    ]
    assert len({make() for make in makers}) == len(makers)


def test_answers_cached_before_answer_keys_travelled_are_still_found() -> None:
    two = {"answer_version": 2}
    assert result_key(other_answer_key(**two), SHA, "audio").startswith("014792e719ff8167cf007c97864737f8")
    limited = other_answer_key(**two, max_segments=20)
    assert result_key(limited, SHA, "spotify:x").startswith("284b976db04d71ca4e6d89294d8f5929")


def test_an_answer_is_the_same_whatever_the_order_of_its_parts(bench: Bench) -> None:
    parts: list[Part] = [track(), prediction(0, p=0.5), prediction(1, "blues", p=0.7), prediction(2, p=0.6), mood()]
    answers = []
    for request_id, order in (("forth", parts), ("back", parts[::-1])):
        delivered = [bench.deliver(part.model_copy(update={"request_id": request_id})) for part in order]
        answers += results(bench.worker().handle(delivered))
    forth, back = answers
    assert forth.model_copy(update={"request_id": "back"}) == back


WHOLE = (track(), prediction(0), prediction(1), prediction(2, "blues"), mood())


def answered(bench: Bench, calibrations: Calibrations, parts: Sequence[Part] = WHOLE) -> TrackResult:
    (result,) = results(bench.worker(calibrations=calibrations).handle([bench.deliver(part) for part in parts]))
    return result


def test_the_answer_is_calibrated_as_the_manifest_of_its_model_says(tmp_path: Path) -> None:
    plain, calibrated = (
        answered(Bench(str(tmp_path)), {"genre-model": Calibration(track_temperature=temperature)}).genre
        for temperature in (1.0, 3.0)
    )
    assert plain is not None and calibrated is not None
    expected = np.array(list(plain.probabilities.values())) ** (1 / 3)
    np.testing.assert_allclose(list(calibrated.probabilities.values()), expected / expected.sum(), atol=1e-5)
    assert calibrated.confidence == calibrated.probabilities["jazz"] < plain.confidence
    assert calibrated.segments == plain.segments and calibrated.agreement == plain.agreement


@pytest.mark.parametrize(("threshold", "uncertain"), [(None, False), (0.5, False), (0.75, True)])
def test_a_label_under_the_threshold_of_its_model_is_uncertain(
    bench: Bench, threshold: float | None, uncertain: bool
) -> None:
    limit = Calibration(uncertain_below=threshold)
    result = answered(bench, {"genre-model": limit, "mood-model": limit})
    assert result.genre is not None and result.genre.label == "jazz" and result.genre.uncertain is uncertain
    assert result.mood is not None and result.mood.label == "calm" and result.mood.uncertain is uncertain
    assert result.status is Status.OK


def test_a_label_at_the_threshold_is_certain(bench: Bench) -> None:
    result = answered(bench, {"mood-model": Calibration(uncertain_below=0.7)})
    assert result.mood is not None and result.mood.confidence == 0.7 and not result.mood.uncertain


@pytest.mark.parametrize("older", [3, 1], ids=["all by the older model", "one by the older model"])
def test_in_the_middle_of_an_upgrade_the_calibration_of_one_model_is_not_put_on_another(
    bench: Bench, older: int
) -> None:
    predictions = [prediction(0), prediction(1), prediction(2, "blues")]
    mixed = [p.model_copy(update={"model": "older"}) for p in predictions[:older]] + predictions[older:]
    parts: list[Part] = [track(), *mixed, mood().model_copy(update={"model": "older-mood"})]
    calibration = Calibration(track_temperature=3.0, uncertain_below=0.99)
    result = answered(bench, {"genre-model": calibration, "mood-model": calibration}, parts)
    assert result.genre is not None and result.mood is not None
    assert result.genre.confidence == pytest.approx((0.91 * 2 + 0.01) / 3, abs=1e-6)
    assert not result.genre.uncertain and not result.mood.uncertain


def test_a_worker_calibrates_by_the_manifests_of_the_installed_models(tmp_path: Path) -> None:
    shipped = Settings()
    for name, more in (
        (shipped.genre_model, {"track_temperature": 3.0}),
        (shipped.mood_model, {}),
        (shipped.tag_model, {}),
    ):
        manifest = load_manifest(shipped.models_dir / name)
        (tmp_path / name).mkdir()
        (tmp_path / name / manifest.weights).write_bytes((shipped.models_dir / name / manifest.weights).read_bytes())
        fields = {field: getattr(manifest, field) for field in type(manifest).model_fields}
        del fields["model_id"], fields["sha256"]
        write_manifest(tmp_path / name, name, **fields | more | {"uncertain_below": 0.8})
    settings = shipped.model_copy(
        update={"models_dir": tmp_path, "redis_url": SecretStr("memory://"), "blob_url": f"file://{tmp_path}/blobs"}
    )
    answer_key = AnswerKeys(settings, Catalogue.of(settings)).own
    worker = Aggregator.build(settings)
    parts: list[Part] = [
        track(),
        *(prediction(index).model_copy(update={"model": answer_key.genre_model}) for index in range(3)),
        mood().model_copy(update={"model": answer_key.mood_model}),
    ]
    deliveries = [Delivery(Record("t", 0, offset, b"k", b""), part) for offset, part in enumerate(parts)]
    (result,) = results(worker.handle(deliveries))
    assert result.genre is not None and result.mood is not None
    assert 0.0 < result.genre.confidence < 0.8 and result.genre.uncertain
    assert result.mood.uncertain


def test_the_evidence_of_chosen_segments_keeps_its_place_in_the_track(bench: Bench) -> None:
    times = {"start_s": 300.0, "end_s": 303.0}
    late = prediction(1).model_copy(update=times)
    result = answered(bench, {}, [track(segments=2), prediction(0), late, mood()])
    assert result.genre is not None
    assert [(segment.start_s, segment.end_s) for segment in result.genre.segments] == [(0.0, 3.0), (300.0, 303.0)]


def test_another_number_of_segments_is_another_answer_in_the_cache(bench: Bench) -> None:
    limited = other_answer_key(max_segments=3)
    bench.worker(answer_key=limited).handle([bench.deliver(part) for part in WHOLE])
    assert bench.cache.find([result_key(ANSWER_KEY, SHA, "audio")]) is None
    assert bench.cache.find([result_key(limited, SHA, "audio")]) is not None


# Requests for the same track at once


def following(request_id: str, leader: str, **more: object) -> IngestedTrack:
    fields = {"request_id": request_id, "track_key": "k", "source": f"{request_id}.mp3", "follows": leader, **more}
    return IngestedTrack.model_validate(fields)


def all_parts(request_id: str = "r1", segments: int = 2) -> list[Part]:
    return [
        track(request_id, segments),
        *(prediction(index, request_id=request_id) for index in range(segments)),
        mood(request_id),
    ]


def lead(bench: Bench, leader: str, *followers: str) -> None:
    """What ingestion notes when it announces these requests."""
    noted, record = Coalescing(bench.requests()), Record("t.requests", 0, 0, b"k", b"")
    assert noted.lead_or_follow(leader, f"work of {leader}", record) is None
    for follower in followers:
        assert noted.lead_or_follow(follower, f"work of {leader}", record) == leader


@pytest.mark.parametrize("late", [False, True])
def test_a_follower_gets_the_answer_of_the_request_it_follows_whichever_comes_first(bench: Bench, late: bool) -> None:
    lead(bench, "r1", "r2")
    parts = [*all_parts(), following("r2", "r1")] if late else [following("r2", "r1"), *all_parts()]
    worker = bench.worker()
    found = [result for part in parts for result in results(worker.handle([bench.deliver(part)]))]
    by_id = {result.request_id: result for result in found}
    assert len(found) == 2 and set(by_id) == {"r1", "r2"}
    assert by_id["r1"].genre == by_id["r2"].genre and by_id["r1"].mood == by_id["r2"].mood
    assert by_id["r2"].track.source == "r2.mp3"
    assert by_id["r2"].track.duration_s == by_id["r1"].track.duration_s
    assert (by_id["r1"].cached, by_id["r2"].cached) == (False, True)


def test_followers_of_followers_are_answered_with_them_and_nothing_is_left(bench: Bench) -> None:
    lead(bench, "r1", "r2", "r3")
    lead(bench, "r2", "r4")
    worker = bench.worker()
    parts = [following("r4", "r2"), following("r3", "r1"), following("r2", "r1"), *all_parts()]
    outcomes = worker.handle([bench.deliver(part) for part in parts])
    assert sorted(result.request_id for result in results(outcomes)) == ["r1", "r2", "r3", "r4"]
    for outcome in outcomes:
        for clean_up in outcome.after_commit:
            clean_up()
    assert left_over(bench.client, bench.keys) == {}
    requests, (result,) = bench.client.keys(bench.keys.request("*")), bench.client.keys(bench.keys.result("*"))
    assert sorted(bench.client.keys("*")) == sorted([*requests, result]) and len(requests) == 4


def test_a_failure_is_the_answer_of_the_followers_too(bench: Bench) -> None:
    lead(bench, "r1", "r2")
    error = ErrorReport(code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="404")
    failed = IngestedTrack(request_id="r1", track_key="k", source="song.mp3", error=error)
    worker = bench.worker()
    no_mood = MoodPrediction(request_id="r1", track_key="k", error=error)
    parts: list[Part] = [following("r2", "r1"), failed, no_mood]
    found = results(worker.handle([bench.deliver(part) for part in parts]))
    assert {(result.request_id, result.status, result.errors[0].code) for result in found} == {
        ("r1", Status.FAILED, ErrorCode.FETCH_FAILED),
        ("r2", Status.FAILED, ErrorCode.FETCH_FAILED),
    }


def test_a_worker_that_dies_before_the_commit_leaves_the_followers_to_the_next(bench: Bench) -> None:
    lead(bench, "r1", "r2")
    first = bench.worker()
    first.handle([bench.deliver(part) for part in (following("r2", "r1"), *all_parts()[:-1])])
    last = bench.deliver(mood())
    assert len(results(first.handle([last]))) == 2  # and dies, nothing committed
    second = bench.worker()
    assert sorted(result.request_id for result in results(second.handle([last]))) == ["r1", "r2"]
    # A stranger's record answers nobody again.
    assert results(second.handle([bench.deliver(mood()), bench.deliver(following("r2", "r1"))])) == []


def test_a_follower_whose_leader_is_never_answered_ends_by_its_own_deadline(bench: Bench) -> None:
    lead(bench, "r1", "r2")
    worker = bench.worker()
    worker.handle([bench.deliver(following("r2", "r1"))])
    overdue = Overdue(request_id="r2", track_key="k", waited_s=60.0)
    (result,) = results(worker.handle([bench.deliver(overdue)]))
    assert result.status is Status.FAILED
    assert "r1" in result.errors[0].message and result.errors[0].code is ErrorCode.INTERNAL


def test_what_a_worker_left_that_died_before_its_clean_up_is_tidied_once_its_answer_is_committed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.aggregator.service._TIDY_EVERY_S", 0.0)
    worker = bench.worker()
    lead(bench, "r1", "r2")
    worker.handle([bench.deliver(part) for part in (*all_parts(), following("r2", "r1"), track("open"))])
    votes = bench.requests()
    assert votes.unfinished() == 3
    asked: list[tuple[str, int]] = []

    def committed(offset: int) -> Committed:
        def told(partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
            asked.extend(partitions)
            return dict.fromkeys(partitions, offset)

        return told

    worker.tidy(committed(0))  # the answer is not committed: whoever redoes it needs the parts
    assert votes.unfinished() == 3 and asked
    worker.tidy(committed(100))
    assert votes.without_news(0.0, 10) == ["open"]
    assert left_over(bench.client, bench.keys) == {"waiting": 1, "track": 1}


def test_a_request_whose_parts_make_no_answer_is_answered_as_failed_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("in the vote")

    monkeypatch.setattr("services.aggregator.service.answer", defect)
    worker = bench.worker()
    worker.handle([bench.deliver(part) for part in all_parts()[:-1]])
    last = bench.deliver(mood())
    with pytest.raises(ZeroDivisionError):
        worker.handle([last])
    fault = TonestreamError(ErrorCode.INTERNAL, "aggregator failed on this track")
    outcome = worker.give_up(Origin("r1", "k", last.record), fault)
    (result,) = results([outcome])
    assert (result.status, result.errors[0].code) == (Status.FAILED, ErrorCode.INTERNAL)
    other = bench.deliver(mood())
    assert worker.give_up(Origin("r1", "k", other.record), fault).messages == ()


# By the answer key that travels with the track


OTHER = other_answer_key(feature_spec="spec2", genre_model="other-model", mood_model="other-mood", vote="majority")
BY_OTHER: list[Part] = [
    track(answer_key=OTHER),
    *(
        prediction(index, label, p=p).model_copy(update={"model": "other-model"})
        for index, (label, p) in enumerate([("jazz", 0.95), ("blues", 0.4), ("blues", 0.4)])
    ),
    mood().model_copy(update={"model": "other-mood"}),
]


def test_a_track_is_voted_for_and_cached_by_the_answer_key_it_was_announced_with(bench: Bench) -> None:
    (result,) = results(bench.worker().handle([bench.deliver(part) for part in BY_OTHER]))
    assert result.genre is not None and result.genre.label == "blues" and result.genre.model == "other-model"
    assert bench.cache.find([result_key(ANSWER_KEY, SHA, "audio")]) is None
    assert bench.cache.find([result_key(OTHER, SHA, "audio")]) == result


@pytest.mark.parametrize(
    "changed",
    [{"genre_model": "third"}, {"mood_model": "third"}, {"answer_version": ANSWER_VERSION + 1}, {"vote": "loudest"}],
    ids=["another genre model", "another mood model", "another version", "a vote that is not known here"],
)
def test_an_answer_that_is_not_made_as_announced_is_given_and_not_cached(
    bench: Bench, changed: dict[str, object]
) -> None:
    announced = OTHER.model_copy(update=changed)
    parts: list[Part] = [track(answer_key=announced), *BY_OTHER[1:]]
    (result,) = results(bench.worker().handle([bench.deliver(part) for part in parts]))
    assert result.status is Status.OK
    for answer_key in (ANSWER_KEY, OTHER, announced):
        assert bench.cache.find([result_key(answer_key, SHA, "audio")]) is None


def test_an_answer_by_a_model_that_is_not_installed_here_brings_its_calibration(bench: Bench) -> None:
    brought = Calibration(track_temperature=3.0, uncertain_below=0.9)
    soft = other_answer_key(genre_model="newer", mood_model="newer-mood")
    parts: list[Part] = [
        track(answer_key=soft),
        *(
            prediction(index, label).model_copy(update={"model": "newer", "calibration": brought})
            for index, label in enumerate(["jazz", "jazz", "blues"])
        ),
        mood().model_copy(update={"model": "newer-mood", "calibration": brought}),
    ]
    with_it = answered(bench, {}, parts)
    installed = answered(Bench(bench.folder), {"genre-model": brought, "mood-model": brought})
    assert with_it.genre is not None and installed.genre is not None and with_it.mood is not None
    assert with_it.genre.probabilities == installed.genre.probabilities
    assert with_it.genre.uncertain and with_it.mood.uncertain
