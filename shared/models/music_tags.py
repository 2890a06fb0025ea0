"""The tags of a track, from a few of its segments. Training and serving share this definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from shared.audio.segment_features.extraction import segment_features
from shared.audio.segments import Stretch, is_silent
from shared.audio.wav import iter_segments

if TYPE_CHECKING:
    from shared.models.networks import TagModel

#: How many evenly spaced segments are analysed. For clips of a minute (20 segments), 12 predict the mood of held-out
#: artists as well as all of them; 8 cost one percentage point of the clear answers, 4 cost three.
TAG_SEGMENTS: Final = 12
#: Segments per batch. A batch of twelve takes 300 MB more and no less time.
_BATCH: Final = 1


def music_tags(
    wav: BinaryIO,
    model: TagModel,
    limit: int = TAG_SEGMENTS,
    sounding: Sequence[Stretch] = (),
    track_level_dbfs: float | None = None,
) -> dict[str, float]:
    """Mean probability of each tag over at most ``limit`` segments of a decoded track (16-bit mono WAV), by name.

    The segments come from the ``sounding`` parts and are scaled from the level of the track to the reference level, if
    these are known. Silent segments are left out; empty if none remains. Time and memory do not grow with the track.
    Reads from the current position of ``wav``. Raises TonestreamError (corrupt_audio).
    """
    spec = model.manifest.require_feature_spec()
    heard = []
    for _, segments in iter_segments(wav, spec, _BATCH, limit, sounding=sounding):
        heard_here = np.array([not is_silent(segment, track_level_dbfs) for segment in segments])
        if heard_here.any():
            _, tags = model.predict(segment_features(segments[heard_here], spec, track_level_dbfs))
            heard.append(tags)
    if not heard:
        return {}
    means = np.concatenate(heard).mean(axis=0)
    return {label: float(p) for label, p in zip(model.labels, means, strict=True)}
