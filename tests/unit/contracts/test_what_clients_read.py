"""Every reason for which a request is refused, word for word, to be read in a sitting by somebody who knows no code.

A client finds these in the ``errors`` of the result, under the code ``invalid_request``.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from pydantic import ValidationError

from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.faults import faults
from shared.contracts.topics import Channel
from shared.settings import Settings

URL: Final = "https://example.org/a.mp3"
TRACK: Final = "4uLU6hMCjMI75M1A2tKUQC"
WHOLE: Final = f'{{"request_id":"my-1","audio_url":"{URL}"}}'


def body(**fields: Any) -> bytes:
    return json.dumps({"request_id": "my-1", "audio_url": URL, **fields}).encode()


def spotify(track_id: Any) -> bytes:
    return json.dumps({"request_id": "my-1", "track_id": track_id}).encode()


REQUEST_ID: Final = (
    "request_id: may have 1 to 128 characters: letters from A to Z and a to z, digits, and . _ : @ / -; the first is a"
    " letter or digit"
)
NOT_UTF_8: Final = "send UTF-8 without a byte order mark"
BLOB: Final = (
    "audio_url: a blob reference is 'blob:' and a name of letters, digits and . _ -, with / between its parts, each of"
    " which begins with a letter or digit"
)

#: What was sent, and what its sender reads.
REFUSED: Final[list[tuple[bytes, str]]] = [
    # Not text
    (b"", "the record has no value"),
    (b"\xef\xbb\xbf" + WHOLE.encode(), "the request begins with a byte order mark; send UTF-8 without one"),
    (WHOLE.encode("utf-16"), f"the request is not UTF-8 (it begins like UTF-16); {NOT_UTF_8}"),
    (WHOLE.encode("utf-16-le"), f"the request is not UTF-8 (it begins like UTF-16); {NOT_UTF_8}"),
    (WHOLE.encode("utf-16-be"), f"the request is not UTF-8 (it begins like UTF-16); {NOT_UTF_8}"),
    (WHOLE.encode("utf-32"), f"the request is not UTF-8 (it begins like UTF-32); {NOT_UTF_8}"),
    (WHOLE.encode("utf-32-le"), f"the request is not UTF-8 (it begins like UTF-32); {NOT_UTF_8}"),
    (WHOLE.encode("utf-32-be"), f"the request is not UTF-8 (it begins like UTF-32); {NOT_UTF_8}"),
    ('{"request_id":"ü"}'.encode("latin-1"), f"the request is not UTF-8 (byte 0xfc at position 15); {NOT_UTF_8}"),
    (b"\x1f\x8b\x08\x00", f"the request is not UTF-8 (byte 0x8b at position 1); {NOT_UTF_8}"),
    (
        b"\x00\x00\x00\x00\x07" + WHOLE.encode(),
        "the request is not JSON (it begins like the binary format of a schema registry); send plain JSON",
    ),
    # Not JSON
    (URL.encode(), "the request is not valid JSON: a value is expected at line 1 column 1"),
    (
        b"{'request_id': 'my-1'}",
        "the request is not valid JSON: a field's name must be a string in double quotes, at line 1 column 2",
    ),
    (WHOLE[:-1].encode(), "the request is not valid JSON: it ends in the middle of an object, at line 1 column 60"),
    (WHOLE[:9].encode(), "the request is not valid JSON: it ends in the middle of a string, at line 1 column 9"),
    (
        WHOLE.encode() * 2,
        "the request is not valid JSON: something follows the end of the JSON value, at line 1 column 62",
    ),
    (b'{"request_id":"my-1",}', "the request is not valid JSON: trailing comma at line 1 column 22"),
    (
        b'{"force":tru}',
        "the request is not valid JSON: neither true, false, null, a number nor a string, at line 1 column 13",
    ),
    (b'{"force":01}', "the request is not valid JSON: invalid number at line 1 column 11"),
    (b'{"a" 1}', "the request is not valid JSON: expected `:` at line 1 column 6"),
    (b'{"a":1 "b":2}', "the request is not valid JSON: expected `,` or `}` at line 1 column 8"),
    (b"9" * 5000, "the request is not valid JSON: number out of range at line 1 column 4302"),
    (b"[" * 5000, "the request is not valid JSON: it is nested too deeply, at line 1 column 202"),
    (
        b'{"source":"a\nb"}',
        "the request is not valid JSON: a control character in a string must be escaped, at line 2 column 0",
    ),
    (
        b'{"source":"\\x"}',
        "the request is not valid JSON: a backslash begins no escape that JSON has, at line 1 column 13",
    ),
    (
        b'{"source":"\\ud800"}',
        "the request is not valid JSON: a \\u escape names half a character or is cut short, at line 1 column 18",
    ),
    # Not a request
    (b"[]", "the request is not a JSON object"),
    (b"null", "the request is not a JSON object"),
    (b'"my-1"', "the request is not a JSON object"),
    (b"x" * 200_000, "the request has 200000 bytes; the requests topic takes at most 131072"),
    (b"{}", "request_id is missing"),
    (b'{"request_id":"my-1"}', "give track_id, audio_url or both"),
    (b'{"request_id":"my-1","audio_url":null}', "give track_id, audio_url or both"),
    # The request ID
    (body(request_id=""), REQUEST_ID),
    (body(request_id="my 1"), REQUEST_ID),
    (body(request_id="-1"), REQUEST_ID),
    (body(request_id="x" * 129), REQUEST_ID),
    (body(request_id=17), "request_id: must be a string"),
    (body(request_id=None), "request_id: must be a string"),
    # Fields nobody knows
    (body(audiourl=URL), "unknown field 'audiourl' (did you mean audio_url?)"),
    (body(AudioURL=URL), "unknown field 'AudioURL' (did you mean audio_url?)"),
    (body(trackid=TRACK), "unknown field 'trackid' (did you mean track_id?)"),
    (body(forced=True), "unknown field 'forced' (did you mean force?)"),
    (body(spotify_track_id=TRACK), "unknown field 'spotify_track_id' (did you mean track_id?)"),
    (body(id="my-1"), "unknown field 'id'"),
    (body(playlist="x"), "unknown field 'playlist'"),
    (body(**{"a\n" * 50: 1}), "unknown field '" + "a\\n" * 19 + "a…'"),
    (
        b'{"requestId":"my-1","url":"x","a":1,"b":2}',
        "request_id is missing; unknown field 'requestId' (did you mean request_id?); unknown field 'url' (did you mean"
        " audio_url?) (and 2 more)",
    ),
    # The version
    (body(schema_version=2), "schema_version 2 is newer than 1, the newest that this installation reads"),
    (
        body(schema_version=10**100),
        "schema_version of ten digits or more is newer than 1, the newest that this installation reads",
    ),
    (body(schema_version=0), "schema_version: must be 1"),
    (body(schema_version="1"), "schema_version: must be 1"),
    # The other fields
    (body(force="perhaps"), "force: must be true or false"),
    (body(force=None), "force: must be true or false"),
    (body(force=[True]), "force: must be true or false"),
    (body(source=""), "source: must not be empty"),
    (body(source=5), "source: must be a string"),
    (body(source="x" * 8193), "source: may have at most 8192 characters"),
    (body(audio_url=5), "audio_url: must be a string"),
    (body(audio_url=""), "audio_url: a URL begins with http:// or https://"),
    (body(audio_url="example.org/a.mp3"), "audio_url: a URL begins with http:// or https://"),
    (
        body(audio_url="ftp://e.org"),
        "audio_url: only http, https and file URLs can be fetched; this one has the scheme 'ftp'",
    ),
    (body(audio_url="https:///a.mp3"), "audio_url: the URL names no host"),
    (body(audio_url="https://e.org:99999/"), "audio_url: the URL's host or port cannot be read"),
    (
        body(audio_url="https://e.org/a b"),
        "audio_url: a URL holds no spaces or control characters; percent-encode them",
    ),
    (body(audio_url="https://" + "a" * 8192), "audio_url: may have at most 8192 characters; this one has 8200"),
    (body(audio_url="blob:../a"), BLOB),
    (body(audio_url="blob:" + "a" * 300), "audio_url: a blob reference may have at most 300 characters"),
    (spotify(5), "track_id: must be a string"),
    (spotify(""), "track_id: not a Spotify track ID, URI or open.spotify.com URL: ''"),
    (spotify("song"), "track_id: not a Spotify track ID, URI or open.spotify.com URL: 'song'"),
    (spotify(URL), "track_id: not a Spotify track ID, URI or open.spotify.com URL: a URL of another site"),
    (
        spotify(f"spotify:album:{TRACK}"),
        "track_id: it names a Spotify album; only single tracks can be classified",
    ),
    (spotify("spotify:track:abc"), "track_id: a Spotify ID has 22 letters and digits; this one has 3"),
    (spotify("https://open.spotify.com/"), "track_id: the Spotify URL names no track: '/'"),
    (spotify("x" * 501), "track_id: may have at most 500 characters"),
]


@pytest.mark.parametrize(("sent", "read"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_a_request_that_is_refused_is_so_in_these_words(sent: bytes, read: str) -> None:
    with pytest.raises(MalformedMessageError) as refused:
        decode_message(Channel.REQUESTS, sent)
    assert refused.value.reason == read


def test_the_words_for_settings_are_ours_too() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"retry_attempts": -1, "vote": "none", "fetch_max_bytes": "many", "kafka_security": 1})
    said = faults(refused.value)
    assert "Input should" not in said and "pattern" not in said
    assert "vote: must be 'soft', 'majority' or 'parts'" in said
