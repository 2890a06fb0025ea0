"""Features of audio files, computed by the code that serves: decode, segment, compute. Cached on disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import scipy.signal

import shared.audio
from shared.audio.decode import SAMPLE_RATE, DecodedAudio, DecodeLimits, decode, find_ffmpeg
from shared.audio.level import brought_to, track_level
from shared.audio.segment_features.extraction import segment_features
from shared.audio.spec import FeatureSpec
from shared.audio.track_features.measures import measure_wav
from shared.audio.wav import iter_segments, open_wav, read_samples
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.models.heard_track import TAG_SEGMENTS, hear_track
from training.data.clips import Clip
from training.data.variations import Variation, varied_file
from training.genre.protocol import NoProgress, Progress

if TYPE_CHECKING:
    from shared.models.networks import TagModel

Array = npt.NDArray[np.float32]

_BATCH: Final = 32
_SILENT: Final[Progress] = NoProgress()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A skipped file, and why."""

    file: Path
    reason: str


def clip_features(
    clips: Sequence[Clip],
    spec: FeatureSpec,
    cache: Path,
    threads: int,
    bandwidth_hz: int | None = None,
    progress: Progress = _SILENT,
    variation: Variation | None = None,
) -> list[Array]:
    """Features of each clip's whole segments, float32 [segments, frames, coefficients], in the order of ``clips``.

    With ``bandwidth_hz`` each segment is first limited to that bandwidth, like a recording sampled at twice that rate.
    With a ``variation`` the file is changed before it is decoded.
    Computed once per clip and spec, then read from ``cache``. Raises TonestreamError for a clip that cannot be decoded.
    """
    label = "features" if bandwidth_hz is None else f"features up to {bandwidth_hz / 1000:g} kHz"
    with ThreadPoolExecutor(threads) as pool:
        computed = pool.map(lambda clip: _clip_features(clip.path, spec, cache, bandwidth_hz, variation), clips)
        return list(progress.track(computed, label, len(clips)))


def usable_clips(
    clips: Sequence[Clip], spec: FeatureSpec, cache: Path, threads: int, progress: Progress = _SILENT
) -> tuple[list[Clip], list[Skipped]]:
    """The clips that decode to at least one segment, and the others. Stores the features in ``cache``."""

    def fault(clip: Clip) -> str | None:
        try:
            if len(_clip_features(clip.path, spec, cache, None)):
                return None
        except TransientError:
            raise
        except TonestreamError as error:
            return f"{error.code.value}: {error}"
        except OSError as error:
            return f"{ErrorCode.FETCH_FAILED.value}: the file cannot be read: {error.strerror or error}"
        return f"{ErrorCode.TOO_SHORT.value}: shorter than a segment of {spec.segment_s:g} s"

    with ThreadPoolExecutor(threads) as pool:
        faults = list(progress.track(pool.map(fault, clips), "features", len(clips)))
    pairs = list(zip(clips, faults, strict=True))
    return [clip for clip, why in pairs if why is None], [Skipped(clip.path, why) for clip, why in pairs if why]


def _clip_features(
    path: Path, spec: FeatureSpec, cache: Path, bandwidth_hz: int | None, variation: Variation | None = None
) -> Array:
    def compute(path: Path) -> Array:
        segments = _varied_segments(path, spec, variation)
        if bandwidth_hz is not None:
            segments = limit_bandwidth(segments, spec.sample_rate, bandwidth_hz)
        return segment_features(segments, spec)

    varied = f"|{variation}" if variation else ""
    return _cached(cache, f"features|{spec.model_dump_json()}|{bandwidth_hz}{varied}", path, compute)


def _varied_segments(path: Path, spec: FeatureSpec, variation: Variation | None) -> Array:
    if variation is None:
        return read_segments(path, spec)
    with tempfile.TemporaryDirectory() as folder:
        return read_segments(varied_file(path, variation, Path(folder)), spec)


