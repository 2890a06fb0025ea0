"""Model folders: a manifest, weights, a card. This module reads manifests and needs no TensorFlow.

A genre model maps the features of its own spec, [frames, coefficients], to one logit a label; a mood model maps
the ten audio features, standardised, to one logit a label for each source of them (spotify, audio). Logits
divided by ``temperature`` and put through a softmax are the calibrated probabilities. A tag model maps the
features of its spec to an embedding and one logit a label, each put through a sigmoid: any number of tags may fit. A
genre model with ``tags`` is both: it has the outputs ``genres``, ``embedding`` and ``tags``, by name. It may have two
more: ``fit``, the log odds that a track is of one of the genres (the mean over its segments counts), and ``content``,
logits of CONTENTS. Only the manifest knows the numbers of frames and coefficients.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from shared.audio.spec import FeatureSpec
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import Calibration

MANIFEST: Final = "manifest.json"

#: Standardised features are clipped here, because a network trained on a few hundred tracks cannot extrapolate.
_CLIP: Final = 3.0
_HASH_DIGITS: Final = 12
_FILE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_SHA256: Final = r"^[0-9a-f]{64}$"


class ModelError(Exception):
    """A model folder is missing, damaged, or contradicts its manifest."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scaler(_Frozen):
    """Mean and standard deviation of each feature, in ``AUDIO_FEATURES`` order and units.

    ``ignored`` features count as average, whatever their value.
    """

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0.0)], ...]
    ignored: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not len(self.mean) == len(self.std) == len(AUDIO_FEATURES):
            raise ValueError(f"a scaler holds {len(AUDIO_FEATURES)} means and as many deviations")
        if not set(self.ignored) <= set(AUDIO_FEATURES):
            raise ValueError(f"a scaler ignores features that are none: {', '.join(self.ignored)}")
        return self

    def standardise(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(features - mean) / std of [n, 10] or [10], clipped to -3..3, 0 if ignored; float32."""
        scaled = (np.asarray(features, np.float64) - np.array(self.mean)) / np.array(self.std)
        used = [name not in self.ignored for name in AUDIO_FEATURES]
        return np.where(used, np.clip(scaled, -_CLIP, _CLIP), 0.0).astype(np.float32)


class OnnxFile(_Frozen):
    """The network once more, for ONNX Runtime."""

    file: Annotated[str, StringConstraints(pattern=_FILE)]
    sha256: Annotated[str, StringConstraints(pattern=_SHA256)]


class ModelManifest(_Frozen):
    """The content of a model folder and its origin.

    ``feature_spec`` is set for genre and tag models, ``scalers`` (by source of the features: spotify, audio) for mood
    models, and ``temperature_audio`` where the features measured from audio have a temperature of their own. The
    probabilities of a whole track, raised to 1 / ``track_temperature`` (genre models) and normalised, are calibrated;
    if the best is below ``uncertain_below``, the label is a guess. ``max_segments`` (genre models) limits the analysed
    segments of a track, because each one costs time. It is advice: a setting overrides it, and it is not part of the
    model ID. ``tags`` are the labels of a genre model's second head. A track whose fit is below
    ``unfit_below`` probably belongs to none of the genres. ``onnx`` is the same network for ONNX Runtime; models of
    older versions have none. ``figures`` are the measurements that the card
    explains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    kind: Literal["genre", "mood", "tags"]
    labels: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    unfit_below: float | None = Field(None, ge=0.0, le=1.0)
    feature_spec: FeatureSpec | None = None
    scalers: dict[Literal["spotify", "audio"], Scaler] | None = None
    temperature: float = Field(gt=0.0)
    temperature_audio: float | None = Field(None, gt=0.0)
    track_temperature: float = Field(1.0, gt=0.0)
    uncertain_below: float | None = Field(None, ge=0.0, le=1.0)
    max_segments: int | None = Field(None, ge=1)
    weights: Annotated[str, StringConstraints(pattern=_FILE)]
    sha256: Annotated[str, StringConstraints(pattern=_SHA256)]
    onnx: OnnxFile | None = None
    versions: dict[str, str]
    command: str
    figures: dict[str, Any]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        # The tags are those of the network; each is independently true or false.
        labels = {"genre": GENRES, "mood": MOODS, "tags": tuple(dict.fromkeys(self.labels))}[self.kind]
        if self.labels != labels or not labels:
            raise ValueError(f"the labels of a {self.kind} model are {', '.join(labels)}, in this order")
        if self.kind != "mood" and (self.feature_spec is None or self.scalers is not None):
            raise ValueError(f"a {self.kind} model has a feature spec and no scalers")
        if self.kind == "mood" and (self.feature_spec is not None or set(self.scalers or {}) != {"spotify", "audio"}):
            raise ValueError("a mood model has scalers for spotify and audio, and no feature spec")
        if self.kind != "mood" and self.temperature_audio is not None:
            raise ValueError("only a mood model has a temperature for audio: only moods have two sources")
        if self.tags is not None and (self.kind != "genre" or not self.tags or len(set(self.tags)) < len(self.tags)):
            raise ValueError("only a genre model has tags beside its labels, at least one, and each once")
        if self.kind != "genre" and self.track_temperature != 1.0:
            raise ValueError("only a genre model has a track temperature: only genres are voted for")
        return self

    @property
    def name(self) -> str:
        """The model ID without its hash."""
        return self.model_id.rpartition("-")[0]

    def serves_as(self, kind: Literal["genre", "mood", "tags"]) -> bool:
        """Whether the model is of that kind, or has what such a model has."""
        return kind == self.kind or (kind == "tags" and self.tags is not None)

    @property
    def tag_labels(self) -> tuple[str, ...]:
        """The tags that the model recognises. Raises ModelError if there are none."""
        if not self.serves_as("tags"):
            raise ModelError(f"{self.model_id} is a {self.kind} model without tags")
        return self.tags or self.labels

    @property
    def calibration(self) -> Calibration:
        """The calibration of the model's answers for whole tracks."""
        return Calibration(track_temperature=self.track_temperature, uncertain_below=self.uncertain_below)

    def fingerprint(self) -> str:
        """Hash of everything that determines an answer: weights, labels, spec, scalers, calibration. The model ID ends
        with it."""
        parts = self.model_dump(mode="json", include={"labels", "feature_spec", "scalers", "temperature", "sha256"})
        # Left out at their defaults, so that models published before these fields keep their IDs.
        if self.temperature_audio is not None:
            parts["temperature_audio"] = self.temperature_audio
        if self.track_temperature != 1.0:
            parts["track_temperature"] = self.track_temperature
        if self.uncertain_below is not None:
            parts["uncertain_below"] = self.uncertain_below
        if self.tags is not None:
            parts["tags"] = self.tags
        if self.unfit_below is not None:
            parts["unfit_below"] = self.unfit_below
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_HASH_DIGITS]

    def temperature_of(self, source: Literal["spotify", "audio"]) -> float:
        """The temperature of a mood model's logits for features from ``source``."""
        if source == "audio" and self.temperature_audio is not None:
            return self.temperature_audio
        return self.temperature

    def require_feature_spec(self) -> FeatureSpec:
        """The spec of a genre or tag model's features. Raises ModelError for a mood model."""
        if self.feature_spec is None:
            raise ModelError(f"{self.model_id} is a {self.kind} model: it has no feature spec")
        return self.feature_spec

    def require_scalers(self) -> dict[Literal["spotify", "audio"], Scaler]:
        """The scalers of a mood model, by source. Raises ModelError for another model."""
        if self.scalers is None:
            raise ModelError(f"{self.model_id} is a {self.kind} model: it has no scalers")
        return self.scalers


