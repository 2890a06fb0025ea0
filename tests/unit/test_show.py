"""What a person reads of a result."""

from __future__ import annotations

import pytest

from services.cli import show
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES
from shared.contracts.messages import ErrorReport, Genre, Stage, Status, Track, TrackResult


def result(uncertain: bool) -> TrackResult:
    rest = 0.69 / (len(GENRES) - 1)
    genre = Genre(
        label="jazz",
        confidence=0.31,
        uncertain=uncertain,
        agreement=0.5,
        probabilities={label: 0.31 if label == "jazz" else rest for label in GENRES},
        segments=(),
        model="m",
    )
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.MOOD_WORKER, message="why")
    return TrackResult(
        request_id="r", status=Status.PARTIAL, track=Track(key="k", source="s"), genre=genre, errors=(error,)
    )


@pytest.mark.parametrize(("uncertain", "shown"), [(True, "jazz? 31%"), (False, "jazz 31%")])
def test_an_uncertain_label_is_shown_with_a_question_mark(
    capsys: pytest.CaptureFixture[str], uncertain: bool, shown: str
) -> None:
    assert shown in show.line(result(uncertain)).split("\t")
    show.table([result(uncertain)])
    assert shown in capsys.readouterr().out
