"""The teacher: a genre classifier on the outputs of the pretrained network, with the meaning of its tags as the prior.

A few clips by a few artists represent a genre poorly: a classifier fitted to them alone learns the artists. musicnn's
tags were learnt from a million songs, and some of them name genres. So the teacher starts from these tags and learns
only departures from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import scipy.special

from shared.contracts.labels import GENRES
from training.distillation.logistic import multinomial
from training.musicnn.network import MSD_TAGS

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

#: The tags of each genre, chosen by their meaning. No tag means reggae or classical music; these two have the tags that
#: are most frequent in such music.
TAGS_OF_GENRE: Final[Mapping[str, tuple[str, ...]]] = {
    "blues": ("blues",),
    "classical": ("instrumental", "beautiful"),
    "country": ("country",),
    "disco": ("dance", "70s", "funk", "party", "80s", "house"),
    "hiphop": ("hip-hop",),
    "jazz": ("jazz",),
    "metal": ("metal", "heavy metal"),
    "pop": ("pop", "female vocalists", "catchy", "rnb", "sexy"),
    "reggae": ("chill", "soul"),
    "rock": ("rock", "classic rock", "alternative rock", "indie rock", "alternative"),
}

#: Logits per standard deviation of a genre's tag score.
PRIOR_SCALE: Final = 4.0
#: Regularisation strength: L2 on the weights of standardised embeddings, which are departures from the prior, and on
#: the bias.
_PENALTY: Final = 1.0
_BIAS_PENALTY: Final = 0.01


def tag_members() -> npt.NDArray[np.float32]:
    """1.0 if a tag belongs to a genre, else 0.0; [tags, genres]."""
    members = np.zeros((len(MSD_TAGS), len(GENRES)), np.float32)
    for column, genre in enumerate(GENRES):
        members[[MSD_TAGS.index(tag) for tag in TAGS_OF_GENRE[genre]], column] = 1.0
    return members


def tag_scores(tags: Floats) -> Floats:
    """The tag score of each genre: log-sum-exp over its tags, [n, tags] to [n, genres]."""
    scores: Floats = np.log(np.exp(tags.astype(np.float64)) @ tag_members())
    return scores


@dataclass(frozen=True, slots=True)
class Teacher:
    """Logits of the genres, linear in tag scores and embedding.

    ``scale`` and ``offset`` [genres] apply to the tag scores, ``weights`` [200, genres] to the embedding; ``bias`` is
    [genres].
    """

    scale: Floats
    weights: Floats
    bias: Floats

    @classmethod
    def fit(
        cls,
        embeddings: Floats,
        tags: Floats,
        labels: Integers,
        groups: Sequence[str],
        reference: Floats,
        prior_scale: float = PRIOR_SCALE,
    ) -> Self:
        """The teacher fitted to n labelled segments, regularised towards the meaning of their tags.

        ``embeddings`` [n, 200] and ``tags`` [n, 50] are musicnn's, ``labels`` positions in GENRES, ``groups`` the
        artist of each segment; ``reference`` [m, 50] are tags of music of all kinds, against which the scores are
        standardised. All genres have the same weight; within a genre an artist's weight is the square root of the
        number of segments. A standard deviation of tag scores counts ``prior_scale`` logits; 0 leaves plain logistic
        regression on the embeddings.
        """
        scores, known = tag_scores(tags), tag_scores(reference)
        scale = prior_scale / known.std(axis=0)
        prior = (scores - known.mean(axis=0)) * scale
        mean, deviation = embeddings.mean(axis=0), embeddings.std(axis=0) + 1e-6
        importance = _fair_weights(labels, groups)
        weights, bias = multinomial((embeddings - mean) / deviation, prior, labels, importance, _PENALTY, _BIAS_PENALTY)
        own = weights / deviation[:, None]
        return cls(scale, own, bias - mean @ own - known.mean(axis=0) * scale)

    def logits(self, embeddings: Floats, tags: Floats) -> Floats:
        """Logits [n, genres] of ``embeddings`` [n, 200] and ``tags`` [n, 50]."""
        answers: Floats = tag_scores(tags) * self.scale + embeddings @ self.weights + self.bias
        return answers

    def probabilities(self, embeddings: Floats, tags: Floats) -> Floats:
        """The softmax of ``logits``."""
        probabilities: Floats = scipy.special.softmax(self.logits(embeddings, tags), axis=1)
        return probabilities


def _fair_weights(labels: Integers, groups: Sequence[str]) -> Floats:
    names = np.asarray(groups)
    weights = np.zeros(len(labels))
    for label in np.unique(labels):
        own = labels == label
        _, group_of, sizes = np.unique(names[own], return_inverse=True, return_counts=True)
        share = 1.0 / np.sqrt(sizes)[group_of]
        weights[own] = share / share.sum()
    fair: Floats = weights / weights.sum()
    return fair
