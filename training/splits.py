"""Cross-validation that never puts one artist on both sides: songs of one artist are far too easy to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


def fold_of_each(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> Indices:
    """The test fold, 0 to ``folds`` - 1, of every item. Items of one group share a fold; labels are spread evenly.

    Greedy: groups in random order, larger ones first, each into the fold that holds least of its labels so far.
    Deterministic for a seed. A label with fewer groups than folds is missing from some folds. Raises ValueError where
    a label has a single group: nothing could be learnt of it when that is tested.
    """
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
    """(positions to train on, positions to test on) of every fold."""
    for fold in range(int(fold_of.max()) + 1):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _check_enough_groups(labels: Sequence[str], groups: Sequence[str]) -> None:
    groups_of = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    single = [label for label, count in groups_of.items() if count < 2]
    if single:
        raise ValueError(f"a split needs two groups of each label; there is one of {', '.join(sorted(single))}")