def measured_features(
    paths: Sequence[Path], cache: Path, threads: int, tagger: TagModel, progress: Progress = _SILENT
) -> npt.NDArray[np.float64]:
    """The ten features measured from each file, [n, 10] in ``AUDIO_FEATURES`` order and units.

    The loudness is that at the reference level, as the mood network takes it. ``tagger`` provides the tags.
    Cached like the others. Raises TonestreamError for a file that cannot be decoded.
    """

    def compute(path: Path) -> Array:
        with _decoded(path) as decoded, decoded.path.open("rb") as opened:
            level_dbfs = track_level(decoded.levels_dbfs)
            tags = hear_track(opened, tagger, track_level_dbfs=level_dbfs).tags
            opened.seek(0)
            measured = measure_wav(opened, tags, track_level_dbfs=level_dbfs).levelled.as_dict()
        return np.array([measured[name] for name in AUDIO_FEATURES], np.float32)

    computation = f"measures|{tagger.manifest.model_id}|{TAG_SEGMENTS}"
    with ThreadPoolExecutor(threads) as pool:
        computed = pool.map(lambda path: _cached(cache, computation, path, compute), paths)
        rows = list(progress.track(computed, "measured features", len(paths)))
    return np.array(rows, np.float64).reshape(-1, len(AUDIO_FEATURES))


def read_segments(path: Path, spec: FeatureSpec) -> Array:
    """The whole segments of an audio file at the level of ``spec``, float32 [n, samples].

    All are in memory at once, which suits clips, not hours of audio.
    """
    with _decoded(path) as decoded, decoded.path.open("rb") as opened:
        batches = [samples for _, samples in iter_segments(opened, spec, _BATCH)]
    segments = np.concatenate([np.empty((0, spec.segment_samples), np.float32), *batches])
    return brought_to(spec.level_dbfs, segments, track_level(decoded.levels_dbfs))


def read_audio(path: Path, level_dbfs: float | None) -> Array:
    """All samples of an audio file at 22.05 kHz, float32 [n], at that level (as it is if None)."""
    with _decoded(path) as decoded, decoded.path.open("rb") as opened, open_wav(opened, SAMPLE_RATE) as wav:
        samples = read_samples(wav, wav.getnframes())
    levelled: Array = brought_to(level_dbfs, samples[None], track_level(decoded.levels_dbfs))[0]
    return levelled


@contextmanager
def _decoded(path: Path) -> Iterator[DecodedAudio]:
    with tempfile.TemporaryDirectory() as folder:
        yield decode(path, Path(folder) / "decoded.wav", DecodeLimits(), find_ffmpeg())


def _cached(cache: Path, computation: str, path: Path, compute: Callable[[Path], Array]) -> Array:
    key = hashlib.sha256(f"{computation}|{_code_hash()}|".encode() + path.read_bytes()).hexdigest()
    stored = cache / f"{key}.npy"
    if stored.exists():
        values: Array = np.load(stored)
        return values
    values = compute(path)
    cache.mkdir(parents=True, exist_ok=True)
    # Written atomically, because another thread with the same recording, or the next run after a crash, may read it.
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as part:
        np.save(part, values)
    Path(part.name).replace(stored)
    return values


@remembered
def _code_hash() -> str:
    """Hash of the code that computes the features, because results of another version are useless."""
    sources = sorted(Path(shared.audio.__path__[0]).rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def limit_bandwidth(segments: Array, sample_rate: int, bandwidth_hz: int) -> Array:
    """``segments`` [n, samples] resampled to twice ``bandwidth_hz`` and back, which removes everything above it."""
    down = scipy.signal.resample_poly(segments, 2 * bandwidth_hz, sample_rate, axis=1)
    back = scipy.signal.resample_poly(down, sample_rate, 2 * bandwidth_hz, axis=1)
    return np.ascontiguousarray(back[:, : segments.shape[1]], dtype=np.float32)
