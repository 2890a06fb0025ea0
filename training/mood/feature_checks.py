"""Checks the measured features: known orders between genres, and known tempi."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import GENRES
from shared.models.networks import TagModel
from training.data.clips import Clip, read_clips
from training.data.features import measured_features
from training.genre.protocol import Workspace
from training.reports.figures import FeatureChecks, Order, TempoAgreement
from training.reports.metrics import area_under_roc, bootstrap

Floats = npt.NDArray[np.floating]

#: (feature, genres that have more of it, genres that have less).
_ORDERS: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("energy", ("metal",), ("classical",)),
    ("loudness", ("metal",), ("classical",)),
    ("acousticness", ("classical",), ("disco",)),
    ("acousticness", ("country",), ("metal",)),
    ("danceability", ("disco", "hiphop"), ("classical",)),
    ("danceability", ("disco", "hiphop"), ("metal", "rock")),
    ("instrumentalness", ("classical", "jazz"), ("pop",)),
    ("speechiness", ("hiphop",), tuple(genre for genre in GENRES if genre != "hiphop")),
    ("valence", ("disco", "reggae"), ("classical",)),
)
_TEMPO_TOLERANCE: Final = 0.04
_OCTAVES: Final = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)


def check_features(folder: Path, tagger: TagModel, data: Workspace) -> FeatureChecks:
    """Figures of the features measured from the clips in ``folder`` (`read_clips`).

    ``orders``: for pairs of genres the chance that a clip of the first has more of a feature than one of the second
    (area under the ROC curve; 0.5 is no order), with a 95% interval by bootstrap over artists. ``tempo``: share of
    clips within 4% of the ``tempo_bpm`` of the index, as it is and up to a factor of 2 or 3, where the index has any.
    Raises DataError, TonestreamError.
    """
    clips = read_clips(folder)
    measured = measured_features([clip.path for clip in clips], data.cache, data.threads, tagger, data.progress)
    found = FeatureChecks(clips=len(clips), orders=orders(clips, measured))
    bpm = known_tempi(folder / "index.csv", clips)
    if np.isfinite(bpm).any():
        found = found.with_more(tempo=tempo_agreement(measured[:, AUDIO_FEATURES.index("tempo")], bpm))
    return found


def orders(clips: Sequence[Clip], measured: Floats) -> tuple[Order, ...]:
    """The orders of ``measured`` [n, 10] between the genres of ``clips``."""
    genres = np.array([clip.label for clip in clips])
    groups = np.array([clip.group for clip in clips])
    found = []
    for feature, more, less in _ORDERS:
        above, below = np.isin(genres, more), np.isin(genres, less)
        if not above.any() or not below.any():
            continue
        judged = above | below
        rows = np.stack([measured[judged, AUDIO_FEATURES.index(feature)], above[judged]], axis=1)
        chance = bootstrap(rows, groups[judged].tolist(), _chance_of_more)
        artists = (len(set(groups[above])), len(set(groups[below])))
        found.append(Order(feature=feature, more=more, less=less, artists=artists, auc=chance.rounded()))
    return tuple(found)


def tempo_agreement(measured: Floats, bpm: Floats) -> TempoAgreement:
    """Shares of ``measured`` [n] tempi within 4% of ``bpm`` [n], NaN if that is unknown."""
    known = np.isfinite(bpm)
    ratio = measured[known] / bpm[known]
    near = np.stack([np.abs(ratio / octave - 1.0) < _TEMPO_TOLERANCE for octave in _OCTAVES])
    return TempoAgreement(
        clips=int(known.sum()),
        right=round(float(near[0].mean()), 3),
        right_up_to_octaves=round(float(near.any(axis=0).mean()), 3),
    )


def _chance_of_more(rows: Floats) -> float:
    above = rows[:, 1] > 0.5
    if above.all() or not above.any():  # a bootstrap sample may have artists of one side only
        return float("nan")
    return area_under_roc(rows[above, 0], rows[~above, 0])


def known_tempi(index: Path, clips: Sequence[Clip]) -> Floats:
    """The ``tempo_bpm`` of each clip in the table ``index``, NaN if unknown."""
    by_name: dict[str, str] = {}
    if index.exists():
        with index.open(newline="", encoding="utf-8-sig") as opened:
            by_name = {row["track"]: row.get("tempo_bpm") or "nan" for row in csv.DictReader(opened)}
    tempi: Floats = np.array([float(by_name.get(clip.name, "nan")) for clip in clips])
    tempi[tempi <= 0.0] = np.nan
    return tempi
