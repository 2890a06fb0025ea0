"""Training and cross-validation of genre models, the same for every protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from shared.audio.spec import FeatureSpec
from shared.contracts.labels import GENRES
from shared.models.manifest import ModelManifest, write_manifest
from training.data.clips import Clip, DataError, content_id, read_clips
from training.data.features import Skipped, clip_features, usable_clips
from training.data.splits import fault_filtered, fault_filtered_positions, fold_of_each, random_segments, train_and_test
from training.data.variations import VARIATIONS, Variation
from training.export import export_onnx
from training.genre.figures import LIMITED_HZ, HeldOut, Temperatures, answers_by_fold, figures
from training.genre.protocol import TrainingProtocol, Workspace
from training.reports.card import write_card
from training.reports.figures import ClipLeak, GenreAnswers, GenreFigures, Leaky, SkippedFile, Split
from training.reports.metrics import UNCERTAIN_BELOW, accuracy
from training.reports.plots import write_plots
from training.tensorflow_setup import prepare

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
SplitName = Literal["artist", "fault-filtered"]

_WEIGHTS: Final = "model.keras"
#: Batch size of predictions. A segment takes 10 MB in the wide convolutions.
_PREDICT_BATCH: Final = 32
#: Clips whose features are in memory together during prediction.
_CLIPS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Material:
    """The usable clips, the unusable ones, and the number of segments of each usable one."""

    clips: Sequence[Clip]
    skipped: Sequence[Skipped]
    lengths: Indices


@dataclass(frozen=True, slots=True)
class GenreEvaluation:
    """The figures of a protocol on clips that it did not train on, and the temperatures fitted to its answers."""

    figures: GenreFigures
    calibration: Temperatures


@dataclass(frozen=True, slots=True)
class Plan:
    """How to evaluate a protocol: the number of ``folds`` by artist; ``leaky`` adds the random split by segment."""

    split: SplitName = "artist"
    folds: int = 5
    seed: int = 1
    leaky: bool = True


def load_material(folder: Path, protocol: TrainingProtocol, data: Workspace) -> Material:
    """The clips of ``folder`` without files that are corrupt or too short. Raises DataError if none is left."""
    clips, skipped = usable_clips(read_clips(folder), protocol.spec, data.cache, data.threads, data.progress)
    if not clips:
        raise DataError(f"none of the {len(skipped)} clips in {folder} can be used: {skipped[0].reason}")
    lengths = [len(one) for one in clip_features(clips, protocol.spec, data.cache, data.threads)]
    return Material(clips, skipped, np.array(lengths, np.intp))


def try_protocol(protocol: TrainingProtocol, material: Material, plan: Plan, data: Workspace) -> GenreEvaluation:
    """Train on a part of the clips and evaluate on the rest, as ``plan`` says. Prepares the protocol for all of them.

    Raises SplitError if the clips cannot be split.
    """
    clips = material.clips
    labels = [clip.label for clip in clips]
    if plan.split == "artist":
        fold_of = fold_of_each(labels, [clip.group for clip in clips], plan.folds, plan.seed)
        protocol.prepare(clips, data)
        held_out = _cross_validated(protocol, clips, fold_of, plan.seed, data)
        answers, calibration = answers_by_fold(held_out, fold_of), Temperatures.fit(held_out)
        split = Split(name=plan.split, folds=plan.folds, seed=plan.seed)
    else:
        parts = fault_filtered_positions([clip.name for clip in clips], labels)
        protocol.prepare(clips, data)
        network = protocol.fit(parts["train"], plan.seed)
        valid, held_out = (_held_out(network, protocol, clips, parts[part], data) for part in ("valid", "test"))
        calibration = Temperatures.fit(valid)
        answers = calibration.answers(held_out)
        split = fault_filtered_split(clips).with_more(seed=plan.seed)
    measured = genre_figures(
        figures(held_out, answers, UNCERTAIN_BELOW),
        split=split,
        skipped=named(material.skipped),
        leaky=_leaky(protocol, material, plan.seed, data) if plan.leaky else None,
    )
    return GenreEvaluation(measured, calibration)


def train_model(
    folder: Path, protocol: TrainingProtocol, out: Path, plan: Plan, command: str, data: Workspace
) -> ModelManifest:
    """Evaluate ``protocol`` on the clips of ``folder``, train it on all of them, and write the model folder ``out``.

    The folder gets weights, manifest, card and both plots. Raises DataError, SplitError, ModelError.
    """
    started = time.perf_counter()
    versions = prepare(plan.seed, data.threads)
    material = load_material(folder, protocol, data)
    trial = try_protocol(protocol, material, plan, data)
    finished = protocol.finished(protocol.fit(np.arange(len(material.clips)), plan.seed))

    out.mkdir(parents=True, exist_ok=True)
    finished.network.save(out / _WEIGHTS)
    manifest = write_manifest(
        out,
        out.resolve().name,
        kind="genre",
        labels=GENRES,
        feature_spec=protocol.spec,
        temperature=round(trial.calibration.segment, 4),
        track_temperature=round(trial.calibration.track, 4),
        uncertain_below=UNCERTAIN_BELOW,
        max_segments=protocol.max_segments,
        tags=protocol.tags,
        unfit_below=finished.fit and finished.fit.below,
        weights=_WEIGHTS,
        onnx=export_onnx(finished.network, out),
        versions=versions,
        command=command,
        figures=trial.figures.with_more(
            **described(protocol),
            **({"fit": finished.fit} if finished.fit else {}),
            **({"content": finished.content} if finished.content else {}),
            trained_on=sorted({content_id(clip.path) for clip in material.clips}),
            training_s=round(time.perf_counter() - started),
        ).as_json(),
    )
    write_plots(out, manifest.model_id, trial.figures)
    write_card(out, manifest)
    return manifest


def cross_validate_protocol(folder: Path, protocol: TrainingProtocol, plan: Plan, data: Workspace) -> GenreFigures:
    """The figures of ``protocol``, trained on parts of the clips of ``folder``. Writes only to the cache.

    Raises DataError, SplitError.
    """
    prepare(plan.seed, data.threads)
    trial = try_protocol(protocol, load_material(folder, protocol, data), plan, data)
    return trial.figures.with_more(
        **described(protocol),
        leak=ClipLeak(clips=0, of=trial.figures.clips),
        temperature=round(trial.calibration.segment, 4),
        track_temperature=round(trial.calibration.track, 4),
    )


def described(protocol: TrainingProtocol) -> dict[str, Any]:
    """The protocol's description for a manifest."""
    return {
        "recipe": protocol.name,
        "description": protocol.description,
        "notices": protocol.notices,
        "notes": protocol.notes,
    }


