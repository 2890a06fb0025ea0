"""A visit to the page in a browser."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Self

from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize

#: How long a classification, or anything else, may take on a busy machine, in ms.
PATIENCE_MS = 60_000
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


class Visit:
    """A context manager: a fresh browser profile at the page. ``faults`` are the errors that the browser reports."""

    def __init__(
        self, browser: Browser, address: str, scheme: Literal["light", "dark"] = "light", size: ViewportSize = DESK
    ) -> None:
        self.address = address.rstrip("/")
        self.faults: list[str] = []
        self._context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        self._context.set_default_timeout(PATIENCE_MS)

    def __enter__(self) -> Self:
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._heard)
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()

    def open(self, fragment: str = "#/") -> None:
        """Go to a place of the page, and wait until it is ready."""
        self.page.goto(f"{self.address}/{fragment}")
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def open_track(self, request_id: str) -> None:
        """Go to a track, and wait until its waveform can be played."""
        self.open(f"#/track/{request_id}")
        self.page.wait_for_selector(".play:not([disabled])")

    def choose(self, *files: str | dict[str, object]) -> None:
        """Choose files, as with the button."""
        self.page.locator("input[type=file]").first.set_input_files(list(files))  # type: ignore[arg-type]

    def wide(self) -> int:
        """How wide what is shown is, in CSS pixels."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth")
        return width

    def _heard(self, message: ConsoleMessage) -> None:
        # A request that is answered with an error is reported, too; the tests look at what the page makes of it.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)
