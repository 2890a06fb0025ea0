"""Segment features by their spec. Training and serving share this definition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.audio.level import brought_to
from shared.audio.segment_features.log_mel import log_mel
from shared.audio.segment_features.mfcc import mfcc
from shared.audio.spec import FeatureSpec

Array = npt.NDArray[np.float32]


def segment_features(segments: Array, spec: FeatureSpec, track_level_dbfs: float | None = None) -> Array:
    """Features of ``segments``, float32 [n, samples] in [-1, 1] at ``spec.sample_rate``, as float32 [n, frames,
    coefficients].

    If ``spec`` names a level, the segments are first scaled to it from ``track_level_dbfs``, the level of their track
    (`shared.audio.level.track_level`). They stay unchanged if that is None. The features of a segment do not depend on
    the other segments. Raises ValueError if the segments do not have the spec's length.
    """
    segments = brought_to(spec.level_dbfs, segments, track_level_dbfs)
    return log_mel(segments, spec) if spec.kind == "log_mel" else mfcc(segments, spec)
