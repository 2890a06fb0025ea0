"""librosa's mel filter banks.

The banks of the packaged models are stored beside this module, so that serving does not install librosa, numba and
scikit-learn (260 MB). Other banks are computed by librosa. ``python -m shared.audio.segment_features.mel_filters``
regenerates the file. A test compares it with librosa.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

FILE: Final = Path(__file__).with_name("mel_filters.npz")


class FilterBank(NamedTuple):
    """``n_mels`` bands on Slaney's scale, area-normalised, from 0 Hz to half the ``sample_rate`` (Hz)."""

    sample_rate: int
    n_fft: int
    n_mels: int


#: Bands that are computed together by `BandedProduct`.
_BANDS_A_BLOCK: Final = 32

#: The banks of the MFCCs, of the track features, and of musicnn's spectrogram.
PACKAGED: Final = (FilterBank(22050, 2048, 128), FilterBank(22050, 2048, 64), FilterBank(16000, 512, 96))


@lru_cache(maxsize=8)
def mel_basis(sample_rate: int, n_fft: int, n_mels: int) -> Array:
    """``librosa.filters.mel(sr=..., n_fft=..., n_mels=...)`` transposed, float32 [1 + n_fft // 2, n_mels].

    Raises ImportError for a bank that is not packaged if librosa is not installed.
    """
    bank = FilterBank(sample_rate, n_fft, n_mels)
    basis = _packaged(bank) if bank in PACKAGED else computed(bank)
    basis.flags.writeable = False
    return basis


class BandedProduct:
    """The product of power spectra with a filter bank. A band covers few frequencies, so most of the bank is zeros:
    blocks of neighbouring bands skip them, in a third of the time."""

    def __init__(self, basis: Array) -> None:
        """``basis`` [frequencies, bands], bands in the order of their frequencies."""
        self._blocks: list[tuple[slice, Array]] = []
        for start in range(0, basis.shape[1], _BANDS_A_BLOCK):
            block = basis[:, start : start + _BANDS_A_BLOCK]
            covered = np.flatnonzero(block.any(axis=1))
            span = slice(int(covered[0]), int(covered[-1]) + 1) if covered.size else slice(0, 1)
            self._blocks.append((span, np.ascontiguousarray(block[span])))

    def __call__(self, power: Array) -> Array:
        """``power`` [frames, frequencies] to [frames, bands]."""
        return np.concatenate([power[:, span] @ block for span, block in self._blocks], axis=1)


@lru_cache(maxsize=8)
def mel_product(sample_rate: int, n_fft: int, n_mels: int) -> BandedProduct:
    """The product with `mel_basis`."""
    return BandedProduct(mel_basis(sample_rate, n_fft, n_mels))


def computed(bank: FilterBank) -> Array:
    """The bank as librosa computes it. Raises ImportError."""
    try:
        from shared.audio.segment_features.librosa_filters import librosa_filters

        filters = librosa_filters()
    except ModuleNotFoundError as error:
        raise ImportError(
            f"a model listens through {bank.n_mels} mel bands of {bank.n_fft} samples at {bank.sample_rate} Hz, for"
            f" which librosa is needed: pip install librosa ({error})"
        ) from error
    basis: Array = np.ascontiguousarray(filters.mel(sr=bank.sample_rate, n_fft=bank.n_fft, n_mels=bank.n_mels).T)
    return basis


def _packaged(bank: FilterBank) -> Array:
    with np.load(FILE) as banks:
        basis: Array = np.ascontiguousarray(banks[_name(bank)])
    return basis


def _name(bank: FilterBank) -> str:
    return f"{bank.sample_rate}-{bank.n_fft}-{bank.n_mels}"


def main() -> None:
    """Write the file."""
    banks: Any = {_name(bank): computed(bank) for bank in PACKAGED}
    np.savez_compressed(FILE, **banks)
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
