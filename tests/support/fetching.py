"""A fetcher that may reach the test servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.ingestion.fetch import Fetcher, FetchLimits
from shared.contracts.errors import TonestreamError
from shared.http.addresses import AllowList
from shared.http.lookup import Resolve, resolve

OPEN = "127.0.0.0/8:*"


PATIENT = FetchLimits(max_bytes=100_000, total_s=10.0, connect_s=2.0, first_byte_s=5.0, max_redirects=3)


def fetcher(limits: FetchLimits = PATIENT, allow: str = OPEN, resolver: Resolve = resolve) -> Fetcher:
    return Fetcher(limits, AllowList.parse(allow), resolver)


def fault(url: str, file: Path, by: Fetcher | None = None) -> TonestreamError:
    """What is wrong with a download that fails; nothing is left of its file."""
    with pytest.raises(TonestreamError) as caught:
        (by or fetcher()).fetch(url, file)
    assert not file.exists()
    return caught.value
