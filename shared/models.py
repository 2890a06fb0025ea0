"""Model folders: a manifest, the weights it names, and a card for people. Reading them takes no TensorFlow."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.audio.spec import FeatureSpec
from shared.contracts.messages import MoodSource

MANIFEST: Final = "manifest.json"


class ModelError(RuntimeError):
    """A model folder is missing, damaged, or not of the kind that was asked for."""


class Scaler(BaseModel):
    """Standardisation: ``(value - mean) / scale``, feature by feature."""

    model_config = ConfigDict(frozen=True)

    mean: tuple[float, ...]
    scale: tuple[float, ...]


class ModelManifest(BaseModel):
    """What stands beside the weights.

    ``temperature`` divides the logits, so that probabilities mean what they say. ``scalers`` (mood) standardise the ten
    features by where they came from: Spotify's and measured ones have other distributions. ``figures`` are what
    training measured; the card explains them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model_id: str
    kind: Literal["genre", "mood"]
    labels: tuple[str, ...]
    weights: str
    sha256: str
    temperature: float = Field(1.0, gt=0)
    feature_spec: FeatureSpec | None = None
    features: tuple[str, ...] = ()
    scalers: dict[MoodSource, Scaler] = Field(default_factory=dict)
    command: str = ""
    figures: dict[str, object] = Field(default_factory=dict)

    def require_feature_spec(self) -> FeatureSpec:
        """The features the model takes. Raises ModelError for a model that takes none."""
        if self.feature_spec is None:
            raise ModelError(f"{self.model_id} is a {self.kind} model; it takes no segment features")
        return self.feature_spec


def load_manifest(folder: Path) -> ModelManifest:
    """The manifest of the model in ``folder``. Raises ModelError."""
    try:
        return ModelManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"no model in {folder}: {MANIFEST} is missing") from None
    except (OSError, ValidationError) as error:
        raise ModelError(f"{folder / MANIFEST} cannot be read: {error}") from error


def weights_of(folder: Path, manifest: ModelManifest) -> Path:
    """The weights file, checked against the manifest's hash. Raises ModelError."""
    file = folder / manifest.weights
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"the weights of {manifest.model_id} cannot be read: {error}") from error
    if found != manifest.sha256:
        raise ModelError(f"{file} is not the file its manifest describes (SHA-256 {found[:12]}…)")
    return file
