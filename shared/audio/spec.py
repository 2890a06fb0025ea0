"""What a genre model listens to: the feature spec. It stands in the model's manifest and on every feature message."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FeatureSpec(BaseModel):
    """MFCCs of segments of equal length.

    ``sample_rate`` in Hz; ``segment_s`` in seconds; ``n_fft`` and ``hop_length`` in samples; ``n_mels`` mel bands
    (Slaney's scale and normalisation, 0 Hz to half the sample rate); ``n_mfcc`` cepstral coefficients kept. The
    defaults of the other steps are librosa's: Hann window, frames centred with zero padding, power spectrum, decibels
    clipped 80 below the segment's loudest value, orthonormal DCT-II.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sample_rate: int = Field(22050, gt=0)
    segment_s: float = Field(3.0, gt=0)
    n_mfcc: int = Field(13, gt=0)
    n_fft: int = Field(2048, gt=0)
    hop_length: int = Field(512, gt=0)
    n_mels: int = Field(128, gt=0)

    @property
    def segment_samples(self) -> int:
        """Samples of one segment."""
        return round(self.segment_s * self.sample_rate)

    @property
    def frames(self) -> int:
        """Frames of one segment: one every ``hop_length`` samples, the first centred on the first sample."""
        return 1 + self.segment_samples // self.hop_length


#: The spec of the first genre model: 130 frames of 13 coefficients from 3 s at 22.05 kHz.
MFCC13 = FeatureSpec(id="mfcc13-22050hz-3s-v1")
