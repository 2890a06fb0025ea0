"""Training protocols: what differs between genre models, namely their features and their training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from shared.audio.spec import FeatureSpec
from training.data.clips import Clip
from training.reports.figures import ContentFigures, FitFigures

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows the progress of long loops."""

    def track(self, iterable: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
        """The items of ``iterable``, counted under ``label`` as they are taken; ``total`` if it is known."""
        ...


class NoProgress:
    """Shows nothing."""

    def track(self, iterable: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
        return iterable


@dataclass(frozen=True, slots=True)
class Workspace:
    """The cache, the number of threads, and the progress display.

    For protocols that use them, ``unlabelled`` are folders of music without genres, ``speech`` and ``sounds`` folders
    of what is no music, with a subfolder a source.
    """

    cache: Path
    threads: int
    progress: Progress = field(default_factory=NoProgress)
    unlabelled: tuple[Path, ...] = ()
    speech: tuple[Path, ...] = ()
    sounds: tuple[Path, ...] = ()


#: The name of the note with the figures of simpler protocols, for comparison.
REFERENCES: Final = "references"
#: The name of the note with the mean rank correlation of a student's tags with its teacher's, on held-out clips.
TAG_AGREEMENT: Final = "tags_rank_correlation_with_musicnn"


@dataclass(frozen=True, slots=True)
class Finished:
    """A network to ship, and the figures of its further outputs: of `fit`, and of `content`."""

    network: Any
    fit: FitFigures | None = None
    content: ContentFigures | None = None


class TrainingProtocol(Protocol):
    """One way to make a genre model.

    Call ``prepare`` once, then any number of fits, which are independent of each other. ``tags`` are the labels of a
    second head, if there is one: then the network's output is a dict as `shared.models.manifest` describes it, with the
    logits of the genres under ``genres``. ``description`` and ``notices``
    are Markdown for the card: the network, and the rights and licences of others. ``max_segments`` is what the manifest
    advises. ``notes`` are further figures for the card, by name; under `REFERENCES` the track accuracy of simpler
    protocols in the same folds.
    """

    name: str
    description: str
    notices: str
    spec: FeatureSpec
    notes: dict[str, Any]

    @property
    def max_segments(self) -> int | None: ...

    @property
    def tags(self) -> tuple[str, ...] | None: ...

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        """Compute, or read from the cache, what all fits of ``clips`` share. May take long."""
        ...

    def fit(self, train_on: npt.NDArray[np.intp], seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        """A Keras network, features float32 [n, frames, coefficients] to logits [n, 10] (or a dict, see above), trained
        on whole clips.

        ``train_on`` are positions in the prepared clips: training must not use any other. ``keep``, if given, is called
        with the network after each epoch.
        """
        ...

    def finished(self, network: Any) -> Finished:
        """``network``, as the last fit returned it, as it is shipped. It may have more outputs, calibrated on the clips
        that earlier fits did not train on."""
        ...

    def fit_segments(self, clip_of: npt.NDArray[np.intp], position: npt.NDArray[np.intp], seed: int) -> Any:
        """The same, trained on single segments: number ``position[i]`` of clip ``clip_of[i]``.

        Only for the leaky figure of a random split by segment.
        """
        ...


def _of(module: str) -> Callable[[], TrainingProtocol]:
    """The protocol that ``module.protocol()`` returns, imported on demand, because TensorFlow takes seconds."""

    def protocol() -> TrainingProtocol:
        made: TrainingProtocol = import_module(module).protocol()
        return made

    return protocol


#: By the names of ``tonestream train genre --model``.
PROTOCOLS: Final[dict[str, Callable[[], TrainingProtocol]]] = {
    "mfcc-lstm": _of("training.genre.mfcc"),
    "mfcc-lstm-seed": _of("training.genre.seed"),
    "musicnn-lstm": _of("training.genre.musicnn"),
}


class UnknownProtocolError(ValueError):
    """There is no protocol of that name."""


def protocol_named(name: str, protocols: Mapping[str, Callable[[], TrainingProtocol]] = PROTOCOLS) -> TrainingProtocol:
    """The protocol called ``name``. Raises UnknownProtocolError, which lists the known ones."""
    if name not in protocols:
        raise UnknownProtocolError(
            f"there is no genre model {name!r} to train: choose from {', '.join(sorted(protocols))}"
        )
    return protocols[name]()
