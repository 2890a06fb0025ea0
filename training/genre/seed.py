"""``mfcc-lstm-seed``: the usual baseline of the literature, two layers of LSTM(64) on 13 MFCCs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from shared.audio.spec import MFCC13
from shared.contracts.labels import GENRES
from training.data.clips import Clip
from training.data.features import clip_features
from training.genre.network import Hyperparameters, Segments, build, train
from training.genre.protocol import Finished, Workspace

Indices = npt.NDArray[np.intp]

#: The bandwidth of a recording sampled at 16 kHz, Hz. Some GTZAN clips exist only as such copies.
_LIMITED_HZ: Final = 8000


class SeedProtocol:
    """A `TrainingProtocol`. Learns only from the clips. Half of the segments of each epoch are limited to 8 kHz."""

    name = "mfcc-lstm-seed"
    spec = MFCC13
    max_segments = None
    tags = None
    description = (
        "Two layers of LSTM(64) over the frames, Dense(64, ReLU), Dropout(0.3), one logit a genre. Each coefficient is "
        "standardised by the network's first layer. So that bandwidth is no cue to a genre, half of the segments of "
        "each epoch lose everything above 8 kHz. A baseline: the plainest network that reads a segment as a sequence."
    )
    notices = ""

    def __init__(self, epochs: int = 30) -> None:
        self.notes: dict[str, Any] = {"epochs": epochs}
        self._epochs = epochs

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        full = clip_features(clips, self.spec, data.cache, data.threads, progress=data.progress)
        limited = clip_features(clips, self.spec, data.cache, data.threads, _LIMITED_HZ, data.progress)
        lengths = np.array([len(segments) for segments in full])
        self._clip_of = np.repeat(np.arange(len(clips)), lengths)
        self._first = np.concatenate([[0], lengths.cumsum()[:-1]])
        labels = np.array([GENRES.index(clip.label) for clip in clips])[self._clip_of]
        self._material = Segments(np.concatenate(full), np.concatenate(limited), labels)

    def fit(self, train_on: Indices, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        return self._trained(np.flatnonzero(np.isin(self._clip_of, train_on)), seed, keep)

    def finished(self, network: Any) -> Finished:
        return Finished(network)

    def fit_segments(self, clip_of: Indices, position: Indices, seed: int) -> Any:
        return self._trained(self._first[clip_of] + position, seed, None)

    def _trained(self, segments: Indices, seed: int, keep: Callable[[Any], None] | None) -> Any:
        keras.utils.set_random_seed(seed)
        material = self._material[segments]
        network = build(self.spec.frames, self.spec.coefficients, len(GENRES), material)
        train(network, material, self._epochs, Hyperparameters(), seed, keep)
        return network


def protocol() -> SeedProtocol:
    """For the registry in `training.genre.protocol`."""
    return SeedProtocol()
