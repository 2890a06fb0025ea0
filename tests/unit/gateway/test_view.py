"""The view: filled from the topics, and whatever state its file is in."""

from __future__ import annotations

import sqlite3
import stat
import time
from pathlib import Path
from typing import NoReturn

import pytest

from services.gateway.follower import FOLLOWED
from services.gateway.view import database, requests, search
from services.gateway.view.database import Database, Job, ViewError, ViewUnavailableError
from services.gateway.view.records import Absorber, fingerprint
from services.gateway.view.requests import Asked, Published
from services.gateway.view.search import SORTS, Wanted
from shared.bus.base import BusUnavailableError, Record
from shared.bus.memory import MemoryBus
from shared.contracts.codec import encode_message
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import Topics
from tests.support.gateway_bench import GatewayBench, answer
from tests.support.rows import ok_result


def test_a_deleted_view_fills_again_from_the_topics(tmp_path: Path) -> None:
    bus = MemoryBus()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        _keep_all(bench)
        bench.post({"audio_url": "https://example.org/a.mp3"}, **{"Idempotency-Key": "r1"})
        bench.answered(answer("r1", title="One"), answer("r2", title="Two"))
        before = bench.results(sort="title")
    for file in tmp_path.glob("library.sqlite*"):
        file.unlink()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        bench.until(lambda: bench.gateway.follower.caught_up)
        assert bench.results(sort="title") == before
        assert bench.client.post("/v1/tracks/r1/retry").status_code == 202


def test_after_a_restart_the_reader_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        _keep_all(bench)
        bench.answered(*(answer(f"r{n}") for n in range(20)))
    seen: list[Record] = []
    absorb = Absorber.absorb

    def watched(self: Absorber, connection: sqlite3.Connection, records: list[Record]) -> object:
        seen.extend(records)
        return absorb(self, connection, records)

    monkeypatch.setattr(Absorber, "absorb", watched)
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        bench.answered(answer("new"))
        assert bench.results()["total"] == 21
    assert len(seen) == 1


def test_a_record_that_comes_twice_changes_nothing(tmp_path: Path) -> None:
    absorber, view = Absorber(Topics("t")), Database(tmp_path / "v.sqlite")
    record = Record("t.results", 0, 7, b"k", encode_message(ok_result("r")), timestamp_ms=1_700_000_000_000)
    assert len(view.write(lambda connection: absorber.absorb(connection, [record]))) == 1
    assert view.write(lambda connection: absorber.absorb(connection, [record])) == []
    with view.reading() as connection:
        assert search.counts(connection, time.time()).total == 1
    view.close()


def test_what_the_last_run_left_unfinished_in_memory_goes_on(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as bench:
        for number in range(3):
            bench.post({"audio_url": f"https://example.org/{number}"}, **{"Idempotency-Key": f"r{number}"})
        bench.answered(answer("r1"))
    with GatewayBench(tmp_path) as bench:
        assert sorted(request.request_id for request in bench.asked(2)) == ["r0", "r2"]
        assert bench.nothing_asked() and bench.results()["total"] == 1


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    for damage in (b"no database at all" * 100, None):
        if damage is None:
            _filled(path, 200)
            content = bytearray(path.read_bytes())
            content[4096 * 2 : 4096 * 6] = b"\x5a" * (4096 * 4)
            path.write_bytes(content)
        else:
            path.write_bytes(damage)
        view = Database(path)
        with view.reading() as connection:
            assert search.counts(connection, 0.0).total == 0
        view.close()
        (aside,) = tmp_path.glob("v.sqlite.damaged-*")
        aside.unlink()
        path.unlink()


def test_files_of_others_and_of_newer_versions_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE t (x)")
    theirs.close()
    with pytest.raises(ViewError, match="another program"):
        Database(path)
    path.unlink()
    Database(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ViewError, match="newer version"):
        Database(path)
    with pytest.raises(ViewError, match="cannot be used"):
        Database(path / "below" / "v.sqlite")


def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    view = Database(tmp_path / "v.sqlite")
    with pytest.raises(ViewError, match="in use by another Tonestream"):
        Database(tmp_path / "v.sqlite")
    view.close()
    Database(tmp_path / "v.sqlite").close()


def test_rows_are_made_again_where_they_have_other_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(tmp_path / "v.sqlite", 20)
    monkeypatch.setattr(database, "_FINGERPRINT", "another version's")
    view = Database(tmp_path / "v.sqlite")
    with view.reading() as connection:
        assert search.page(connection, Wanted.of(text="song 7"), "title", 10, None).total == 1
        assert search.counts(connection, 0.0).total == 20
    view.close()


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    Database(tmp_path / "v.sqlite").close()
    assert stat.S_IMODE((tmp_path / "v.sqlite").stat().st_mode) == 0o600


def test_nothing_that_was_read_is_lost_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: GatewayBench
) -> None:
    """The bus in memory does not keep what was read."""
    write = bench.gateway.database.write
    full = True

    def failing(job: Job[object]) -> object:
        if full:
            raise ViewUnavailableError("database or disk is full")
        return write(job)

    monkeypatch.setattr(bench.gateway.database, "write", failing)
    bench.publish(answer("r"))
    bench.until(lambda: bench.client.get("/readyz").status_code == 503)
    assert "disk is full" in bench.client.get("/readyz").json()["because"]
    full = False
    bench.until(lambda: bench.results()["total"] == 1)
    assert bench.client.get("/readyz").status_code == 200


