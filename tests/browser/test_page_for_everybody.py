"""The page by keyboard alone, for those who do not see it, on a phone, and on a slow line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Request, expect

from tests.support.filled_library import fill, made_up
from tests.support.page_visit import PHONE, Visit
from tests.support.served import Served

#: Everything that is loaded before anything is done, in bytes without compression.
FIRST_VIEW_BYTES = 300_000
#: On an idle machine it takes a quarter of this.
INTERACTIVE_MS = 1000


def test_everything_can_be_done_with_the_keyboard_alone(visit: Visit, heard_track: str) -> None:
    page = visit.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.rows .row')"):
            break
    expect(page.locator(".rows .row[data-place='0']")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowDown")
    expect(page.locator(".selection-said")).to_have_text("2 tracks selected")
    page.keyboard.press("End")
    expect(page.locator(".rows .row:focus")).to_have_attribute("aria-rowindex", str(rows(visit) + 1))
    page.keyboard.press("Escape")
    expect(page.locator(".selection")).to_be_hidden()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#track h1")).to_be_visible()
    visit.open_track(heard_track)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".wave")).to_have_attribute("aria-valuenow", "3")
    page.keyboard.press("Space")
    page.wait_for_selector(".play.playing", state="attached")
    page.keyboard.press("Space")
    page.wait_for_selector(".play:not(.playing)", state="attached")
    page.locator(".segment").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".segment").nth(2)).to_be_focused()
    expect(page.locator(".moment")).to_contain_text("0:06–0:09")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    expect(page.locator("#library")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    chromium: Browser, served: Served, heard_track: str, scheme: Literal["light", "dark"]
) -> None:
    with Visit(chromium, str(served.client.base_url), scheme) as visit:
        page = visit.page
        expect(page.locator(".rows .row").first).to_be_visible()
        page.locator(".rows .row[data-place='1'] .c-select").click()
        assert findings(visit) == []
        visit.open_track(heard_track)
        assert findings(visit) == []


def findings(visit: Visit) -> list[str]:
    """What axe-core says of the page as it is."""
    found = Axe().run(visit.page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def test_nothing_is_wider_than_a_phone(chromium: Browser, served: Served, heard_track: str) -> None:
    with Visit(chromium, str(served.client.base_url), size=PHONE) as visit:
        expect(visit.page.locator(".rows .row").first).to_be_visible()
        assert visit.wide() == PHONE["width"]
        visit.page.get_by_role("button", name="Map").click()
        expect(visit.page.locator(".map-head")).to_contain_text("with energy")
        assert visit.wide() == PHONE["width"]
        assert findings(visit) == []
        visit.open_track(heard_track)
        assert visit.wide() == PHONE["width"]
        assert findings(visit) == []
        visit.open("#/track/nobody")
        expect(visit.page.locator("#track .trouble")).to_contain_text("There is no such track here.")
        assert visit.wide() == PHONE["width"]


def test_the_first_view_is_small_and_quick_and_comes_from_one_server(visit: Visit) -> None:
    page = visit.page
    sent: list[Request] = []
    readiness: list[float] = []
    page.on("requestfinished", lambda request: sent.append(request))
    for _ in range(3):
        sent.clear()
        page.reload()
        page.wait_for_selector("html[data-ready]", state="attached")
        expect(page.locator(".rows .row").first).to_be_visible()
        readiness.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime"))
    assert min(readiness) < INTERACTIVE_MS
    assert {request.url.startswith(visit.address) for request in sent} == {True}
    # Files that the browser has are answered without a body, so they are asked for once more from here.
    sizes = [len(httpx.get(request.url).content) for request in sent if "/v1/events" not in request.url]
    assert len(sizes) > 20 and sum(sizes) < FIRST_VIEW_BYTES


def test_the_theme_can_be_chosen_and_is_remembered(visit: Visit) -> None:
    page = visit.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    switch = page.get_by_role("button", name="Theme")
    switch.click()
    switch.click()
    expect(switch).to_have_attribute("title", "Theme: dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


def rows(visit: Visit) -> int:
    """How many rows the table has."""
    return int(visit.page.get_by_role("grid").get_attribute("aria-rowcount") or 0) - 1


def test_a_server_with_keys_asks_for_one_and_then_works(chromium: Browser, tmp_path: Path) -> None:
    environment = {**os.environ, "TONESTREAM_GATEWAY_API_KEYS": "open-sesame-open-sesame-open-sesame"}
    fill(tmp_path / "library.sqlite", made_up(3))
    with Served(tmp_path, environment=environment) as served, chromium.new_context() as context:
        page = context.new_page()
        page.goto(str(served.client.base_url))
        dialogue = page.get_by_role("dialog")
        dialogue.get_by_label("API key").fill("wrong")
        dialogue.get_by_role("button", name="Sign in").click()
        expect(dialogue).to_contain_text("The server does not know this key.")
        dialogue.get_by_label("API key").fill("open-sesame-open-sesame-open-sesame")
        dialogue.get_by_role("button", name="Sign in").click()
        expect(page.locator(".rows .row")).to_have_count(3)
        expect(page.locator("#connection")).to_have_text("live")
        page.reload()
        expect(page.locator(".rows .row")).to_have_count(3)