def genre_figures(answers: GenreAnswers, **more: Any) -> GenreFigures:
    """The figures of ``answers``, with the split and further notes."""
    return GenreFigures.model_validate({**{name: getattr(answers, name) for name in answers.model_fields_set}, **more})


def named(skipped: Sequence[Skipped]) -> tuple[SkippedFile, ...]:
    """The skipped files by genre and name, without their paths."""
    return tuple(SkippedFile(file=f"{one.file.parent.name}/{one.file.name}", reason=one.reason) for one in skipped)


def fault_filtered_split(clips: Sequence[Clip]) -> Split:
    """The fault-filtered split: how many tracks of each list are present, and how many test tracks are by an artist of
    the training set."""
    parts = fault_filtered_positions([clip.name for clip in clips], [clip.label for clip in clips])
    known = {clips[i].group for i in parts["train"]}
    return Split(
        name="fault-filtered",
        present={part: len(positions) for part, positions in parts.items()},
        listed={part: len(fault_filtered(part)) for part in parts},
        tests_of_known_artists=sum(clips[i].group in known for i in parts["test"]),
    )


def logits_of(
    predict: Callable[[Array], Array], clips: Sequence[Clip], spec: FeatureSpec, label: str, data: Workspace
) -> HeldOut:
    """The answers of ``predict`` ([n, frames, coefficients] to logits [n, classes]) for ``clips``: as they are, in the
    limited bandwidth, and with each variation."""

    def answered(bandwidth_hz: int | None, label: str, variation: Variation | None = None) -> list[Array]:
        found: list[Array] = []
        starts = range(0, len(clips), _CLIPS_AT_ONCE)
        for start in data.progress.track(starts, label, len(starts)):
            part = clips[start : start + _CLIPS_AT_ONCE]
            features = clip_features(part, spec, data.cache, data.threads, bandwidth_hz, variation=variation)
            ends = np.cumsum([len(one) for one in features])
            # A variation may leave a short clip without a segment.
            logits = predict(np.concatenate(features)) if ends[-1] else np.empty((0, len(GENRES)), np.float32)
            found += np.split(logits, ends[:-1])
        return found

    limited = answered(LIMITED_HZ, f"{label}, up to {LIMITED_HZ / 1000:g} kHz")
    varied = {one.name: answered(None, f"{label}, {one.name}", one) for one in VARIATIONS}
    return HeldOut(clips, answered(None, label), limited, varied)


