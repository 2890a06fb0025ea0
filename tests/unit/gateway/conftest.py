"""The gateway over the bus in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_bench import GatewayBench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBench]:
    """A running gateway for tests that leave it as it was."""
    with GatewayBench(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[GatewayBench]:
    """A running gateway."""
    with GatewayBench(tmp_path) as running:
        yield running
