"""What the tests of the command line share."""

from __future__ import annotations

import pytest

from tests.support.quick_run import QuickRun


@pytest.fixture
def tonestream(monkeypatch: pytest.MonkeyPatch) -> QuickRun:
    """The command line with a pipeline that answers at once."""
    return QuickRun(monkeypatch)
