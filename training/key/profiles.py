"""Fits the key profiles of `shared.audio.track_features.key` to annotated clips, and measures them by artist.

The profiles start from those of electronic dance music by Faraldo et al. 2016 ("Key Estimation in Electronic Dance
Music", ECIR; called bgate in Essentia) and depart from them as far as the clips demand: logistic regression over the 24
keys, the same weights for every tonic.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from shared.audio.spec import MFCC13
from shared.audio.track_features.key import MODES, PROFILES, TONICS, KeyProfiles, pitch_class_shares, rotations
from training.data.clips import Clip, DataError, read_clips
from training.data.features import read_segments
from training.data.splits import fold_of_each, train_and_test
from training.genre.protocol import Workspace
from training.reports.card_parts import INTERVAL_NOTE, markdown_table, with_interval
from training.reports.metrics import bootstrap, calibrated_by_fold, expected_calibration_error, fit_temperature

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

CARD: Final = Path(__file__).resolve().parents[2] / "docs" / "key.md"
_FOLDS: Final = 10
#: GTZAN's annotations (Kraft, Lerch and Zölzer 2013) count from A: 0 to 11 major, 12 to 23 minor.
_ANNOTATED_FROM: Final = TONICS.index("A")
_PRIOR: Final = (
    (1.00, 0.00, 0.42, 0.00, 0.53, 0.37, 0.00, 0.77, 0.00, 0.38, 0.21, 0.30),
    (1.00, 0.00, 0.36, 0.39, 0.00, 0.38, 0.00, 0.74, 0.27, 0.00, 0.42, 0.23),
)
#: Logits per standard deviation of the prior profile, shared by both bands.
_PRIOR_SCALE: Final = 2.0
#: Regularisation strength of departures from the prior.
_PENALTY: Final = 5.0
#: Points of MIREX's key detection for a fifth, the relative and the parallel key.
_FIFTH, _RELATIVE, _PARALLEL = 0.5, 0.3, 0.2


@dataclass(frozen=True, slots=True)
class KeyClips:
    """Clips with a known key: shares of pitch classes [n, 2, 12], keys 0 to 23 [n], and the artist of each."""

    shares: Floats
    keys: Integers
    groups: Sequence[str]
    paths: Sequence[Path]

    def __getitem__(self, chosen: Integers) -> KeyClips:
        groups, paths = [self.groups[i] for i in chosen], [self.paths[i] for i in chosen]
        return KeyClips(self.shares[chosen], self.keys[chosen], groups, paths)


def read_key_clips(folder: Path, data: Workspace) -> KeyClips:
    """The clips of ``folder`` whose index.csv has a ``key``. Raises DataError if there is none."""
    known = _annotated(folder / "index.csv")
    clips = [clip for clip in read_clips(folder) if clip.name in known]
    if not clips:
        raise DataError(f"{folder / 'index.csv'} has no column key with 0 to 23 (A to G# major, A to G# minor)")
    with ThreadPoolExecutor(data.threads) as pool:
        found = list(data.progress.track(pool.map(_shares, clips), "pitch classes", len(clips)))
    usable = [number for number, shares in enumerate(found) if shares is not None]
    return KeyClips(
        np.array([found[number] for number in usable]),
        np.array([known[clips[number].name] for number in usable], np.intp),
        [clips[number].group for number in usable],
        [clips[number].path for number in usable],
    )


def fit_profiles(clips: KeyClips) -> KeyProfiles:
    """The profiles fitted to ``clips``, with temperature 1."""
    turned = rotations(clips.shares)
    mean, deviation = turned.mean(axis=(0, 1)), turned.std(axis=(0, 1)) + 1e-9
    heard = (turned - mean) / deviation
    count, tonics, features = heard.shape
    rows = np.arange(count)

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[:-1].reshape(len(MODES), features), flat[-1]
        logits = np.concatenate([heard @ weights[0], heard @ weights[1] + bias], axis=1)
        log_probabilities = scipy.special.log_softmax(logits, axis=1)
        error = np.exp(log_probabilities)
        error[rows, clips.keys] -= 1.0
        by_mode = error.reshape(count, len(MODES), tonics)
        departure = flat[:-1] - _prior().ravel()
        slope = np.einsum("nmt,ntf->mf", by_mode, heard).ravel() + _PENALTY * departure
        value = -log_probabilities[rows, clips.keys].sum() + _PENALTY / 2 * (departure**2).sum()
        return float(value), np.append(slope, by_mode[:, 1].sum())

    start = np.append(_prior().ravel(), 0.0)
    flat = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    return KeyProfiles(flat[:-1].reshape(len(MODES), features), mean, deviation, float(flat[-1]))


def cross_validated(clips: KeyClips, seed: int) -> tuple[Floats, Integers]:
    """Logits [n, 24] of each clip by profiles fitted to other artists, and the fold of each clip."""
    # Labels do not matter to the key; one label for all spreads the artists evenly.
    fold_of = fold_of_each(["clip"] * len(clips.keys), clips.groups, _FOLDS, seed)
    logits = np.empty((len(clips.keys), len(MODES) * len(TONICS)))
    for train_on, test_on in train_and_test(fold_of):
        logits[test_on] = fit_profiles(clips[train_on]).logits(clips.shares[test_on])
    return logits, fold_of


def points(answers: Integers, truth: Integers) -> Floats:
    """MIREX's points of each answer: 1 if right, 0.5 a fifth away, 0.3 for the relative key, 0.2 for the parallel."""
    up = (answers % 12 - truth % 12) % 12
    same_mode = answers // 12 == truth // 12
    relative = np.where(truth // 12 == 0, up == 9, up == 3)
    scored = np.where(same_mode & np.isin(up, (5, 7)), _FIFTH, 0.0)
    scored = np.where(~same_mode & (up == 0), _PARALLEL, scored)
    scored = np.where(~same_mode & relative, _RELATIVE, scored)
    return np.where(answers == truth, 1.0, scored)


def train_keys(
    folder: Path, command: str, seed: int, data: Workspace, profiles: Path = PROFILES, card: Path = CARD
) -> str:
    """Fit the profiles to the clips of ``folder``; write ``profiles`` and ``card``, which is returned.

    Raises DataError.
    """
    clips = read_key_clips(folder, data)
    logits, fold_of = cross_validated(clips, seed)
    temperature = fit_temperature(logits, clips.keys)
    fitted = fit_profiles(clips)
    stored: dict[str, Any] = {
        "weights": np.round(fitted.weights, 4).tolist(),
        "mean": np.round(fitted.mean, 5).tolist(),
        "deviation": np.round(fitted.deviation, 5).tolist(),
        "minor_bias": round(fitted.minor_bias, 4),
        "temperature": round(temperature, 4),
        "command": command,
    }
    profiles.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    text = _card(clips, logits, fold_of, temperature, command)
    card.write_text(text, encoding="utf-8")
    return text


def _card(clips: KeyClips, logits: Floats, fold_of: Integers, temperature: float, command: str) -> str:
    answers = logits.argmax(axis=1)
    right = (answers == clips.keys).astype(np.float64)
    scored = points(answers, clips.keys)
    first = np.argsort(-logits, axis=1)[:, :3]
    near = (first == clips.keys[:, None]).any(axis=1).astype(np.float64)
    probabilities = calibrated_by_fold(logits, clips.keys, fold_of)
    sure = probabilities.max(axis=1) >= 0.5
    rows = [
        ("tonic and mode right", _interval(right, clips.groups)),
        ("points of MIREX (fifth 0.5, relative 0.3, parallel 0.2)", _interval(scored, clips.groups)),
        ("right one among the three likeliest", _interval(near, clips.groups)),
        ("expected calibration error", f"{expected_calibration_error(probabilities, clips.keys):.3f}"),
        (f"right where the confidence is 0.5 or more ({sure.mean():.0%} of clips)", f"{right[sure].mean():.2f}"),
    ]
    major = clips.keys < len(TONICS)
    return f"""# How the key is found

`key` in a result is the tonic, the mode and the probability that both are right. Written by
`{command}`.

Spectral peaks between 55 and 2000 Hz vote for pitch classes, below and above 250 Hz apart, after the tuning of the
recording is known. Profiles of the two modes, the same for every tonic, turn the shares into 24 probabilities
(`shared/audio/track_features/key.py`, `training/key/profiles.py`).

{len(clips.keys)} clips of GTZAN with an annotated key ({major.sum()} major, {(~major).sum()} minor), {_FOLDS} folds
by artist ({len(set(clips.groups))}): none is in both training and test. {INTERVAL_NOTE}
Widths and strengths were chosen on these folds, so the figures flatter a little.

{markdown_table(("what", "figure"), rows)}

The temperature of the probabilities is {temperature:.2f}. `python -m benchmarks.key_and_tempo` compares with Essentia.
"""


def _interval(values: Floats, groups: Sequence[str]) -> str:
    return with_interval(bootstrap(values, groups, lambda own: float(own.mean())))


def _prior() -> Floats:
    profiles = np.array(_PRIOR)
    standardised = (profiles - profiles.mean(axis=1, keepdims=True)) / profiles.std(axis=1, keepdims=True)
    return np.hstack([standardised, standardised]) * _PRIOR_SCALE / 2.0


def _annotated(index: Path) -> dict[str, int]:
    if not index.exists():
        return {}
    with index.open(newline="", encoding="utf-8-sig") as opened:
        rows = [(row["track"], row.get("key") or "-1") for row in csv.DictReader(opened)]
    keys = {track: int(key) for track, key in rows if key.lstrip("-").isdigit()}
    return {track: (key + _ANNOTATED_FROM) % 12 + 12 * (key // 12) for track, key in keys.items() if 0 <= key < 2 * 12}


def _shares(clip: Clip) -> Floats | None:
    return pitch_class_shares([read_segments(clip.path, MFCC13).ravel()])
