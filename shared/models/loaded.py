"""Models in memory: loaded on demand, few at a time. Independent of TensorFlow, which only the loader needs."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from shared.models.catalogue import Catalogue, Kind
from shared.models.manifest import ModelError, ModelManifest

log = logging.getLogger(__name__)

#: Models in memory beside the configured one. A shipped genre model takes 20 to 40 MB (benchmarks/genre_worker.py).
MOST_GUESTS: Final = 2


class Loaded(Protocol):
    """A loaded model."""

    @property
    def manifest(self) -> ModelManifest: ...


Model = TypeVar("Model", bound=Loaded)


class LoadedModels(Generic[Model]):
    """The configured model, which stays, and guests: at most ``most_guests``, the one least recently used goes first.

    ``own`` is the folder name of the configured one, which is loaded at once. Raises ModelError. Safe from many
    threads. An evicted model is released when its last user is done.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        kind: Kind,
        load: Callable[[Path], Model],
        own: str,
        most_guests: int = MOST_GUESTS,
    ) -> None:
        self.own = load(catalogue.configured(kind, own).folder)
        self._catalogue = catalogue
        self._kind: Kind = kind
        self._load = load
        self._most_guests = most_guests
        self._guests: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, model_id: str) -> Model:
        """The model of that ID. Raises HeldError, TonestreamError, like ``Catalogue.require``."""
        if model_id == self.own.manifest.model_id:
            return self.own
        with self._lock:
            guest = self._guests.pop(model_id, None)
            if guest is None:
                while len(self._guests) >= self._most_guests:
                    self._guests.popitem(last=False)
                guest = self._loaded(model_id)
            self._guests[model_id] = guest
            return guest

    def _loaded(self, model_id: str) -> Model:
        installed = self._catalogue.require(self._kind, model_id)
        try:
            model = self._load(installed.folder)
            if model.manifest.model_id != model_id:
                raise ModelError(f"{installed.folder} held {model_id}, and now holds {model.manifest.model_id}")
        except ModelError as error:
            self._catalogue.leave_out(installed, error)
            self._catalogue.require(self._kind, model_id)
            raise
        log.info("loaded a model that is not the configured one", extra={"model": model_id})
        return model
