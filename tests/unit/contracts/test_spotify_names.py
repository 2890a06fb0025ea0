"""Every way in which people name a track of Spotify: it is understood, or the answer says what helps."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.cli.inputs import expand
from services.cli.scan import LeftOut
from shared.contracts.faults import faults
from shared.contracts.messages import TrackRequest
from shared.contracts.tracks import looks_like_spotify, spotify_track_id

ID = "4uLU6hMCjMI75M1A2tKUQC"
SINGLE = "only single tracks can be classified"
SHORT_LINK = (
    "a short link of Spotify does not name its track; open it in a browser and give the address that it leads to"
    " (https://open.spotify.com/track/...)"
)
LOCAL = (
    "it names a local file, which only the computer of whoever added it to Spotify has; give the file itself, or an"
    " audio_url"
)


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f"  {ID}\n",
        f"spotify:track:{ID}",
        f"SPOTIFY:track:{ID}",
        f"Spotify:Track:{ID}",
        f"spotify:track:{ID}?si=0123456789abcdef",
        f"spotify:track:{ID}#1:30",
        f"spotify://track/{ID}",
        f"https://open.spotify.com/track/{ID}",
        f"http://open.spotify.com/track/{ID}/",
        f"HTTPS://OPEN.SPOTIFY.COM/track/{ID}?si=x&utm_source=copy-link",
        f"https://open.spotify.com:443/track/{ID}#0:30",
        f"https://open.spotify.com./track/{ID}",
        f"https://open.spotify.com//track//{ID}",
        f"open.spotify.com/track/{ID}",
        f"open.spotify.com/intl-de/track/{ID}?si=0123456789abcdef",
        f"//open.spotify.com/track/{ID}",
        f"https://open.spotify.com/intl-pt-br/track/{ID}",
        f"https://open.spotify.com/embed/track/{ID}?theme=0",
        f"https://open.spotify.com/intl-fr/embed/track/{ID}",
        f"https://play.spotify.com/track/{ID}",
        f"https://embed.spotify.com/?uri=spotify:track:{ID}",
        f"https://open.spotify.com/embed?uri=spotify%3Atrack%3A{ID}",
    ],
)
def test_a_track_of_spotify_is_understood_however_its_name_was_copied(text: str) -> None:
    assert spotify_track_id(text) == ID
    assert TrackRequest(request_id="r", track_id=text).track_key == f"spotify:{ID}"
    assert looks_like_spotify(text)


#: What was given as a track, and what its sender reads.
REFUSED = [
    (ID[:21], "a Spotify ID has 22 letters and digits; this one has 21"),
    (ID + "x", "a Spotify ID has 22 letters and digits; this one has 23"),
    (f"spotify:track:{ID[:21]}", "a Spotify ID has 22 letters and digits; this one has 21"),
    (f"open.spotify.com/track/{ID}x?si=1", "a Spotify ID has 22 letters and digits; this one has 23"),
    (f"https://open.spotify.com/intl-de/album/{ID}", f"it names a Spotify album; {SINGLE}"),
    (f"open.spotify.com/playlist/{ID}", f"it names a Spotify playlist; {SINGLE}"),
    (f"SPOTIFY:ALBUM:{ID}", f"it names a Spotify album; {SINGLE}"),
    (f"spotify:user:somebody:playlist:{ID}", f"it names a Spotify playlist; {SINGLE}"),
    (f"https://open.spotify.com/user/somebody/playlist/{ID}", f"it names a Spotify playlist; {SINGLE}"),
    ("https://open.spotify.com/user/some.body", f"it names a Spotify user; {SINGLE}"),
    (f"https://open.spotify.com/embed-podcast/episode/{ID}", f"it names a Spotify episode; {SINGLE}"),
    (f"spotify:show:{ID}", f"it names a Spotify show; {SINGLE}"),
    (f"https://embed.spotify.com/?uri=spotify:album:{ID}", f"it names a Spotify album; {SINGLE}"),
    ("spotify:local:Some+Artist:Some+Album:Song%20One:215", LOCAL),
    ("Spotify:Local::::1", LOCAL),
    ("spotify.link/AbCdEfGhIjK", SHORT_LINK),
    ("https://spotify.link/AbCdEfGhIjK?x=1", SHORT_LINK),
    ("https://spotify.app.link/AbCdEfGhIjK", SHORT_LINK),
    ("spoti.fi/3AbCdEf", SHORT_LINK),
    ("spotify:", "the Spotify URI names no track: 'spotify:'"),
    ("spotify:track:", "the Spotify URI names no track: 'spotify:track:'"),
    ("open.spotify.com", "the Spotify URL names no track: ''"),
    (f"https://open.spotify.com/track/{ID}/lyrics", f"the Spotify URL names no track: '/track/{ID}/lyrics'"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_names_no_track_of_spotify_is_refused_with_the_sentence_that_helps(text: str, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TrackRequest(request_id="r", track_id=text)
    assert faults(refused.value) == f"track_id: {reason}"
    # So the command line, too, takes it for what it is, and not for a file that is missing.
    (given,) = expand([text], LeftOut())
    assert given.kind == "spotify"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"https://open.spotify.com/track/{ID}", "it names a Spotify track and leads to no audio file; give it as"),
        (f"open.spotify.com/track/{ID}", "it names a Spotify track and leads to no audio file; give it as track_id"),
        (f"spotify:track:{ID}", "it names a Spotify track and leads to no audio file; give it as track_id"),
        (f"https://open.spotify.com/album/{ID}", f"it names a Spotify album; {SINGLE}"),
        ("https://spotify.link/AbCdEfGhIjK", SHORT_LINK),
        ("spotify:local:a:b:c:1", LOCAL),
    ],
)
def test_a_spotify_address_that_stands_where_audio_should_says_where_it_belongs(text: str, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TrackRequest(request_id="r", audio_url=text)
    assert faults(refused.value).startswith(f"audio_url: {reason}")


@pytest.mark.parametrize(
    "text",
    [
        "song.mp3", "open.spotify.community/track/x", "https://open.spotify.com.evil.example/a.mp3", "myspotify.link/a",
        "https://example.org/open.spotify.com/track/x", "averylongnamewithoutanyorder", "0123456789012345678901234",
        "https://me:pw@open.spotify.com/track/x", "openXspotify.com/track/x", "spotify", "ABCDEFGHIJKLMNOPQRSTU",
    ],
)  # fmt: skip
def test_other_names_are_not_taken_for_spotify(text: str) -> None:
    assert not looks_like_spotify(text)


def test_an_address_within_an_address_within_an_address_is_no_defect() -> None:
    nested = "open.spotify.com/?uri=" * 300
    for text in (nested, "spotify:" * 1000, "spotify:user:a:" * 500):
        with pytest.raises(ValueError, match="names"):
            spotify_track_id(text)
