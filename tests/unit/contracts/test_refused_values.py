"""What is refused is not quoted: an error names the field and the fault, and a URL is shown without its password."""

from __future__ import annotations

import json
import traceback

import pytest

from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.topics import Channel
from shared.contracts.tracks import checked_audio_url, spotify_track_id, without_credentials


@pytest.mark.parametrize("channel", [Channel.REQUESTS, Channel.TRACKS, Channel.PREDICTIONS, Channel.MOODS])
def test_a_record_that_is_no_message_is_not_quoted_in_its_traceback(channel: Channel) -> None:
    for value in ({"request_id": "hush hush", "type": "hush", "audio_url": "hush", "error": "hush"}, ["hush"], "hush"):
        with pytest.raises(MalformedMessageError) as caught:
            decode_message(channel, json.dumps(value).encode())
        assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "https://me:audio/hush@host/a.mp3",
        "https://me:hush@ex\u2100mple.org/a.mp3",
        "https://me:hush@[no-address/a.mp3",
        "https://host:hush/a.mp3",
    ],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    for read in (checked_audio_url, spotify_track_id):
        with pytest.raises(ValueError) as caught:
            read(url)
        said = "".join(traceback.format_exception(caught.value))
        assert "hush" not in said.replace(url, "") and "audio" not in str(caught.value)


def test_a_url_of_another_site_for_a_track_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="a URL of another site") as caught:
        spotify_track_id("https://host/a.mp3?token=hush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://me:hush@host/a.mp3?x=1", "https://***@host/a.mp3?x=1"),
        ("https://me@host", "https://***@host"),
        ("https://me:hu/sh@host/a.mp3", "https://***@host/a.mp3"),
        ("https://host/@artist/a.mp3?sig=1", "https://host/@artist/a.mp3?sig=1"),
        ("/music/me@home.mp3", "/music/me@home.mp3"),
        ("blob:uploads/1", "blob:uploads/1"),
    ],
)
def test_a_source_is_shown_as_given_but_for_a_user_and_a_password(given: str, shown: str) -> None:
    assert without_credentials(given) == shown
