"""The mood from measured features where only Spotify's have labels: matched scales, and a check against listeners."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.stats

from shared.contracts.features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.models import Scaler
from training.data import DataError
from training.metrics import Interval, bootstrap

Floats = npt.NDArray[np.floating]

#: A file may be a preview, an excerpt or a mix: how long it is says nothing of the song, and would outweigh the music.
IGNORED_IN_AUDIO: Final = ("duration_ms",)
#: The same thing on both sides, so nothing is to be matched.
_SAME_ON_BOTH_SIDES: Final = frozenset({"duration_ms", "tempo"})
#: Which emotion listeners were asked for is next to which mood.
EMOTIONS: Final = {
    "calm": ("calmness", "tenderness"),
    "energetic": ("power", "tension"),
    "happy": ("joyful_activation",),
    "sad": ("sadness",),
}


def scaler_of(features: Floats) -> Scaler:
    """Mean and deviation of each column of ``features`` [n, 10]."""
    return Scaler(
        mean=tuple(features.mean(axis=0).tolist()), std=tuple(np.maximum(features.std(axis=0), 1e-6).tolist())
    )


def without(features: Floats, ignored: tuple[str, ...]) -> Floats:
    """Standardised ``features`` [n, 10] with the ``ignored`` ones average."""
    return features * np.array([name not in ignored for name in AUDIO_FEATURES], features.dtype)


def matched_scaler(measured: Floats, spotify: Scaler) -> Scaler:
    """The scaler under which ``measured`` [n, 10] has the mean and spread that Spotify's features have under theirs.

    Tempo keeps Spotify's, for it is the same thing on both sides; duration is ignored. With nothing measured all of
    Spotify's is kept.
    """
    own = scaler_of(measured) if len(measured) else spotify
    same = [name in _SAME_ON_BOTH_SIDES for name in AUDIO_FEATURES]
    return Scaler(
        mean=tuple(np.where(same, spotify.mean, own.mean).tolist()),
        std=tuple(np.where(same, spotify.std, own.std).tolist()),
        ignored=IGNORED_IN_AUDIO,
    )


def against_listeners(index: Path, probabilities: Mapping[str, Floats]) -> dict[str, Any]:
    """Rank correlation of the moods' ``probabilities`` (by file stem) with what the listeners of ``index`` felt.

    ``index`` is a CSV with track_id, group, and a column with a share of listeners for each emotion. Raises DataError
    where it is something else.
    """
    try:
        with index.open(newline="", encoding="utf-8-sig") as opened:
            rows = [row for row in csv.DictReader(opened) if row.get("track_id") in probabilities]
        felt = {name: [float(row[name]) for row in rows] for names in EMOTIONS.values() for name in names}
        groups = [row["group"] for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{index} is no table of what listeners felt: {error}") from error
    if not rows:
        raise DataError(f"{index} names none of the {len(probabilities)} recordings beside it")
    predicted = np.array([probabilities[row["track_id"]] for row in rows])

    def correlation(mood: str, emotion: str) -> Interval:
        pairs = np.column_stack([predicted[:, MOODS.index(mood)], felt[emotion]])
        return bootstrap(pairs, groups, _rank_correlation)

    answers = predicted.argmax(axis=1)
    return {
        "listener_clips": len(rows),
        "listeners": [
            {"mood": mood, "emotion": emotion, "correlation": correlation(mood, emotion).rounded()}
            for mood, emotions in EMOTIONS.items()
            for emotion in emotions
        ],
        "listener_answers": {mood: round(float((answers == i).mean()), 3) for i, mood in enumerate(MOODS)},
    }


def _rank_correlation(pairs: Floats) -> float:
    """Spearman's, of pairs [n, 2]; 0 where one side is the same throughout and nothing can be said."""
    if (np.ptp(pairs, axis=0) == 0.0).any():
        return 0.0
    return float(scipy.stats.spearmanr(pairs).statistic)
