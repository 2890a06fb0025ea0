"""A real Chromium in front of a real ``tonestream serve``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.filled_library import fill, made_up
from tests.support.page_visit import Visit
from tests.support.served import Served

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: More rows than two windows show, and than the first page of results has.
MADE_UP = 240


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser, for these tests only: Playwright runs an event loop, in which no other can begin.

    Without a browser the tests are skipped, or fail where ``CI`` is set.
    """
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = "no Chromium on this machine: install the package chromium"
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (and CI is set: these tests must run)", pytrace=False)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def served(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, with a library of made-up tracks."""
    folder = tmp_path_factory.mktemp("page")
    fill(folder / "library.sqlite", made_up(MADE_UP))
    with Served(folder) as server:
        yield server


@pytest.fixture
def visit(chromium: Browser, served: Served) -> Iterator[Visit]:
    """The page as somebody opens it for the first time. The test fails if the page reports an error."""
    with Visit(chromium, str(served.client.base_url)) as visit:
        yield visit
    assert visit.faults == []


@pytest.fixture(scope="package")
def heard_track(served: Served) -> str:
    """The request ID of a sample that was classified."""
    sample = Path(__file__).resolve().parents[2] / "samples" / "bay.mp3"
    accepted = served.upload(sample)
    served.finished(accepted)
    request_id: str = accepted["request_id"]
    return request_id
