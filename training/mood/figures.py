"""From held-out logits to the figures of a mood model: by labeller and overall, calibrated, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared.contracts.labels import MOODS
from training.mood.data import MoodTable
from training.reports.figures import MoodAnswers, Repeated, SourceAccuracy, TrackLeak
from training.reports.metrics import accuracy, confusion, expected_calibration_error, reliability

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]


def figures(table: MoodTable, before: Floats, after: Floats) -> MoodAnswers:
    """All figures of the answers.

    ``before`` and ``after`` are probabilities [n, moods] for the rows of ``table``, before and after calibration; each
    must come from a model that was not trained on the row; otherwise the figures are flattered.
    """
    labels = table.labels
    right = after.argmax(axis=1) == labels
    return MoodAnswers(
        tracks=len(labels),
        groups=len(set(table.groups)),
        artists_known=table.artists_known,
        accuracy=accuracy_by_source(table, after.argmax(axis=1)),
        recall={
            mood: round(float(right[labels == index].mean()), 3) if (labels == index).any() else None
            for index, mood in enumerate(MOODS)
        },
        confusion=confusion(after.argmax(axis=1), labels, len(MOODS)).tolist(),
        ece_before=round(expected_calibration_error(before, labels), 3),
        ece_after=round(expected_calibration_error(after, labels), 3),
        reliability_before=[one.rounded() for one in reliability(before, labels)],
        reliability_after=[one.rounded() for one in reliability(after, labels)],
    )


def accuracy_by_source(table: MoodTable, answers: Integers) -> dict[str, SourceAccuracy]:
    """Number of tracks and accuracy of ``answers`` [n], overall and by labeller, with 95% intervals."""
    groups, labels, source_of = np.array(table.groups), table.labels, table.source_of
    parts = {"all": np.ones(len(labels), bool)}
    if len(table.sources) > 1:
        parts |= {name: source_of == number for number, name in enumerate(table.sources)}
    return {
        name: SourceAccuracy(
            tracks=int(part.sum()), accuracy=accuracy(answers[part], labels[part], groups[part].tolist()).rounded()
        )
        for name, part in parts.items()
    }


def repeated_accuracy(table: MoodTable, answers: Sequence[Integers]) -> Repeated:
    """Mean and spread of the accuracy over several ``answers`` [n], one for each assignment of artists to folds."""
    labels, source_of = table.labels, table.source_of
    right = np.array([one == labels for one in answers])
    by_run = right.mean(axis=1)
    return Repeated(
        runs=len(answers),
        mean=round(float(by_run.mean()), 4),
        deviation=round(float(by_run.std()), 4),
        by_source={
            name: round(float(right[:, source_of == number].mean()), 4) for number, name in enumerate(table.sources)
        },
    )


def leak(table: MoodTable, trained_on: Sequence[str] | None) -> TrackLeak:
    """How many rows are among ``trained_on`` (content IDs); None if that is unknown."""
    if trained_on is None:
        return TrackLeak(tracks=None, of=len(table.rows))
    known = set(trained_on)
    return TrackLeak(tracks=sum(row.content in known for row in table.rows), of=len(table.rows))
