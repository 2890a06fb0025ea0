"""The distillation set: music for the student, with the outputs of the pretrained network.

Cached file by file. Clips with a genre also have variants: shifted by half a segment, time-stretched, and mixed with
one another. In every split, variants stay on the side of their clip.
"""

from __future__ import annotations

import hashlib
import inspect
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache as remembered
from pathlib import Path
from typing import Any, Final, Literal, Self

import keras
import numpy as np
import numpy.typing as npt
import soxr
import tensorflow as tf

from shared.audio import level as audio_level
from shared.audio import wav
from shared.audio.segment_features import log_mel, mfcc
from shared.audio.segment_features.extraction import segment_features
from shared.audio.segment_features.mfcc import mel_power
from shared.audio.segments import chosen_segments, is_silent
from shared.audio.spec import LOG_MEL96, MFCC64
from shared.contracts.errors import TonestreamError, TransientError
from shared.models.manifest import load_manifest
from training.data.clips import Clip, audio_files, content_id
from training.data.features import read_segments
from training.genre.protocol import Workspace
from training.musicnn import network as musicnn

Array = npt.NDArray[np.float32]
#: The two large fields. No student needs both. The one that is left out has the shape [n, 0, 0].
Large = Literal["decibels", "activations"]

#: Range of the stored spectrograms. Steps of a third of a decibel are finer than the augmentation.
DECIBELS: Final = 80.0
TAG_MODEL: Final = Path(__file__).resolve().parents[2] / "models" / "music-tags"
_SPEEDS: Final = (0.85, 0.93, 1.08, 1.18)
_MIXES: Final = 20
_MIX_LEVEL_DB: Final = 9.0
_MIX_RMS: Final = 10.0 ** (audio_level.REFERENCE_DBFS / 20.0)
#: Evenly spaced segments per file without a genre, so that long files do not outweigh short ones.
_SEGMENTS_A_FILE: Final = 32
#: As many more are played faster or slower, at a speed and a place drawn for each.
_PLAYED_SEGMENTS: Final = 16
_PLAYED_SPEEDS: Final = (0.82, 1.22)
#: Shorter files are mostly sounds and jingles.
_FEWEST_SEGMENTS: Final = 8
_BATCH: Final = 16
#: Frames of the trunk per time step of the LSTM (their mean).
STEP_FRAMES: Final = 8