def load_manifest(folder: Path) -> ModelManifest:
    """The manifest of a model folder, with the weights' hash and the model ID checked. Raises ModelError."""
    path = folder / MANIFEST
    try:
        manifest = ModelManifest.model_validate_json(path.read_bytes())
        weights = (folder / manifest.weights).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} holds no whole model: {error}") from error
    except ValidationError as error:
        raise ModelError(f"{path} is no valid manifest: {error}") from error
    if hashlib.sha256(weights).hexdigest() != manifest.sha256:
        raise ModelError(f"{folder / manifest.weights} is damaged, or belongs to another manifest")
    if manifest.model_id != f"{manifest.name}-{manifest.fingerprint()}":
        raise ModelError(f"{path} was changed by hand: its model ID does not fit what it holds")
    return manifest


def write_manifest(folder: Path, name: str, **fields: Any) -> ModelManifest:
    """Write the manifest for the weights in ``folder``: ``fields`` without model ID and hash.

    Raises ModelError if the fields do not make a manifest.
    """
    sha256 = hashlib.sha256((folder / fields["weights"]).read_bytes()).hexdigest()
    try:
        draft = ModelManifest(model_id=name, sha256=sha256, **fields)
    except ValidationError as error:
        raise ModelError(f"no manifest for {name}: {error}") from error
    return store_manifest(folder, draft.model_copy(update={"model_id": f"{name}-{draft.fingerprint()}"}))


def store_manifest(folder: Path, manifest: ModelManifest) -> ModelManifest:
    """Write ``manifest`` into its folder, and return it."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    return manifest
