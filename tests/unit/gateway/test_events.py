"""Server-sent events: in order, to many readers, and none lost by a reader who comes back."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from services.gateway.feed import Feed
from services.gateway.routes import events
from services.gateway.view.records import Change
from services.gateway.view.requests import TrackStage
from tests.support.gateway_bench import GatewayBench, SentEvent, answer

URL = "https://example.org/song.mp3"


def number(event: SentEvent) -> tuple[int, int]:
    seq, _, place = event.id.partition("-")
    return int(seq), int(place)


def test_a_reader_sees_each_stage_and_the_result(bench: GatewayBench) -> None:
    with bench.events() as stream:
        bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
        (request,) = bench.asked()
        assert (first := next(stream)).data["stage"] == "queued"
        bench.heard(request)
        assert (second := next(stream)).data["stage"] == "listening"
        bench.answered(answer("r", title="Söng"))
        third, fourth = islice(stream, 2)
    assert first.name == "track" and first.data["request_id"] == "r" and first.data["source"] == URL
    assert (third.name, third.data["stage"]) == ("track", "ok")
    assert fourth.name == "result" and fourth.data["row"]["title"] == "Söng"
    assert first.data["at"] <= third.data["at"]
    assert number(first) < number(second) < number(third) < number(fourth)


def test_many_readers_share_one_thread_and_see_the_same(bench: GatewayBench) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(bench.events()) for _ in range(8)]
        bench.answered(answer("r"))
        seen = [[event.id for event in islice(stream, 2)] for stream in streams]
    assert len({tuple(ids) for ids in seen}) == 1


def test_a_reader_who_comes_back_misses_nothing(bench: GatewayBench) -> None:
    with bench.events() as stream:
        bench.answered(answer("r1"))
        last = list(islice(stream, 2))[-1].id
    bench.answered(answer("r2"))
    bench.answered(answer("r3"))
    with bench.events(last) as stream:
        assert [(one.name, one.data["request_id"]) for one in islice(stream, 4)] == [
            ("track", "r2"), ("result", "r2"), ("track", "r3"), ("result", "r3"),
        ]  # fmt: skip


def test_after_a_restart_the_view_has_what_was_missed(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as bench:
        with bench.events() as stream:
            bench.answered(answer("r1"))
            last = list(islice(stream, 2))[-1].id
        bench.answered(answer("r2"))
    with GatewayBench(tmp_path) as bench, bench.events(last) as stream:
        missed = next(stream)
        assert (missed.name, missed.data["request_id"]) == ("result", "r2")
        bench.answered(answer("r3"))
        assert [one.data["request_id"] for one in islice(stream, 2)] == ["r3", "r3"]


def test_a_reader_who_missed_too_much_is_asked_to_load_again(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MOST_MISSED", 3)
    bench.answered(*(answer(f"r{n}") for n in range(5)))
    for last in ("0-5", "99-5"):  # too many; and from a view that was deleted since
        with bench.events(last) as stream:
            assert next(stream).name == "reset"
    with bench.events("nonsense") as stream:
        bench.answered(answer("new"))
        assert next(stream).data["request_id"] == "new"


def test_a_reader_who_cannot_keep_up_is_cut_off_and_nothing_is_kept_for_it() -> None:
    busy = Feed()
    place = busy.now()
    assert busy.after(place) == []
    busy.publish([Change("r", TrackStage.QUEUED, "s", 0.0)] * 10_001)
    assert busy.after(place) is None
    assert len(busy.after(place + 1) or []) == 10_000


def test_open_streams_end_with_the_server(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as bench, bench.events() as stream:
        bench._server.should_exit = True
        assert list(stream) == []
