"""Audio files to features, through the very code that serves: decode, segment, MFCC, measure. Cached on disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache as remembered
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.signal

import shared.audio
from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.audio.measures import measure_wav
from shared.audio.mfcc import mfcc
from shared.audio.spec import FeatureSpec
from shared.audio.wav import iter_segments
from shared.contracts.features import AUDIO_FEATURES
from training.data import Clip

Array = npt.NDArray[np.float32]

_BATCH: Final = 32


def clip_features(
    clips: Sequence[Clip], spec: FeatureSpec, cache: Path, threads: int, bandwidth_hz: int | None = None
) -> list[Array]:
    """Features of each clip's whole segments, float32 [segments, frames, n_mfcc], in the order of ``clips``.

    With ``bandwidth_hz`` each segment first loses everything above that frequency, as a recording sampled at twice
    that rate has. Computed once per clip and spec, then read from ``cache``. Raises TonestreamError for a clip that
    cannot be decoded.
    """

    def compute(path: Path) -> Array:
        segments = read_segments(path, spec)
        if bandwidth_hz is not None:
            segments = limit_bandwidth(segments, spec.sample_rate, bandwidth_hz)
        return mfcc(segments, spec)

    recipe = f"mfcc|{spec.model_dump_json()}|{bandwidth_hz}"
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda clip: _cached(cache, recipe, clip.path, compute), clips))


def measured_features(paths: Sequence[Path], cache: Path, threads: int) -> npt.NDArray[np.float64]:
    """The ten features measured from each file, [n, 10] in ``AUDIO_FEATURES`` order. Cached like the others."""

    def compute(path: Path) -> Array:
        with _decoded(path) as wav:
            measured = measure_wav(wav).as_dict()
        return np.array([measured[name] for name in AUDIO_FEATURES], np.float32)

    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(lambda path: _cached(cache, "measures", path, compute), paths))
    return np.array(rows, np.float64)


def read_segments(path: Path, spec: FeatureSpec) -> Array:
    """The whole segments of an audio file, float32 [n, samples]. All at once: for clips, not for hours."""
    with _decoded(path) as wav, wav.open("rb") as opened:
        batches = [samples for _, samples in iter_segments(opened, spec, _BATCH)]
    return np.concatenate([np.empty((0, spec.segment_samples), np.float32), *batches])


@contextmanager
def _decoded(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "decoded.wav"
        decode(path, wav, DecodeLimits(), find_ffmpeg())
        yield wav


def _cached(cache: Path, recipe: str, path: Path, compute: Callable[[Path], Array]) -> Array:
    key = hashlib.sha256(f"{recipe}|{_code_hash()}|".encode() + path.read_bytes()).hexdigest()
    stored = cache / f"{key}.npy"
    if stored.exists():
        values: Array = np.load(stored)
        return values
    values = compute(path)
    cache.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: another thread with the same recording, or the next run after a crash, may look at any time.
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as part:
        np.save(part, values)
    Path(part.name).replace(stored)
    return values


@remembered
def _code_hash() -> str:
    """Hash of the code that makes the features: what another version of it computed is of no use."""
    sources = sorted(Path(shared.audio.__path__[0]).glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def limit_bandwidth(segments: Array, sample_rate: int, bandwidth_hz: int) -> Array:
    """``segments`` [n, samples] resampled to twice ``bandwidth_hz`` and back: nothing is left above it."""
    down = scipy.signal.resample_poly(segments, 2 * bandwidth_hz, sample_rate, axis=1)
    back = scipy.signal.resample_poly(down, sample_rate, 2 * bandwidth_hz, axis=1)
    return np.ascontiguousarray(back[:, : segments.shape[1]], dtype=np.float32)
