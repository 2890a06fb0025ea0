"""The features a spec asks for. The one definition, of training and serving."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.audio.level import brought_to
from shared.audio.segment_features.log_mel import log_mel
from shared.audio.segment_features.mfcc import mfcc
from shared.audio.spec import FeatureSpec

Array = npt.NDArray[np.float32]


def segment_features(segments: Array, spec: FeatureSpec, track_level_dbfs: float | None = None) -> Array:
    """Features of ``segments``, float32 [n, samples] in [-1, 1] at ``spec.sample_rate``, as float32
    [n, frames, coefficients].

    Where ``spec`` names a level they are first brought to it from ``track_level_dbfs``, that of the track they are
    parts of (`shared.audio.level.track_level`), or left alone where that is not known. Those of a segment do not depend
    on the others. Raises ValueError for segments of another length than the spec's.
    """
    segments = brought_to(spec.level_dbfs, segments, track_level_dbfs)
    return log_mel(segments, spec) if spec.kind == "log_mel" else mfcc(segments, spec)
