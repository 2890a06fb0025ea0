"""The arithmetic from costs to cores and bytes, and docs/capacity.md, which must say what the measured costs say."""

from __future__ import annotations

import doctest
import re

import pytest

from benchmarks.capacity import arithmetic, report
from benchmarks.capacity.costs import Measured, Run
from benchmarks.capacity.report import DOCUMENT, TABLES, document
from shared.contracts.messages import Stage
from shared.contracts.topics import Channel


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured.read()


@pytest.fixture
def run(measured: Measured) -> Run:
    return measured.track


@pytest.mark.parametrize("module", [arithmetic, report], ids=lambda module: str(module.__name__))
def test_the_examples_give_what_they_say(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0 and found.failed == 0


def test_the_document_says_what_the_measured_costs_say(measured: Measured) -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    assert document(measured, written) == written, "python -m benchmarks.capacity write"


def test_every_table_is_in_the_document_once() -> None:
    assert sorted(re.findall(r"<!-- generated: ([\w-]+) -->", DOCUMENT.read_text(encoding="utf-8"))) == sorted(TABLES)


def test_the_workers_of_a_cluster_are_shared_out_so_that_none_could_help_elsewhere(run: Run) -> None:
    shares = arithmetic.shared_workers(run, 100)
    rate = arithmetic.cluster_tracks_a_second(run, shares)
    assert sum(shares.values()) == 100
    for taken in Stage:
        for given in set(Stage) - {taken}:
            if shares[taken] > 1:
                moved = shares | {taken: shares[taken] - 1, given: shares[given] + 1}
                assert arithmetic.cluster_tracks_a_second(run, moved) <= rate * (1 + 1e-9)


def test_fewer_workers_than_services_are_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="4 workers are fewer than the 5 services"):
        arithmetic.shared_workers(run, 4)


def test_a_day_and_core_hours_agree(run: Run) -> None:
    cpu_s = arithmetic.whole_cpu_s(run)
    tracks = arithmetic.tracks_a_day(32, cpu_s, utilisation=1.0)
    assert arithmetic.core_hours(tracks, cpu_s) == pytest.approx(32 * 24)
    assert arithmetic.hours(tracks, tracks) == 24


def test_consumers_read_tracks_three_times_and_results_once() -> None:
    assert arithmetic.readers(Channel.TRACKS) == 3
    assert arithmetic.readers(Channel.FEATURES) == 1
    assert arithmetic.readers(Channel.RESULTS) == 1


def test_replicas_cost_disk_and_the_network_between_brokers_only(run: Run) -> None:
    written, read = arithmetic.written_bytes(run), arithmetic.read_bytes(run)
    assert arithmetic.replica_bytes(run, 3) == pytest.approx(3 * written)
    assert arithmetic.network_bytes(run, 1) == pytest.approx(written + read)
    assert arithmetic.network_bytes(run, 3) == pytest.approx(5 * written + read)


def test_twice_the_servers_end_at_twice_the_rate(run: Run) -> None:
    def rate(brokers: int) -> float:
        found = arithmetic.ceilings(run, arithmetic.Limits(), brokers, 3, batch_transactions=2.0)
        return next(one.tracks_a_second for one in found if one.what.startswith("disk writes"))

    assert rate(6) == pytest.approx(2 * rate(3))


def test_the_measurement_is_whole(measured: Measured) -> None:
    for run in (measured.clip, measured.track, measured.low_rate):
        assert all(run.cpu_s[stage] > 0 for stage in Stage)
        assert run.topics[Channel.RESULTS].records == 1
        assert run.topics[Channel.DEAD_LETTERS].records == 0
    assert measured.track.topics[Channel.FEATURES].records == pytest.approx(20, abs=1)
