"""The windows are those of scipy, bit for bit: models were trained with them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from shared.audio.windows import hann


@pytest.mark.parametrize("length", [2, 255, 512, 2048, 8192])
def test_the_hann_window_is_scipys(length: int) -> None:
    assert np.array_equal(hann(length), scipy.signal.get_window("hann", length).astype(np.float32))
