"""How far a long run is, how long the rest takes, and what came out."""

from __future__ import annotations

import pytest

from services.cli.answer import Answer
from services.cli.classify.tally import Tally
from services.cli.pace import Pace, span
from tests.support.rows import failed_result, ok_result


def test_the_rest_takes_as_long_as_the_last_pieces_say() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.left_s(10) is None
    for _ in range(1000):
        now += 0.5
        pace.add()
    assert pace.rate == pytest.approx(2.0) and pace.left_s(10) == pytest.approx(5.0)
    for _ in range(100):
        now += 4.0
        pace.add()
    assert pace.left_s(10) == pytest.approx(40.0)  # only the last hundred count
    now += 400.0
    assert pace.left_s(10) == pytest.approx(80.0)  # nothing was done for a while


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(4.2, "4 s"), (185, "3:05 min"), (8040, "2:14 h"), (75 * 3600, "3 d 3 h"), (59.6, "1:00 min")],
)
def test_a_span_of_time_is_shown_briefly(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def counted(*answers: Answer) -> Tally:
    tally = Tally()
    for answer in answers:
        tally.add(answer, selected=True)
    return tally


def test_a_few_tracks_need_no_summary() -> None:
    assert list(counted(*[Answer.of(ok_result(), 0.0, "x")] * 10).lines(1.0, 80)) == []


def test_a_summary_fits_into_the_terminal_and_says_what_was_known_before() -> None:
    genres = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
    answers = [Answer.of(ok_result(genre=genre), 0.0, "x", known=genre < "d") for genre in genres * 2]
    lines = list(counted(*answers, Answer.of(failed_result(), 0.0, "x")).lines(30.0, 40))
    assert lines[:2] == ["6 classified before, 15 now", "30 s, 30/min"]
    assert all(len(line) <= 40 for line in lines)
    assert lines[2] == "genre  blues 2  classical 2  country 2" and lines[3].startswith("       disco 2  ")
    assert lines[-2:] == ["mood   calm 20", "error  corrupt_audio 1"]


def test_a_run_in_which_everything_was_known_has_no_speed() -> None:
    lines = list(counted(*[Answer.of(ok_result(), 0.0, "x", known=True)] * 11).lines(0.0, 80))
    assert lines[0] == "11 classified before, 0 now" and not any("/" in line for line in lines)
