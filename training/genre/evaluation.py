"""A finished genre model on labelled audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.models.manifest import ModelManifest
from shared.models.networks import GenreModel
from training.data.clips import Clip, DataError, content_id, read_clips
from training.data.features import usable_clips
from training.data.splits import fault_filtered_positions
from training.genre.figures import Temperatures, figures
from training.genre.protocol import Workspace
from training.genre.training import SplitName, fault_filtered_split, genre_figures, logits_of, named
from training.reports.figures import ClipLeak, GenreFigures, Split, trained_on

Array = npt.NDArray[np.float32]

_SMALLEST: Final = 1e-30


def evaluate_model(folder: Path, model_folder: Path, split: SplitName, data: Workspace) -> GenreFigures:
    """The figures of the model in ``model_folder`` on the clips of ``folder``, as the product serves it: on all of
    them, or on the test tracks of the fault-filtered split. Every whole segment votes, even a silent one.

    ``leak`` says how many of the clips the model was trained on, as far as its manifest says: figures on those are
    flattered. Raises DataError, SplitError, ModelError.
    """
    model = GenreModel.load(model_folder, data.threads)
    manifest = model.manifest
    spec = manifest.require_feature_spec()
    clips, skipped = usable_clips(read_clips(folder), spec, data.cache, data.threads, data.progress)
    if not clips:
        raise DataError(f"none of the {len(skipped)} clips in {folder} can be used: {skipped[0].reason}")
    described = Split(name="all clips")
    if split == "fault-filtered":
        described = fault_filtered_split(clips)
        tested = fault_filtered_positions([clip.name for clip in clips], [clip.label for clip in clips])["test"]
        clips = [clips[i] for i in tested]

    def predict(features: Array) -> Array:
        # The model outputs calibrated probabilities. They determine its logits up to a constant, which does not matter.
        return np.log(np.maximum(model.predict(features), _SMALLEST)) * np.float32(manifest.temperature)

    held_out = logits_of(predict, clips, spec, "answers", data)
    answers = Temperatures(manifest.temperature, manifest.track_temperature).answers(held_out)
    return genre_figures(
        figures(held_out, answers, manifest.uncertain_below),
        split=described,
        skipped=named(skipped),
        leak=leak(manifest, clips),
        temperature=manifest.temperature,
        track_temperature=manifest.track_temperature,
    )


def leak(manifest: ModelManifest, clips: Sequence[Clip]) -> ClipLeak:
    """How many of ``clips`` the model was trained on, by the content of their files; None if its manifest does not
    say."""
    content_ids = trained_on(manifest.figures)
    if content_ids is None:
        return ClipLeak(clips=None, of=len(clips))
    known = set(content_ids)
    return ClipLeak(clips=sum(content_id(clip.path) in known for clip in clips), of=len(clips))
