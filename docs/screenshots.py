"""Make the pictures of docs/page.md again: ``python -m docs.screenshots`` (``make screenshots``).

It needs Chromium. A server of its own classifies the bundled samples, beside a library of made-up tracks.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.support.filled_library import fill, made_up
from tests.support.page_visit import Visit
from tests.support.samples import ROOT, SAMPLES
from tests.support.served import Served

IMAGES: Final = ROOT / "docs" / "images"
_MADE_UP: Final = 2000


def main() -> int:
    """Write the pictures; the exit status."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("docs.screenshots: no Chromium on this machine: install the package chromium", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        fill(Path(folder) / "library.sqlite", made_up(_MADE_UP))
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        with Served(Path(folder)) as served:
            tracks = {sample.stem: served.upload(sample) for sample in SAMPLES}
            for accepted in tracks.values():
                served.finished(accepted)
            address = str(served.client.base_url)
            with Visit(chromium, address, size={"width": 1280, "height": 1000}) as visit:
                visit.open_track(str(tracks["gravel-road"]["request_id"]))
                visit.page.wait_for_selector(".curves canvas")
                visit.page.locator(".segment").nth(3).focus()
                visit.page.keyboard.press("ArrowRight")
                visit.page.wait_for_selector(".segment.now")
                _keep(visit.page, "page-track.png")
            with Visit(chromium, address, "dark", {"width": 1280, "height": 760}) as visit:
                visit.page.wait_for_selector(".rows .row:not(.waiting)")
                _keep(visit.page, "page-library.png")
        chromium.close()
    return 0


def _keep(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