def _cross_validated(
    protocol: TrainingProtocol, clips: Sequence[Clip], fold_of: Indices, seed: int, data: Workspace
) -> HeldOut:
    full: list[Array] = [np.empty(0, np.float32)] * len(clips)
    limited = list(full)
    varied = {one.name: list(full) for one in VARIATIONS}
    folds = list(train_and_test(fold_of))
    for train_on, test_on in data.progress.track(folds, "folds", len(folds)):
        judged = _held_out(protocol.fit(train_on, seed), protocol, clips, test_on, data)
        for position, own_full, own_limited in zip(test_on, judged.full, judged.limited, strict=True):
            full[position], limited[position] = own_full, own_limited
        for name, logits in judged.varied.items():
            for position, own in zip(test_on, logits, strict=True):
                varied[name][position] = own
    return HeldOut(clips, full, limited, varied)


def _held_out(
    network: Any, protocol: TrainingProtocol, clips: Sequence[Clip], positions: Indices, data: Workspace
) -> HeldOut:
    def predict(features: Array) -> Array:
        outputs = network.predict(features, batch_size=_PREDICT_BATCH, verbose=0)
        logits: Array = outputs if protocol.tags is None else outputs["genres"]
        return logits

    return logits_of(predict, [clips[i] for i in positions], protocol.spec, "answers", data)


def _leaky(protocol: TrainingProtocol, material: Material, seed: int, data: Workspace) -> Leaky:
    """The figures of a random split by segment: trained on 80% of the segments, tested on the rest.

    One split suffices, because the gap to the honest figure is far wider than its variance.
    """
    clip_of = np.repeat(np.arange(len(material.clips)), material.lengths)
    position = np.concatenate([np.arange(length) for length in material.lengths])
    train_on, test_on = random_segments(len(clip_of), seed)
    network = protocol.fit_segments(clip_of[train_on], position[train_on], seed)
    tested = _held_out(network, protocol, material.clips, np.unique(clip_of[test_on]), data)
    by_clip = dict(zip(np.unique(clip_of[test_on]), tested.full, strict=True))
    chosen = np.array([by_clip[clip_of[i]][position[i]].argmax() for i in test_on], np.intp)
    truth = np.array([GENRES.index(material.clips[clip_of[i]].label) for i in test_on], np.intp)
    return Leaky(
        train_segments=len(train_on),
        test_segments=len(test_on),
        # As in tutorials, each segment counts as independent, which it is not.
        segment_accuracy=accuracy(chosen, truth, [str(i) for i in test_on]).rounded(),
    )
