"""Finished tracks over HTTP: filters, pages, exports, counts, similar ones and the map."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.view import search
from services.gateway.view.search import SORTS
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import TrackResult
from tests.support.gateway_bench import GatewayBench, answer, problem_of
from tests.support.rows import failed_result

COUNT = 60


def library() -> list[TrackResult]:
    """Tracks that differ in everything that can be asked for; the last two failed."""
    results = []
    for number in range(COUNT - 2):
        result = answer(
            f"r{number:02}",
            source=f"music/{number:02} größe.mp3",
            title=None if number % 7 == 0 else f"Song {number % 10}",
            artist="Björk" if number % 2 else "Band",
            genre=GENRES[number % len(GENRES)],
            mood=MOODS[number % len(MOODS)],
        )
        heard = result.audio_features
        assert heard is not None and result.genre is not None
        energy = {"tempo": 80.0 + number, "energy": number / COUNT, "valence": 0.5}
        results.append(
            result.model_copy(
                update={
                    "audio_features": heard.model_copy(update=energy),
                    "genre": result.genre.model_copy(update={"confidence": number / COUNT}),
                    "embedding": (1.0, number / 10, 0.0) if number % 3 == 0 else None,
                }
            )
        )
    return [*results, failed_result("f1"), failed_result("f2")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBench]:
    """A gateway with sixty results, which the tests only read."""
    with GatewayBench(tmp_path_factory.mktemp("gateway")) as running:
        running.answered(*library())
        yield running


def ids(page: dict[str, Any]) -> set[str]:
    return {row["id"] for row in page["results"]}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"genre": "jazz"}, {f"r{n:02}" for n in range(COUNT - 2) if GENRES[n % 10] == "jazz"}),
        ({"genre": ["jazz", "pop"], "mood": "calm"},
         {f"r{n:02}" for n in range(COUNT - 2) if GENRES[n % 10] in ("jazz", "pop") and MOODS[n % 4] == "calm"}),
        ({"status": "failed"}, {"f1", "f2"}),
        ({"min_confidence": 0.9}, {f"r{n:02}" for n in range(54, 58)}),
        ({"bpm": "90-92"}, {"r10", "r11", "r12"}),
        ({"bpm": "135-"}, {"r55", "r56", "r57"}),
        ({"bpm": "-81"}, {"r00", "r01"}),
        ({"bpm": "100"}, {"r20"}),
        ({"key": "f MINOR", "bpm": "-80"}, {"r00"}),
        ({"q": "BJORK mus 13"}, {"r13"}),
        ({"q": "bjork 12"}, set()),
        ({"q": "grosse 17"}, set()),
        ({"q": "größ 17"}, {"r17"}),
        ({"q": "GROSSE*\" OR title:(", "limit": 1}, set()),
        ({"where": "energy < 0.05 and genre_confidence <= 0.02"}, {"r00", "r01"}),
        ({"where": "error == corrupt_audio"}, {"f1", "f2"}),
        ({"id": ["r01", "f1", "nobody"]}, {"r01", "f1"}),
    ],
)  # fmt: skip
def test_filters_select(bench: GatewayBench, filters: dict[str, Any], expected: set[str]) -> None:
    page = bench.results(limit=1000, **{name: value for name, value in filters.items() if name != "limit"})
    assert ids(page) == expected and page["total"] == len(expected) and page["next"] is None


@pytest.mark.parametrize("sort", [way + name for name in SORTS for way in ("", "-")])
def test_pages_hold_every_track_once_and_in_order(bench: GatewayBench, sort: str) -> None:
    seen, after = [], None
    while True:
        page = bench.results(sort=sort, limit=17, **({} if after is None else {"after": after}))
        assert page["total"] == COUNT
        seen += page["results"]
        if (after := page["next"]) is None:
            break
    assert len({row["id"] for row in seen}) == len(seen) == COUNT
    column = SORTS[sort.removeprefix("-")].split()[0]
    values = [row[column] for row in seen]
    there = [value.lower() if isinstance(value, str) else value for value in values if value is not None]
    assert there == sorted(there, reverse=sort.startswith("-"))
    assert all(value is None for value in values[len(there) :]), "what has no value comes last"


def test_new_tracks_between_two_pages_neither_repeat_nor_hide_others(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as own:
        own.answered(*(answer(f"b{n}", title=f"Song {n}") for n in range(10)))
        first = own.results(sort="title", limit=5)
        own.answered(answer("new", title="Song 0"), answer("newer", title="Song 9"))
        second = own.results(sort="title", limit=100, after=first["next"])
        assert [row["id"] for row in first["results"]] == [f"b{n}" for n in range(5)]
        assert [row["id"] for row in second["results"]] == ["b5", "b6", "b7", "b8", "b9", "newer"]


@pytest.mark.parametrize(
    "query",
    [
        "sort=shoe_size", "limit=0", "limit=1001", "limit=x", "bpm=fast", "bpm=", "min_confidence=2",
        "min_confidence=nan", "after=%FF", "after=abc", "after=WyJ0aXRsZSIsMSwxXQ", "after=W10", "where=energy%20%3C",
        "where=1;drop%20table%20x", "after=WyItZmluaXNoZWQiLDEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwLDFd",
    ],
)  # fmt: skip
def test_a_query_that_is_none_is_refused_and_named(bench: GatewayBench, query: str) -> None:
    refused = bench.client.get(f"/v1/results?{query}")
    assert problem_of(refused) == (422, "invalid_request")
    assert refused.json()["detail"].startswith(query.partition("=")[0])


def test_exports_hold_what_the_filters_select(bench: GatewayBench) -> None:
    jazz = {"genre": "jazz"}
    expected = sorted(ids(bench.results(limit=1000, **jazz)))
    table = bench.client.get("/v1/results.csv", params=jazz)
    assert table.headers["content-disposition"] == 'attachment; filename="tonestream.csv"'
    assert sorted(line["id"] for line in csv.DictReader(io.StringIO(table.text))) == expected
    lines = bench.client.get("/v1/results.jsonl", params=jazz).text.splitlines()
    results = {result.request_id: result for result in map(TrackResult.model_validate_json, lines)}
    assert sorted(results) == expected
    by_id = {result.request_id: result for result in library()}
    assert all(result == by_id[request_id] for request_id, result in results.items())
    playlist = bench.client.get("/v1/results.m3u8", params={"id": ["r01", "r02"]})
    assert playlist.text.startswith("#EXTM3U") and "music/01 größe.mp3" in playlist.text
    assert problem_of(bench.client.get("/v1/results.csv?sort=x")) == (422, "invalid_request")


def test_the_summary_counts(bench: GatewayBench) -> None:
    found = bench.client.get("/v1/summary").json()
    assert found["total"] == found["per_minute"] == COUNT and found["unfinished"] == 0
    assert found["statuses"] == {"ok": COUNT - 2, "failed": 2} and found["errors"] == {"corrupt_audio": 2}
    assert sum(found["genres"].values()) == sum(found["moods"].values()) == COUNT - 2


def test_similar_tracks_come_in_order_without_the_track_itself(bench: GatewayBench) -> None:
    found = bench.client.get("/v1/similar/r30?limit=5").json()["results"]
    assert [row["id"] for row in found][:2] == ["r33", "r27"]
    assert len(found) == 5 and "r30" not in {row["id"] for row in found}
    assert all(0 <= row["similarity"] <= 1 for row in found)
    assert problem_of(bench.client.get("/v1/similar/r01")) == (409, "conflict")


def test_the_map_has_columns_of_one_length(bench: GatewayBench) -> None:
    columns = bench.client.get("/v1/map", params={"q": "bjork"}).json()
    assert set(columns) == {"id", "energy", "valence", "genre", "confidence", "title"}
    assert {len(column) for column in columns.values()} == {29}
    titles = dict(zip(columns["id"], columns["title"], strict=True))
    assert titles["r21"] == "music/21 größe.mp3" and titles["r01"] == "Song 1", "without a title its source"


def test_a_second_answer_replaces_the_first(tmp_path: Path) -> None:
    """After a replay of dead letters."""
    with GatewayBench(tmp_path) as own:
        own.answered(failed_result("r"))
        own.answered(answer("r", title="Mended"))
        page = own.results()
        assert page["total"] == 1 and page["results"][0]["title"] == "Mended"
        assert own.results(q="noise")["total"] == 0 and own.results(q="mended")["total"] == 1
        assert json.loads(own.client.get("/v1/tracks/r").text)["stage"] == "ok"


def test_the_map_of_all_tracks_follows_what_comes_and_what_goes(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as bench:
        _map_follows(bench)


def _map_follows(bench: GatewayBench) -> None:
    def ids(**headers: str) -> list[str]:
        found = bench.client.get("/v1/map", headers=headers).json()
        assert {len(column) for column in found.values()} == {len(found["id"])}
        return sorted(found["id"])

    assert ids() == []
    for number in range(3):
        bench.answered(answer(f"r{number}"), failed_result(f"f{number}"))
        assert ids() == [f"r{count}" for count in range(number + 1)] == ids(**{"Accept-Encoding": "identity"})
    assert bench.client.get("/v1/map").content == bench.client.get("/v1/map?min_confidence=0").content
    bench.client.delete("/v1/tracks/r1")
    assert ids() == ["r0", "r2"]
    bench.client.delete("/v1/tracks/r2")
    bench.answered(answer("r3"))
    assert ids() == ["r0", "r3"]
    bench.answered(answer("r0"))  # replayed
    assert ids() == ["r0", "r3"]


def test_what_only_compares_numbers_is_read_from_their_index(bench: GatewayBench) -> None:
    """Else SQLite looks up row after row, which takes several times as long."""
    every = search.Wanted.of(where="not (genre in (jazz, blues)) and bpm between 90 and 120").and_()
    with bench.gateway.database.reading() as connection:
        hint = search._by_numbers(every.sql)
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT count(*) FROM tracks {hint} WHERE {every.sql}", every.values
        ).fetchall()
    assert "COVERING INDEX tracks_by_numbers" in plan[0][3]
    assert search._by_numbers(search.Wanted.of(where="title contains x and bpm < 90").and_().sql) == ""
