"""Splits that never put an artist on both sides, because other songs of a known artist are too easy.

The exception is `random_segments`, the leaky split of many tutorials.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
Part = Literal["train", "valid", "test"]

#: Separators between the names of a credit.
_BETWEEN_NAMES: Final = re.compile(r"[,;&()\[\]]|\band\b|\bfeat(?:uring)?\b\.?|\bft\b\.?", re.IGNORECASE)
#: Common parts of band names that do not identify a musician.
_NO_NAME: Final = re.compile(r"|unknown( artist)?|various( artists)?|friends|orchestra|(his|her|their) .*")


class SplitError(ValueError):
    """The clips cannot be split this way."""


def merge_artists(labels: Sequence[str], groups: Sequence[str], artists: Sequence[str | None]) -> list[str]:
    """``groups``, merged if they have one label and their ``artists`` share a name. A merged group has the shortest
    name.

    A credit such as "Ice Cube, Mack 10 & Ms. Toi" holds several names; case and a leading "the" do not count. A
    track without an artist (None, empty, "UNKNOWN ARTIST") stays in its group.

    >>> merge_artists(["rock", "rock"], ["one", "other"], ["Morphine", "George S. Clinton & Morphine"])
    ['one', 'one']
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    group_of_name: dict[tuple[str, str], str] = {}
    for label, group, artist in zip(labels, groups, artists, strict=True):
        for name in names_in(artist or ""):
            first, second = sorted(
                (root(group_of_name.setdefault((label, name), group)), root(group)), key=lambda one: (len(one), one)
            )
            parent[second] = first
    return [root(group) for group in groups]


def names_in(credit: str) -> set[str]:
    """The names in an artist credit, in lower case; empty if the artist is unknown."""
    parts = (" ".join(part.casefold().split()) for part in _BETWEEN_NAMES.split(credit))
    names = {part.removeprefix("the ").strip(" .") for part in parts}
    return {name for name in names if not _NO_NAME.fullmatch(name)}


def fold_of_each(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> Indices:
    """The test fold, 0 to ``folds`` - 1, of every item. Items of one group share a fold; labels are spread evenly.

    Greedy: groups in random order, larger ones first, each into the fold with the least of its labels so far.
    Deterministic for a seed. A label with fewer groups than folds is missing from some folds. Raises SplitError if
    a label has a single group (it would have no training data when that group is tested) or for fewer than two folds.
    """
    if folds < 2:
        raise SplitError(f"cross-validation takes two folds at least, not {folds}")
    members: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    _check_enough_groups(labels, groups)
    totals = Counter(labels)
    counts = [Counter[str]() for _ in range(folds)]
    shuffled = np.random.default_rng(seed).permutation(sorted(members))
    fold_of = np.empty(len(labels), np.intp)
    for group in sorted(shuffled, key=lambda name: -len(members[name])):
        own = Counter(labels[position] for position in members[group])
        fold = min(
            range(folds),
            key=lambda f: (sum(counts[f][label] / totals[label] * n for label, n in own.items()), counts[f].total()),
        )
        counts[fold].update(own)
        fold_of[members[group]] = fold
    return fold_of


def train_and_test(fold_of: Indices) -> Iterator[tuple[Indices, Indices]]:
    """(positions to train on, positions to test on) of every fold that has items."""
    for fold in np.unique(fold_of):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _check_enough_groups(labels: Sequence[str], groups: Sequence[str]) -> None:
    groups_of = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    single = [label for label, count in groups_of.items() if count < 2]
    if single:
        raise SplitError(f"a split needs two groups of each label; there is one of {', '.join(sorted(single))}")


def fault_filtered(part: Part) -> frozenset[str]:
    """The tracks (``blues.00012``) of one part of the fault-filtered, artist-aware split of GTZAN.

    443 for training, 197 for validation, 290 for testing: Kereliuk, Sturm and Larsen 2015, "Deep Learning and Music
    Adversaries". Repeated, distorted and mislabelled tracks are left out.
    """
    listed = files("training.data").joinpath("fault_filtered", f"{part}.txt")
    return frozenset(listed.read_text(encoding="ascii").split())


def fault_filtered_positions(names: Sequence[str], labels: Sequence[str]) -> dict[Part, Indices]:
    """Positions of the tracks that each part of the fault-filtered split lists, by name (``blues.00012``).

    Raises SplitError if a genre has no track to train on or to test, or if no track is left to validate.
    """
    parts = {part: fault_filtered(part) for part in get_args(Part)}
    found: dict[Part, Indices] = {
        part: np.array([i for i, name in enumerate(names) if name in listed], np.intp) for part, listed in parts.items()
    }
    faults = [
        f"no {genre} in {part}"
        for part in ("train", "test")
        for genre in sorted({name.partition(".")[0] for name in parts[part]})
        if genre not in {labels[i] for i in found[part]}
    ]
    if not len(found["valid"]):
        faults.append("nothing in valid")
    if faults:
        present = ", ".join(f"{len(found[part])} of {len(listed)} in {part}" for part, listed in parts.items())
        raise SplitError(
            f"the fault-filtered split needs the full GTZAN: of its tracks there are {present} ({'; '.join(faults)})"
        )
    return found


def random_segments(segments: int, seed: int, share: float = 0.2) -> tuple[Indices, Indices]:
    """(positions to train on, positions to test on) of segments shuffled one by one, ``share`` of them to test.

    LEAKY, to show the effect on a figure: nearly every tested segment has neighbours in the training set.
    """
    shuffled = np.random.default_rng(seed).permutation(segments)
    tested = max(1, round(share * segments))
    return np.sort(shuffled[tested:]), np.sort(shuffled[:tested])