def test_a_request_that_was_entered_and_never_published_is_published_at_the_next_start(tmp_path: Path) -> None:
    bus = MemoryBus()
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        request = TrackRequest(request_id="r", audio_url="https://example.org/a.mp3")
        asked = [Asked(request, fingerprint(request), 1.0)]
        bench.gateway.database.write(lambda connection: requests.enter(connection, asked, Published.ENTERED))
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        assert bench.asked() == [request]
        assert bench.post({"audio_url": request.audio_url, "embedding": False}, **{"Idempotency-Key": "r"}).is_success
        assert bench.nothing_asked()


def test_a_request_that_is_answered_is_repeated_without_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> NoReturn:
        raise BusUnavailableError("Kafka is away")

    bus = MemoryBus()
    wanted = {"audio_url": "https://example.org/a.mp3"}
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        bench.post(wanted, **{"Idempotency-Key": "r"})
        bench.answered(answer("r"))
    with GatewayBench(tmp_path, bus, mode="kafka") as bench:
        monkeypatch.setattr(bench.bus, "publisher", away)
        repeated = bench.post(wanted, **{"Idempotency-Key": "r"})
        assert (repeated.status_code, repeated.json().get("stage")) == (202, "ok"), repeated.json()


def test_a_failed_job_leaves_nothing_and_a_closed_view_says_so(tmp_path: Path) -> None:
    view = Database(tmp_path / "v.sqlite")

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO facts VALUES ('half', '1')")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        view.write(half)
    with pytest.raises(ViewUnavailableError):
        view.write(lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"))
    with view.reading() as connection:
        assert connection.execute("SELECT * FROM facts WHERE name = 'half'").fetchall() == []
    view.close()
    with pytest.raises(ViewUnavailableError), view.reading():
        pass


def test_every_sort_follows_an_index_or_is_rarely_asked_for(tmp_path: Path) -> None:
    """A page of a large library is read, not sorted."""
    view = Database(tmp_path / "v.sqlite")
    rarely = {"source", "duration", "genre", "mood", "key", "mood_confidence", "danceability", "loudness", "status"}
    with view.reading() as connection:
        for sort in set(SORTS) - rarely:
            plan = " ".join(
                row[3]
                for row in connection.execute(
                    f"EXPLAIN QUERY PLAN SELECT * FROM tracks WHERE tracks.{SORTS[sort]} IS NOT NULL"
                    f" ORDER BY tracks.{SORTS[sort]} DESC, tracks.seq DESC LIMIT 100"
                )
            )
            assert "USING INDEX" in plan and "TEMP B-TREE" not in plan, (sort, plan)
    view.close()


def _keep_all(bench: GatewayBench) -> None:
    """As on Kafka: nobody's progress removes records."""
    bench.bus.reader([bench.topics.name(channel) for channel in FOLLOWED])


def _filled(path: Path, count: int) -> None:
    absorber, view = Absorber(Topics("t")), Database(path)
    records = [
        Record("t.results", 0, n, b"k", encode_message(ok_result(f"r{n}", title=f"Song {n}")), timestamp_ms=n + 1)
        for n in range(count)
    ]
    view.write(lambda connection: absorber.absorb(connection, records))
    view.close()
