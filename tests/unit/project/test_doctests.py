"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import asyncio
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.samples import SAMPLE, SAMPLES
from tests.support.served import Served
from tonestream import AsyncClient, Client

ROOT = Path(__file__).resolve().parents[3]
WITH_EXAMPLES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("shared", "services", "training", "tonestream")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


#: Modules whose examples need a gateway: what stands in their namespace is in ``served``.
SERVED = ("tonestream.client.blocking", "tonestream.client.asynchronous")


@pytest.mark.parametrize("module", [name for name in WITH_EXAMPLES if name not in SERVED])
def test_the_examples_of_a_module_give_what_they_say(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0 and result.failed == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """A gateway, songs, and what the examples import."""
    folder = tmp_path_factory.mktemp("gateway")
    with Served(folder, genre_model="mfcc-lstm") as gateway, Client(gateway.address) as client:
        yield {
            "address": gateway.address,
            "client": client,
            "song": SAMPLE,
            "songs": SAMPLES[:2],
            "asyncio": asyncio,
            "Client": Client,
            "AsyncClient": AsyncClient,
        }


@pytest.mark.parametrize("module", SERVED)
def test_the_examples_of_the_client_run_against_a_gateway(module: str, served: dict[str, object]) -> None:
    result = doctest.testmod(importlib.import_module(module), extraglobs=served)
    assert result.attempted > 0 and result.failed == 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 5
