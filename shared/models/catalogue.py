"""The installed models, by model ID and by folder name. Reads manifests, without TensorFlow.

A message names the models of its answer. A worker serves any of them that it has, whatever its own settings say. It
waits for those that it lacks, as long as an upgrade may take.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from shared.audio.spec import FeatureSpec
from shared.contracts.errors import ErrorCode, HeldError, TonestreamError
from shared.contracts.messages import AnswerKey
from shared.models.manifest import MANIFEST, ModelError, ModelManifest, load_manifest
from shared.settings import Settings

log = logging.getLogger(__name__)

Kind = Literal["genre", "mood", "tags"]
Found = TypeVar("Found")

#: After a failed look-up the folders are read again, at most once in this many seconds.
_LOOK_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Installed:
    """A model folder and its manifest."""

    folder: Path
    manifest: ModelManifest


class Catalogue:
    """The model folders of an installation. Safe from many threads.

    A folder without a complete model is logged and left out. A folder that is added later is found when its model is
    looked up. ``wait_s`` is how long to wait for a missing model, counted from the first message that names it. The
    messages after that one do not wait again.
    """

    def __init__(
        self,
        models_dir: Path,
        configured: Iterable[str] = (),
        wait_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models_dir = models_dir.absolute()
        self._configured = tuple(configured)
        self._wait_s = wait_s
        self._clock = clock
        self._lock = threading.Lock()
        #: By folder: the model, and the modification time of its manifest.
        self._read: dict[Path, tuple[int, Installed]] = {}
        #: By folder: why it holds no model.
        self._faults: dict[Path, str] = {}
        self._unusable: set[str] = set()
        self._missing_since: dict[str, float] = {}
        self._looked_at = clock()
        self._look()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The catalogue of this installation."""
        configured = (settings.genre_model, settings.mood_model, settings.tag_model)
        return cls(settings.models_dir, configured, settings.model_wait_s)

    def configured(self, kind: Kind, name: str) -> Installed:
        """The model in the folder that a setting names. Raises ModelError."""
        folder = self._models_dir / name
        manifest = load_manifest(folder)
        if not manifest.serves_as(kind):
            raise ModelError(f"{folder} holds {manifest.model_id}: a {manifest.kind} model, where a {kind} one belongs")
        return Installed(folder, manifest)

    def installed(self, kind: Kind) -> list[Installed]:
        """The models of that kind, by folder name."""
        with self._lock:
            found = [
                model
                for _, model in self._read.values()
                if model.manifest.serves_as(kind) and model.manifest.model_id not in self._unusable
            ]
        return sorted(found, key=lambda model: model.folder.name)

    def named(self, kind: Kind) -> str:
        """The models of that kind in words, each with both names that ``find`` accepts."""
        return ", ".join(f"{model.folder.name} ({model.manifest.model_id})" for model in self.installed(kind)) or "none"

    def find(self, kind: Kind, name: str) -> Installed | None:
        """The model of that model ID, else the one in the folder of that name; None if there is neither."""

        def named() -> Iterator[Installed]:
            yield from self._by_id(kind, name)
            yield from (model for model in self.installed(kind) if model.folder.name == name)

        return self._looked_up(named)

    def require(self, kind: Kind, model_id: str) -> Installed:
        """The model of that ID. Raises HeldError during the wait for a missing one, then TonestreamError (internal)."""
        return self._required(f"the {kind} model {model_id}", lambda: self._by_id(kind, model_id))

    def genre_model_for(self, spec_id: str) -> Installed | None:
        """A genre model that takes the features of that spec; None if there is none."""
        takers = (one for one in self.installed("genre") if one.manifest.require_feature_spec().id == spec_id)
        return next(takers, None)

    def require_spec(self, answer_key: AnswerKey) -> FeatureSpec:
        """The spec of the features that ``answer_key`` needs, from any model that takes it. Raises as ``require``."""

        def specs() -> Iterator[FeatureSpec]:
            models = [*self.installed("genre"), *self.installed("tags")]
            found = (model.manifest.require_feature_spec() for model in models)
            return (spec for spec in found if spec.id == answer_key.feature_spec)

        return self._required(f"the genre model {answer_key.genre_model}", specs)

    def leave_out(self, model: Installed, error: ModelError) -> None:
        """Note that the model cannot be loaded. From now on it counts as missing."""
        log.error("this model cannot be used: %s", error, extra={"model": model.manifest.model_id})
        with self._lock:
            self._unusable.add(model.manifest.model_id)

    def _by_id(self, kind: Kind, model_id: str) -> Iterator[Installed]:
        return (model for model in self.installed(kind) if model.manifest.model_id == model_id)

    def _required(self, what: str, found: Callable[[], Iterator[Found]]) -> Found:
        first = self._looked_up(found)
        if first is None:
            raise self._missing(what)
        return first

    def _looked_up(self, found: Callable[[], Iterator[Found]]) -> Found | None:
        """The first match, if necessary after reading the folders again."""
        first = next(found(), None)
        if first is not None:
            return first
        with self._lock:
            if self._clock() - self._looked_at < _LOOK_AGAIN_S:
                return None
            self._looked_at = self._clock()
            self._look()
        return next(found(), None)

    def _look(self) -> None:
        """Read each folder that is new, has changed, or had no complete model the last time."""
        folders = [self._models_dir / name for name in self._configured]
        if self._models_dir.is_dir():
            folders += sorted(folder for folder in self._models_dir.iterdir() if folder.is_dir())
        read, faults = {}, {}
        for folder in dict.fromkeys(folder for folder in folders if not folder.name.startswith(".")):
            try:
                changed = (folder / MANIFEST).stat().st_mtime_ns
                known = self._read.get(folder)
                unchanged = known is not None and known[0] == changed
                read[folder] = known if unchanged and known else (changed, Installed(folder, load_manifest(folder)))
            except (ModelError, OSError) as error:
                faults[folder] = str(error)
                if self._faults.get(folder) != faults[folder]:
                    log.warning("a folder among the models is left out: %s", error)
        self._read, self._faults = read, faults

    def _missing(self, what: str) -> HeldError | TonestreamError:
        with self._lock:
            now = self._clock()
            waited = now - self._missing_since.setdefault(what, now)
        if waited < self._wait_s:
            return HeldError(f"{what} is not installed in this service; upgrade it, or install the model here")
        return TonestreamError(
            ErrorCode.INTERNAL,
            f"{what} is not installed in this service, and did not come within {self._wait_s:.0f} s. Upgrade the"
            " service, or install the model there; then submit the track again",
        )


def held_by(need: Callable[[], object]) -> HeldError | None:
    """The HeldError of ``need``, if it raises one. Other errors are ignored here; handling the message raises them
    again."""
    try:
        need()
    except HeldError as error:
        return error
    except TonestreamError:
        pass
    return None
