"""Removed tracks leave nothing behind, and no record brings them back."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.gateway.follower import FOLLOWED
from services.gateway.view import database, removal
from services.gateway.view.database import Database
from shared.bus.memory import MemoryBus
from shared.contracts.messages import TrackResult
from shared.state.audio import SharedAudio
from shared.state.connection import connect
from shared.state.keys import Keys
from tests.support.gateway_bench import GatewayBench, answer, problem_of

URL = "https://example.org/song.mp3"
SHA = "cd" * 32
VECTOR = (1.0,) + (0.0,) * 199


def embedded(request_id: str) -> TrackResult:
    return answer(request_id, title=f"Song {request_id}").model_copy(update={"embedding": VECTOR})


def test_a_removed_track_is_nowhere_any_more(bench: GatewayBench) -> None:
    bench.answered(*(embedded(f"r{number}") for number in range(3)))
    assert len(bench.client.get("/v1/similar/r0").json()["results"]) == 2
    assert bench.client.delete("/v1/tracks/r1").status_code == 204
    assert [row["id"] for row in bench.results(sort="title")["results"]] == ["r0", "r2"]
    assert bench.results(q="r1")["total"] == 0
    assert [row["id"] for row in bench.client.get("/v1/similar/r0").json()["results"]] == ["r2"]
    for path in ("/v1/tracks/r1", "/v1/tracks/r1/audio", "/v1/similar/r1"):
        assert problem_of(bench.client.get(path)) == (404, "not_found")
    assert bench.client.get("/v1/summary").json()["total"] == 2
    left = sqlite3.connect(bench.view)
    for table in ("requests", "answers", "tracks", "words", "embeddings"):
        assert left.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 2, table
    left.close()


def test_removing_twice_is_as_good_as_once_and_an_unknown_track_is_not_found(bench: GatewayBench) -> None:
    bench.answered(answer("r"))
    assert [bench.client.delete("/v1/tracks/r").status_code for _ in range(2)] == [204, 204]
    assert problem_of(bench.client.delete("/v1/tracks/nobody")) == (404, "not_found")


def test_no_record_brings_a_removed_track_back(tmp_path: Path) -> None:
    bus = MemoryBus()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        # As on Kafka: nobody's progress removes records.
        bench.bus.reader([bench.topics.name(channel) for channel in FOLLOWED])
        bench.post({"audio_url": URL}, **{"Idempotency-Key": "done"})
        bench.answered(answer("done"), answer("stays"))
        bench.post({"audio_url": URL}, **{"Idempotency-Key": "under-way"})
        for request_id in ("done", "under-way"):
            assert bench.client.delete(f"/v1/tracks/{request_id}").status_code == 204
        bench.answered(answer("later"))
        bench.publish(answer("under-way"))
        bench.answered(answer("last"))
        kept = ["last", "later", "stays"]
        assert sorted(row["id"] for row in bench.results()["results"]) == kept
    with sqlite3.connect(bench.view) as view:
        view.execute("DELETE FROM positions")  # every record is read again
    view.close()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        bench.until(lambda: bench.gateway.follower.caught_up)
        assert sorted(row["id"] for row in bench.results()["results"]) == kept
        for request_id in ("done", "under-way"):
            assert problem_of(bench.client.get(f"/v1/tracks/{request_id}")) == (404, "not_found")
    for file in tmp_path.glob("library.sqlite*"):
        file.unlink()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        bench.until(lambda: bench.gateway.follower.caught_up)
        assert "done" in [row["id"] for row in bench.results()["results"]], "the marks went with the file"


def test_sent_again_it_is_a_new_track_and_its_old_id_is_refused(bench: GatewayBench) -> None:
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
    bench.asked()
    bench.answered(answer("r"))
    bench.client.delete("/v1/tracks/r")
    refused = bench.post({"audio_url": URL, "force": True}, **{"Idempotency-Key": "r"})
    assert problem_of(refused) == (409, "conflict") and "use a new one" in refused.json()["detail"]
    assert bench.post({"audio_url": URL, "force": True}, **{"Idempotency-Key": "r2"}).status_code == 202
    (request,) = bench.asked()
    bench.answered(answer(request.request_id))
    assert [row["id"] for row in bench.results()["results"]] == ["r2"]


def test_what_was_kept_to_be_played_goes_with_the_last_track_that_heard_it(tmp_path: Path) -> None:
    redis_url = f"memory://{tmp_path.name}"
    with GatewayBench(tmp_path, redis_url=SecretStr(redis_url)) as bench:
        (tmp_path / "heard.wav").write_bytes(b"samples")
        reference = bench.blobs.put(tmp_path / "heard.wav", SharedAudio.reference(SHA).removeprefix("blob:"))
        for request_id in ("leader", "follower"):
            bench.post({"audio_url": URL}, **{"Idempotency-Key": request_id})
        leader, follower = bench.asked(2)
        bench.heard(leader, sha256=SHA)
        bench.heard(follower, follows="leader")
        bench.answered(answer("leader"), answer("follower"))
        bench.client.delete("/v1/tracks/leader")
        bench.gateway.removals._forget_audio()
        assert bench.blobs.exists(reference), "the follower heard it as well"
        owners = Keys("tonestream").owners(SHA)
        connect(redis_url).sadd(owners, "somebody-else")
        bench.client.delete("/v1/tracks/follower")
        bench.gateway.removals._forget_audio()
        assert bench.blobs.exists(reference), "a request of the pipeline needs it"
        connect(redis_url).delete(owners)
        bench.gateway.removals._forget_audio()
        assert not bench.blobs.exists(reference)
        with bench.gateway.database.reading() as connection:
            assert removal.unneeded_audio(connection) == []


def test_everybody_who_follows_is_told(bench: GatewayBench) -> None:
    bench.answered(answer("r"))
    with bench.events() as events:
        bench.client.delete("/v1/tracks/r")
        told = next(events)
    assert (told.name, told.data) == ("removed", {"request_ids": ["r"]})


def test_all_that_the_filters_select_can_be_removed_and_nothing_without_a_filter(bench: GatewayBench) -> None:
    bench.answered(*(answer(f"r{number}", title=f"Song {number}") for number in range(250)))
    assert problem_of(bench.client.delete("/v1/results")) == (422, "invalid_request")
    assert problem_of(bench.client.delete("/v1/results?where=nonsense")) == (422, "invalid_request")
    assert bench.client.delete("/v1/results?id=r0&id=r1&id=nobody").json() == {"removed": 2}
    assert bench.client.delete("/v1/results", params={"where": "title != 'Song 7'"}).json() == {"removed": 247}
    assert [row["id"] for row in bench.results()["results"]] == ["r7"]


def test_the_library_keeps_as_many_and_as_old_tracks_as_it_is_told(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, library_keep_rows=120) as bench:
        for start in range(0, 400, 100):
            bench.answered(*(answer(f"r{number}") for number in range(start, start + 100)))
        bench.gateway.removals._keep_no_more()
        found = {row["id"] for row in bench.results(limit=1000)["results"]}
        assert len(found) == 120 and found > {f"r{number}" for number in range(300, 400)}
    with GatewayBench(tmp_path, library_keep_s=3600) as bench:
        _change(bench, "UPDATE tracks SET finished_at = finished_at - 3601 WHERE id IN ('r310', 'r390')")
        bench.gateway.removals._keep_no_more()
        assert bench.results()["total"] == 118


def test_removed_tracks_give_their_room_back_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_GIVEN_BACK_AT_ONCE", 16)
    with GatewayBench(tmp_path) as bench:
        bench.answered(*(embedded(f"r{number}") for number in range(400)))
        full = _pages(bench.gateway.database)
        bench.client.delete("/v1/results", params={"where": "title != 'Song r7'"})
        bench.gateway.removals._shrink()
        assert _pages(bench.gateway.database) < full / 2
        assert bench.results()["total"] == 1


def test_a_file_of_an_earlier_version_learns_to_shrink(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    older = sqlite3.connect(path)
    older.executescript(f"BEGIN; {database._KEPT} {database._MARK.statements} COMMIT;")
    older.close()
    view = Database(path)
    with view.reading() as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
        assert removal.unneeded_audio(connection) == []
    view.close()


def test_a_mark_stands_for_as_long_as_the_topics_could_bring_the_track_back(bench: GatewayBench) -> None:
    bench.answered(answer("r"))
    bench.client.delete("/v1/tracks/r")
    for age_s, marked in ((removal.REMEMBERED_S - 60, True), (removal.REMEMBERED_S + 60, False)):
        made_at = time.time() - age_s
        _change(bench, f"UPDATE removed SET removed_at = {made_at}")
        bench.gateway.removals._expire()
        assert bench.gateway.removals.is_removed("r") is marked


def _change(bench: GatewayBench, sql: str) -> None:
    bench.gateway.database.write(lambda connection: connection.execute(sql))


def _pages(view: Database) -> int:
    with view.reading() as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])
