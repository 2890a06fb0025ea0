"""The gateway over the bus in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_bench import GatewayBench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[GatewayBench]:
    """A running gateway."""
    with GatewayBench(tmp_path) as running:
        yield running
