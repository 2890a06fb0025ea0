"""Windows for spectra. scipy.signal has them too, and takes longer to import than all the rest of a worker."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=8)
def hann(length: int) -> npt.NDArray[np.float32]:
    """The periodic Hann window of ``length`` > 1 samples, read-only; the same as of ``scipy.signal.get_window``.

    >>> hann(4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    window = (0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, length + 1)[:-1])).astype(np.float32)
    window.flags.writeable = False
    return window
