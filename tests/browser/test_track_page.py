"""One track in the browser: sent, heard, drawn, played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, expect

from tests.support.page_visit import Visit
from tests.support.samples import ROOT
from tests.support.served import Served
from tests.support.sounds import RATE, noise
from tests.support.wav_files import wav_bytes

SAMPLE = ROOT / "samples" / "bay.mp3"
NOT_AUDIO: dict[str, object] = {"name": "notes.mp3", "mimeType": "audio/mpeg", "buffer": b"these are only words\n" * 99}


def test_a_song_is_sent_and_its_page_opens_with_the_evidence(visit: Visit) -> None:
    visit.choose(str(SAMPLE))
    page = visit.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Bay")
    expect(page.locator(".segment")).to_have_count(8)
    expect(page.locator(".genre .answer-label")).to_have_text("Rock")
    expect(page.locator(".genre")).to_contain_text("Of 100 answers given with this confidence")
    expect(page.locator(".features li")).to_have_count(10)
    expect(page.locator(".mood .plane .plane-step")).to_have_count(8)
    expect(page.locator(".tag")).to_have_count(8)
    expect(page.locator(".key .figure").first).to_have_text("B minor")
    expect(page.locator(".about")).to_contain_text("musicnn-lstm")
    page.wait_for_selector(".play:not([disabled])")
    expect(page.locator(".curves canvas")).to_be_visible()
    heights = page.locator(".segment i").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
    assert len(set(heights)) > 3 and min(heights) > 5
    # The outline of the waveform has both ink and gaps.
    drawn = page.evaluate(
        """() => [...document.querySelector(".wave > div").shadowRoot.querySelectorAll(".canvases canvas")].map(
            (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
                .filter((value, place) => place % 4 === 3 && value > 0).length / (canvas.width * canvas.height))"""
    )
    assert drawn and all(0.05 < share < 0.95 for share in drawn)


def test_a_segment_is_heard_and_explained_when_it_is_chosen(visit: Visit, heard_track: str) -> None:
    visit.open_track(heard_track)
    page = visit.page
    page.locator(".segment").nth(2).click()
    audio = page.locator(".lanes audio")
    page.wait_for_selector(".play.playing", state="attached")
    first = audio.evaluate("audio => audio.currentTime")
    assert 5.9 <= first < 9.5
    # It plays to the end of the segment by itself, and stops there.
    page.wait_for_selector(".play:not(.playing)", state="attached")
    last = audio.evaluate("audio => audio.currentTime")
    assert first < last and 8.9 <= last < 10.0
    expect(page.locator(".moment")).to_contain_text("Rock")
    expect(page.locator(".moment")).to_contain_text("as the whole track, runner-up")
    expect(page.locator(".moment")).to_contain_text("energy")


def test_sound_that_goes_on_after_an_error_is_still_followed_and_sound_that_does_not_is_given_up(
    visit: Visit, heard_track: str
) -> None:
    """Firefox reports an error where there is no loudspeaker, and plays on."""
    visit.open_track(heard_track)
    page = visit.page
    audio = page.locator(".lanes audio")
    page.locator(".segment").nth(1).click()
    page.wait_for_selector(".play.playing", state="attached")
    audio.evaluate("audio => audio.dispatchEvent(new Event('error'))")
    page.wait_for_selector(".play:not(.playing)", state="attached")
    assert 5.9 <= audio.evaluate("audio => audio.currentTime") < 7.0
    page.locator(".segment").nth(2).click()
    page.wait_for_selector(".play.playing", state="attached")
    audio.evaluate(
        """audio => {
            Object.defineProperty(audio, "currentTime", { get: () => 6.5, set: () => {} });
            audio.dispatchEvent(new Event("error"));
        }"""
    )
    expect(page.locator(".play")).to_be_disabled()
    assert audio.evaluate("audio => audio.paused")


def test_a_track_without_sound_still_shows_why(visit: Visit) -> None:
    visit.open("#/track/made-up-1")
    page = visit.page
    expect(page.locator(".sound-note")).to_contain_text("The evidence stays")
    page.locator(".segment").nth(4).click()
    expect(page.locator(".segment").nth(4)).to_have_class("segment now")
    expect(page.locator(".moment")).to_contain_text("0:12–0:15")
    expect(page.locator(".play")).to_be_disabled()


def test_what_is_no_audio_says_so_and_can_be_sent_again(visit: Visit) -> None:
    page = visit.page
    visit.choose(NOT_AUDIO, {**NOT_AUDIO, "name": "more.mp3"})
    failed = page.locator(".under-way li[data-stage=failed]")
    expect(failed).to_have_count(2)
    expect(failed.first).to_contain_text("This file is not audio that can be read.")
    expect(failed.first).to_contain_text("Use MP3, FLAC")
    before = failed.first.locator("a.name").get_attribute("href")
    failed.first.get_by_role("button", name="Try again").click()
    expect(failed.first.locator("a.name")).not_to_have_attribute("href", str(before))
    expect(failed).to_have_count(2)
    failed.first.locator("a.name").click()
    expect(page.locator(".card.errors")).to_contain_text("unsupported_media (ingestion)")


def test_one_click_on_an_empty_page_leads_to_a_track_that_plays_and_gaps_are_told_apart(
    chromium: Browser, tmp_path: Path
) -> None:
    """The samples are heard whole. A long track has parts that were not heard, and this one is silent in between."""
    with Served(tmp_path) as served, Visit(chromium, str(served.client.base_url)) as visit:
        page = visit.page
        page.get_by_role("button", name="Try the samples").click()
        page.wait_for_selector(".play:not([disabled])")
        expect(page.get_by_role("heading", level=1)).to_have_text("Bay")
        expect(page.locator(".legend")).not_to_contain_text("not heard")
        sound = noise(0.1, 54.0)
        gap = np.zeros(18 * RATE, np.float32)
        pcm = (np.concatenate((sound, gap, sound)) * 32767).astype("<i2")
        (tmp_path / "gap.wav").write_bytes(wav_bytes(pcm, RATE))
        accepted = served.upload(tmp_path / "gap.wav")
        served.finished(accepted)
        visit.open_track(accepted["request_id"])
        expect(page.locator(".silence")).to_have_count(1)
        expect(page.locator(".legend")).to_contain_text("not heard: 20 segments stand for the track")
        expect(page.locator(".legend")).to_contain_text("silent: 0:54–1:12")
        page.locator(".wave").focus()
        for _ in range(20):
            page.keyboard.press("ArrowRight")
        expect(page.locator(".moment")).to_have_text("This part is silent.")
        assert visit.faults == []


def test_links_that_are_none_are_named_and_the_others_go_out(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Links, one a line").fill("#EXTM3U\nhttp://127.0.0.1:9/song.mp3\nC:\\music\\song.mp3")
    page.get_by_role("button", name="Listen").click()
    expect(page.locator(".note")).to_contain_text("1 line left out: “C:\\music\\song.mp3” is neither")
    expect(page.get_by_role("heading", level=1)).to_have_text("song.mp3")
    expect(page.locator(".card.errors")).to_contain_text("This address may not be fetched.")
