"""What a tag model hears in a track, from a few of its segments. Training and serving share this definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import scipy.special

from shared.audio.segment_features.extraction import segment_features
from shared.audio.segments import Stretch, is_silent
from shared.audio.wav import iter_segments
from shared.contracts.labels import CONTENTS

if TYPE_CHECKING:
    from shared.models.networks import HeardSegments, TagModel

#: How many evenly spaced segments are analysed. For clips of a minute (20 segments), 12 predict the mood of held-out
#: artists as well as all of them; 8 cost one percentage point of the clear answers, 4 cost three.
TAG_SEGMENTS: Final = 12
#: Segments per batch. Spectrograms pass wide convolutions: a batch of twelve takes 300 MB more and no less time.
_BATCHES: Final[Mapping[str, int]] = {"mfcc": TAG_SEGMENTS, "log_mel": 1}


@dataclass(frozen=True, slots=True)
class HeardSegment:
    """A segment with the probabilities of its tags, by name. ``samples`` [n] are at the level of the track."""

    start_s: float
    end_s: float
    samples: npt.NDArray[np.float32]
    tags: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class HeardTrack:
    """What is heard in a track, means over its ``segments``.

    ``tags`` are probabilities by name; ``embedding`` [200]. Not of every model: ``fit``, the probability that the track
    is of one of the ten genres, and ``content``, probabilities by name of CONTENTS. All are empty if the track is
    silent.
    """

    tags: Mapping[str, float] = field(default_factory=dict)
    embedding: npt.NDArray[np.float32] | None = None
    fit: float | None = None
    content: Mapping[str, float] | None = None
    segments: tuple[HeardSegment, ...] = ()


def hear_track(
    wav: BinaryIO,
    model: TagModel,
    limit: int = TAG_SEGMENTS,
    sounding: Sequence[Stretch] = (),
    track_level_dbfs: float | None = None,
) -> HeardTrack:
    """What ``model`` hears in at most ``limit`` segments of a decoded track (16-bit mono WAV).

    The segments come from the ``sounding`` parts and are scaled from the level of the track to the reference level, if
    these are known. Silent segments are left out. Time and memory do not grow with the track.
    Reads from the current position of ``wav``. Raises TonestreamError (corrupt_audio).
    """
    spec = model.manifest.require_feature_spec()
    heard: list[HeardSegments] = []
    parts: list[HeardSegment] = []
    for positions, segments in iter_segments(wav, spec, _BATCHES[spec.kind], limit, sounding=sounding):
        audible = [row for row, segment in enumerate(segments) if not is_silent(segment, track_level_dbfs)]
        if not audible:
            continue
        heard.append(model.predict(segment_features(segments[audible], spec, track_level_dbfs)))
        for row, tags in zip(audible, heard[-1].tags, strict=True):
            start_s = positions[row] * spec.segment_s
            named = dict(zip(model.labels, map(float, tags), strict=True))
            parts.append(HeardSegment(start_s, start_s + spec.segment_s, segments[row], named))
    if not heard:
        return HeardTrack()
    means = np.concatenate([part.tags for part in heard]).mean(axis=0)
    fits = [part.fit for part in heard if part.fit is not None]
    contents = [part.content for part in heard if part.content is not None]
    return HeardTrack(
        tags={label: float(p) for label, p in zip(model.labels, means, strict=True)},
        embedding=np.concatenate([part.embedding for part in heard]).mean(axis=0),
        fit=float(scipy.special.expit(np.concatenate(fits).mean())) if fits else None,
        content=_by_name(np.concatenate(contents).mean(axis=0)) if contents else None,
        segments=tuple(parts),
    )


def _by_name(probabilities: npt.NDArray[np.float32]) -> dict[str, float]:
    return {name: float(p) for name, p in zip(CONTENTS, probabilities, strict=True)}
