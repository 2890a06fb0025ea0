"""Many tracks in the browser: table, filters, selection, export, map."""

from __future__ import annotations

import csv
import io
import json
import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import MADE_UP
from tests.support.filled_library import HOSTILE_TITLE
from tests.support.page_visit import Visit
from tests.support.served import Served


def test_only_the_rows_in_view_exist_and_scrolling_brings_the_others(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", str(total(page) + 1))
    assert page.locator(".rows .row").count() < 60
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.locator(f".rows .row[data-place='{total(page) - 1}']")
    expect(last).to_be_visible()
    expect(last).not_to_have_class("row waiting")
    assert page.locator(".rows .row").count() < 60


def test_filters_narrow_the_table_and_stay_in_the_address(visit: Visit) -> None:
    page = visit.page
    everything = total(page)
    chip = page.get_by_role("button", name="Jazz")
    chip.click()
    expect(page.locator(".total")).to_contain_text("found")
    jazz = total(page)
    assert 0 < jazz < everything
    expect(page.locator(".rows .c-genre").filter(has_not_text="Jazz")).to_have_count(0)
    page.get_by_label("BPM from").fill("125")
    expect(page.locator(".total")).not_to_have_text(f"{jazz} tracks found")
    assert total(page) < jazz
    page.reload()
    expect(page.get_by_label("BPM from")).to_have_value("125")
    expect(chip).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".total")).not_to_contain_text("found")


def test_an_expression_filters_and_its_mistakes_are_explained(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("Expression", exact=True).click()
    field = page.get_by_label("Show tracks where")
    field.fill("mood == calm and energi < 0.4")
    expect(page.locator("#where-fault")).to_contain_text("energy")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("mood == calm and energy < 0.4")
    expect(page.locator("#where-fault")).to_be_empty()
    expect(page.locator(".total")).to_contain_text("found")
    expect(page.locator(".rows .c-mood").filter(has_not_text="Calm")).to_have_count(0)


def test_a_heading_sorts_and_sorts_back(visit: Visit, served: Served) -> None:
    page = visit.page
    heading = page.get_by_role("columnheader", name="BPM")
    for sort, direction in (("bpm", "ascending"), ("-bpm", "descending")):
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", direction)
        first = served.client.get("/v1/results", params={"sort": sort, "limit": 1}).json()["results"][0]
        expect(page.locator(".rows .row[data-place='0']")).to_have_attribute("data-id", first["id"])


def test_words_that_are_typed_stay_and_go_with_the_list(visit: Visit) -> None:
    page = visit.page
    words = page.get_by_label("Search titles, artists, files and tags")
    everything = total(page)
    visit.open("#/?q=velvet")
    expect(words).to_have_value("velvet")
    words.press("End")
    words.press_sequentially(" letters ", delay=120)
    expect(page).to_have_url(re.compile("q=velvet.letters$"))
    page.wait_for_timeout(500)  # whoever types has 250 ms for the next letter
    expect(words).to_have_value("velvet letters ")
    words.press_sequentially("now")
    expect(page).to_have_url(re.compile("q=velvet.letters.now$"))
    visit.open("#/")
    expect(words).to_be_focused()
    expect(words).to_have_value("")
    expect(page.locator(".total")).to_have_text(f"{everything} tracks")


def test_a_selection_is_exported(visit: Visit) -> None:
    page = visit.page
    page.locator(".rows .row[data-place='1'] .c-select").click()
    page.locator(".rows .row[data-place='4'] .c-select").click(modifiers=["Shift"])
    expect(page.locator(".selection-said")).to_have_text("4 tracks selected")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export the selection as CSV").click()
    assert waiting.value.suggested_filename == "tonestream.csv"
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text(encoding="utf-8-sig"))))
    shown = page.locator(".rows .row[aria-selected=true]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert sorted(row["id"] for row in rows) == sorted(shown)


def test_a_long_selection_is_exported_in_parts_with_one_head(visit: Visit) -> None:
    page = visit.page
    page.locator(".rows .row[data-place='0'] .c-select").click()
    page.get_by_role("button", name="Select all").click()
    expect(page.locator(".selection-said")).to_have_text(f"{total(page)} tracks selected")
    text = page.evaluate(
        """async () => {
            const { withoutHead } = await import("/static/js/exports.js");
            const files = [["csv", "a,b\\n1,2\\n"], ["m3u8", "#EXTM3U\\nx\\n"], ["jsonl", "{}\\n"]];
            return files.map(([format, text]) => withoutHead(format, text));
        }"""
    )
    assert text == ["1,2\n", "x\n", "{}\n"]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export the selection as JSONL").click()
    lines = waiting.value.path().read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["request_id"] for line in lines}) == total(page)


def test_a_line_around_points_of_the_map_selects_them(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Map").click()
    expect(page.locator(".map-head")).to_contain_text("with energy and valence")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 20)
    page.mouse.down()
    for right, down in ((0.95, 0.03), (0.95, 0.5), (0.05, 0.5), (0.05, 0.1)):
        page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"], steps=3)
    page.mouse.up()
    expect(page.locator(".selection-said")).to_contain_text("selected")
    picked = int(page.locator(".selection-said").inner_text().split()[0])
    assert 20 < picked < MADE_UP


def test_a_hostile_title_is_only_text(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Search titles, artists, files and tags").fill("script window hacked")
    link = page.locator(".rows .c-title a").first
    expect(link).to_have_text(HOSTILE_TITLE)
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE_TITLE)
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img").count() == 0


def test_new_results_come_into_the_table_by_themselves(visit: Visit, served: Served) -> None:
    page = visit.page
    before = total(page)
    answer = served.client.post("/v1/tracks", json={"audio_url": "http://127.0.0.1:9/news.mp3"})
    served.finished(answer.json())
    expect(page.locator(".rows .row[data-place='0'] .c-title")).to_have_text("news.mp3")
    assert total(page) > before


def test_tracks_are_removed_by_keyboard_and_from_their_page_after_a_question(visit: Visit, served: Served) -> None:
    page = visit.page
    for name in ("one", "two", "three"):
        answer = served.client.post("/v1/tracks", json={"audio_url": f"http://127.0.0.1:9/unwanted-{name}.mp3"})
        served.finished(answer.json())
    page.get_by_label("Search titles, artists, files and tags").fill("unwanted")
    expect(page.locator(".total")).to_have_text("3 tracks found")
    page.locator(".rows .row[data-place='0']").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Delete")
    expect(page.get_by_role("dialog")).to_contain_text("Remove 2 tracks from the library?")
    page.keyboard.press("Escape")
    expect(page.locator(".total")).to_have_text("3 tracks found")
    page.keyboard.press("Delete")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".total")).to_have_text("1 track found")
    expect(page.locator(".rows .row[data-place='0']")).to_be_focused()
    expect(page.locator(".selection")).to_be_hidden()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_contain_text("“unwanted-one.mp3”")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.locator("#library")).to_be_visible()
    expect(page.locator(".empty")).to_contain_text("No track is like that")
    assert served.client.get("/v1/results?q=unwanted").json()["total"] == 0


def total(page: Page) -> int:
    """How many tracks the page says there are."""
    expect(page.locator(".total")).to_contain_text("track")
    return int(page.locator(".total").inner_text().split()[0].replace(",", ""))
