"""The feature spec: the input of a genre model. It is part of the model's manifest and of every feature message."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from shared.audio.level import REFERENCE_DBFS

#: Fields without meaning for a kind of spec. They are not serialised, because the model ID is a hash of the serialised
#: spec.
_FOREIGN: Final = {"mfcc": frozenset({"kind", "analysis_rate"}), "log_mel": frozenset({"n_mfcc"})}
#: Not serialised if None, so that models with older specs keep their IDs.
_LEVEL: Final = frozenset({"level_dbfs"})


class FeatureSpec(BaseModel):
    """Features of segments of equal length: one matrix [frames, coefficients] per segment.

    ``sample_rate`` of the decoded track in Hz; ``segment_s`` in seconds; ``n_fft`` and ``hop_length`` in samples;
    ``n_mels`` mel bands (Slaney's scale and normalisation, 0 Hz to half the rate). As by default in librosa, frames are
    centred with zero padding, the window is Hann's, and spectra are power.

    ``level_dbfs``: the level to which the whole track is scaled first, in dB relative to full scale
    (`shared.audio.level.track_level`), so that the features do not depend on the volume. None: no scaling.

    ``mfcc``: decibels clipped 80 below the segment's loudest value, orthonormal DCT-II, ``n_mfcc`` coefficients kept.
    ``log_mel``: each segment is resampled to ``analysis_rate`` (Hz) first; log10(1 + 10000 * power) of each mel band.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: Literal["mfcc", "log_mel"] = "mfcc"
    sample_rate: int = Field(22050, gt=0)
    analysis_rate: int | None = Field(None, gt=0)
    segment_s: float = Field(3.0, gt=0)
    n_mfcc: int = Field(13, gt=0)
    n_fft: int = Field(2048, gt=0)
    hop_length: int = Field(512, gt=0)
    n_mels: int = Field(128, gt=0)
    level_dbfs: float | None = Field(None, le=0)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "mfcc":
            if self.analysis_rate is not None:
                raise ValueError("MFCCs are computed at the sample rate: they have no analysis_rate")
            if self.n_mfcc > self.n_mels:
                raise ValueError(f"{self.n_mels} mel bands give no {self.n_mfcc} MFCCs")
        else:
            if self.analysis_rate is None or self.analysis_rate > self.sample_rate:
                raise ValueError(f"log_mel takes an analysis_rate of at most {self.sample_rate} Hz")
            if "n_mfcc" in self.model_fields_set:
                raise ValueError("log_mel has no n_mfcc")
        return self

    @model_serializer(mode="wrap")
    def _without_foreign_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        foreign = _FOREIGN[self.kind] | (_LEVEL if self.level_dbfs is None else frozenset())
        return {name: value for name, value in dump(self).items() if name not in foreign}

    @property
    def segment_samples(self) -> int:
        """Samples per segment of the decoded track."""
        return round(self.segment_s * self.sample_rate)

    @property
    def analysed_samples(self) -> int:
        """Samples per segment at the rate of the analysis."""
        if self.analysis_rate is None:
            return self.segment_samples
        return -(-self.segment_samples * self.analysis_rate // self.sample_rate)

    @property
    def frames(self) -> int:
        """Frames per segment: one every ``hop_length`` samples, the first centred on the first sample."""
        return 1 + self.analysed_samples // self.hop_length

    @property
    def coefficients(self) -> int:
        """Coefficients per frame."""
        return self.n_mfcc if self.kind == "mfcc" else self.n_mels


#: 130 frames of 13 coefficients from 3 s at 22.05 kHz.
MFCC13 = FeatureSpec(id="mfcc13-22050hz-3s-v2", level_dbfs=REFERENCE_DBFS)
#: 130 frames of 40 coefficients.
MFCC40 = FeatureSpec(id="mfcc40-22050hz-3s-v2", n_mfcc=40, level_dbfs=REFERENCE_DBFS)
#: 130 frames of 64 coefficients: enough to reconstruct a spectrogram of 64 bands.
MFCC64 = FeatureSpec(id="mfcc64-22050hz-3s-v2", n_mfcc=64, level_dbfs=REFERENCE_DBFS)
#: 188 frames of 96 bands, 0 to 8 kHz, from 3 s.
LOG_MEL96 = FeatureSpec(
    id="logmel96-16000hz-3s-v2",
    kind="log_mel",
    analysis_rate=16000,
    n_fft=512,
    hop_length=256,
    n_mels=96,
    level_dbfs=REFERENCE_DBFS,
)