@dataclass(frozen=True, slots=True)
class DistillationSet:
    """n segments and the outputs of the pretrained network.

    ``decibels`` uint8 [n, 130, 128]: mel spectrogram in decibels, 0 for 80 dB below the segment's loudest value (kept
    in ``level``, dB) or less, 255 for that value; ``embedding`` [n, 200] and ``tags`` [n, 50] (logits) from musicnn;
    ``activations`` float16 [n, 23, 753] of its trunk. ``first`` and ``second`` are the positions of the source clips of
    a segment (equal unless it is a mix, -1 for music without a genre).
    """

    decibels: npt.NDArray[np.uint8]
    level: Array
    embedding: Array
    tags: Array
    activations: npt.NDArray[np.float16]
    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    original: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.level)

    def __getitem__(self, chosen: Any) -> DistillationSet:
        return DistillationSet(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[DistillationSet]) -> Self:
        """The concatenation of ``parts``."""
        return cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )

    def within(self, clips: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Mask of the segments that come only from ``clips``."""
        inside: npt.NDArray[np.bool_] = np.isin(self.first, clips)
        inside &= np.isin(self.second, clips)
        return inside

    def segments(self, clip_of: npt.NDArray[np.intp], position: npt.NDArray[np.intp]) -> DistillationSet:
        """The original segments number ``position[i]`` of clip ``clip_of[i]``, in the order of these examples."""
        originals = self[self.original]
        wanted = set(zip(clip_of.tolist(), position.tolist(), strict=True))
        # The segments of a clip are adjacent, so the first one is its segment 0.
        number = np.arange(len(originals)) - np.searchsorted(originals.first, originals.first)
        found = [pair in wanted for pair in zip(originals.first.tolist(), number.tolist(), strict=True)]
        return originals[np.array(found, bool)]

    @property
    def mixed(self) -> npt.NDArray[np.bool_]:
        """Mask of the segments that are mixes of two clips."""
        mixed: npt.NDArray[np.bool_] = self.first != self.second
        return mixed


def pretrained_network(folder: Path = TAG_MODEL) -> Any:
    """musicnn as `training.musicnn.network.tagger` builds it, with the weights in ``folder``. Raises ModelError."""
    manifest = load_manifest(folder)
    return keras.saving.load_model(folder / manifest.weights, compile=False)


class Listener:
    """The pretrained network. Safe from many threads."""

    def __init__(self) -> None:
        network = pretrained_network()
        steps = keras.layers.AveragePooling1D(STEP_FRAMES)(network.get_layer("activations").output)
        whole = keras.Model(network.input, [steps, *network.output])
        shape = tf.TensorSpec((None, LOG_MEL96.frames, LOG_MEL96.n_mels), tf.float32)
        self._answer = tf.function(lambda batch: whole(batch, training=False), input_signature=[shape])

    def hear(self, segments: Array) -> dict[str, npt.NDArray[Any]]:
        """The fields of `DistillationSet` that follow from ``segments`` [n, samples], n > 0."""
        decibels, level = in_decibels(segments)
        heard = [
            [part.numpy() for part in self._answer(segment_features(segments[start : start + _BATCH], LOG_MEL96))]
            for start in range(0, len(segments), _BATCH)
        ]
        activations, embedding, tags = (np.concatenate(parts) for parts in zip(*heard, strict=True))
        return {
            "decibels": decibels,
            "level": level,
            "embedding": embedding,
            "tags": tags,
            "activations": activations.astype(np.float16),
        }


def clip_examples(clips: Sequence[Clip], data: Workspace, without: Large | None = None) -> DistillationSet:
    """The examples of ``clips`` and their variants. Deterministic, and read from the cache if present."""
    listener = Listener()
    partners = [np.random.default_rng(position).integers(len(clips), size=_MIXES) for position in range(len(clips))]

    def own(position: int) -> DistillationSet:
        path = clips[position].path
        heard = _kept(data.cache, f"variants|{_SPEEDS}", [path], without, lambda: _variants(path, listener))
        return _placed(heard, position, np.full(len(heard["level"]), position))

    def mixes(position: int) -> DistillationSet:
        paths = [clips[position].path, *(clips[partner].path for partner in partners[position])]
        computation = f"mixes|{_MIXES}|{_MIX_LEVEL_DB}|{_MIX_RMS}"
        heard = _kept(data.cache, computation, paths, without, lambda: _mixes(paths, position, listener))
        return _placed(heard, position, partners[position])

    with ThreadPoolExecutor(data.threads) as pool:
        parts = [
            *data.progress.track(pool.map(own, range(len(clips))), "examples: clips", len(clips)),
            *data.progress.track(pool.map(mixes, range(len(clips))), "examples: mixes", len(clips)),
        ]
    return DistillationSet.joined(parts)


def music_examples(folders: Iterable[Path], data: Workspace, without: Large | None = None) -> DistillationSet | None:
    """The examples of all music in ``folders``, which needs no genre; None if there is none.

    Files that cannot be decoded are skipped, because such folders hold other files, too; so are those of fewer than
    8 segments. A part of the segments is played faster or slower.
    """
    listener = Listener()
    computation = f"music|{_SEGMENTS_A_FILE}|{_PLAYED_SEGMENTS}|{_PLAYED_SPEEDS}|{_FEWEST_SEGMENTS}"
    # A recording with two names counts once.
    files = list({content_id(file): file for folder in folders for file in audio_files(folder)}.values())

    def heard(file: Path) -> DistillationSet | None:
        try:
            found = _kept(data.cache, computation, [file], without, lambda: _music(file, listener))
        except TransientError:
            raise
        except TonestreamError:
            return None
        return _placed(found, -1, np.full(len(found["level"]), -1)) if len(found["level"]) else None

    with ThreadPoolExecutor(data.threads) as pool:
        parts = list(data.progress.track(pool.map(heard, files), "examples: other music", len(files)))
    usable = [part for part in parts if part is not None]
    return DistillationSet.joined(usable) if usable else None


def _variants(path: Path, listener: Listener) -> dict[str, npt.NDArray[Any]]:
    segments = read_segments(path, MFCC64)
    track = segments.ravel()
    parts = [segments, _segmented(track[MFCC64.segment_samples // 2 :])]
    for speed in _SPEEDS:
        played = soxr.resample(track, MFCC64.sample_rate, MFCC64.sample_rate / speed)
        parts.append(_segmented(np.asarray(played, np.float32)))
    found = listener.hear(np.concatenate(parts))
    return {**found, "original": np.arange(len(found["level"])) < len(segments)}


def _mixes(paths: Sequence[Path], seed: int, listener: Listener) -> dict[str, npt.NDArray[Any]]:
    """The first of ``paths`` with each of the others, at places and a difference in level drawn by ``seed``."""
    random = np.random.default_rng(seed)
    tracks = {path: read_segments(path, MFCC64).ravel() for path in paths}

    def excerpt(path: Path) -> Array:
        track = tracks[path]
        start = random.integers(len(track) - MFCC64.segment_samples + 1)
        return _at_level(track[start : start + MFCC64.segment_samples])

    level = 10.0 ** (random.uniform(-_MIX_LEVEL_DB, _MIX_LEVEL_DB, len(paths) - 1) / 20.0)
    mixed = [_at_level(excerpt(paths[0]) + gain * excerpt(path)) for gain, path in zip(level, paths[1:], strict=True)]
    found = listener.hear(np.stack(mixed).astype(np.float32))
    return {**found, "original": np.zeros(len(mixed), bool)}


def _music(file: Path, listener: Listener) -> dict[str, npt.NDArray[Any]]:
    segments = read_segments(file, MFCC64)
    sounding = segments[[not is_silent(segment) for segment in segments]] if len(segments) else segments
    if len(sounding) < _FEWEST_SEGMENTS:
        return {"level": np.empty(0, np.float32)}
    chosen = sounding[np.asarray(chosen_segments(len(sounding), _SEGMENTS_A_FILE), np.intp)]
    heard = np.concatenate([chosen, _played(segments.ravel())])
    return {**listener.hear(heard), "original": np.zeros(len(heard), bool)}


def _played(track: Array) -> Array:
    """Segments of ``track`` at other speeds, without silent ones."""
    random = np.random.default_rng(len(track))
    length, segments = MFCC64.segment_samples, []
    for speed in random.uniform(*_PLAYED_SPEEDS, _PLAYED_SEGMENTS):
        needed = min(len(track), round(length * speed) + MFCC64.sample_rate // 10)
        start = random.integers(len(track) - needed + 1)
        played = soxr.resample(track[start : start + needed], MFCC64.sample_rate, MFCC64.sample_rate / speed)
        segments.append(np.asarray(played[:length], np.float32))
    sounding = [segment for segment in segments if not is_silent(segment)]
    return np.array(sounding, np.float32).reshape(-1, length)


def _segmented(track: Array) -> Array:
    count = len(track) // MFCC64.segment_samples
    return track[: count * MFCC64.segment_samples].reshape(count, MFCC64.segment_samples)


def _at_level(samples: Array) -> Array:
    levelled: Array = _MIX_RMS * samples / max(1e-6, float(np.sqrt(np.mean(samples**2))))
    return levelled


def in_decibels(segments: Array) -> tuple[npt.NDArray[np.uint8], Array]:
    """The fields ``decibels`` and ``level`` of `DistillationSet` for ``segments`` [n, samples]."""
    spec = MFCC64
    decibels = np.empty((len(segments), spec.frames, spec.n_mels), np.uint8)
    level = np.empty(len(segments), np.float32)
    for position, segment in enumerate(segments):
        power = mel_power(segment, spec.sample_rate, spec.n_fft, spec.hop_length, spec.n_mels)
        values = 10.0 * np.log10(np.maximum(1e-10, power))
        level[position] = values.max()
        decibels[position] = np.clip(np.rint((values - level[position] + DECIBELS) * 255.0 / DECIBELS), 0, 255)
    return decibels, level


def _placed(heard: dict[str, npt.NDArray[Any]], first: int, second: npt.NDArray[np.intp]) -> DistillationSet:
    left_out = {
        name: np.empty((len(second), 0, 0), dtype)
        for name, dtype in (("decibels", np.uint8), ("activations", np.float16))
        if name not in heard
    }
    return DistillationSet(**heard, **left_out, first=np.full(len(second), first), second=second)


@remembered
def _code_hash() -> str:
    """Hash of the code that determines the examples, because results of another version are useless."""
    sources = [Path(inspect.getfile(module)) for module in (audio_level, mfcc, log_mel, wav, musicnn)]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _kept(
    cache: Path,
    computation: str,
    paths: Sequence[Path],
    without: Large | None,
    compute: Callable[[], dict[str, Any]],
) -> dict[str, npt.NDArray[Any]]:
    digest = hashlib.sha256(f"examples|{computation}|{_code_hash()}|".encode())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    stored = cache / "examples" / f"{digest.hexdigest()}.npz"
    if not stored.exists():
        computed = compute()
        stored.parent.mkdir(parents=True, exist_ok=True)
        # Written atomically, so that the next run after a crash continues here.
        with tempfile.NamedTemporaryFile(dir=stored.parent, suffix=".part", delete=False) as part:
            np.savez(part, **computed)
        Path(part.name).replace(stored)
    with np.load(stored) as loaded:
        return {name: loaded[name] for name in loaded.files if name != without}
