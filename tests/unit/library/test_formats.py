"""Files for other programs: whatever a title or a path holds, a reader gets it back, and no spreadsheet runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.library.formats import csv_lines, jsonl_lines, m3u8_lines, playlist_place
from services.library.row import COLUMNS, Row
from shared.audio.decode import find_ffmpeg
from tests.support.rows import failed_result, row
from tests.support.wav_files import wav_bytes

_ANY = st.text(st.characters(exclude_categories=["Cs"]))


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@given(title=_ANY, artist=_ANY)
def test_a_csv_reader_gets_every_text_back_but_formulas(title: str, artist: str) -> None:
    (found,) = read("".join(csv_lines([row(title=title, artist=artist)])))
    for text, cell in ((title, found["title"]), (artist, found["artist"])):
        assert cell in {text, f"'{text}"}
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_csv_has_a_header_ends_its_lines_with_cr_lf_and_has_no_byte_order_mark() -> None:
    text = "".join(csv_lines([row(), row()]))
    header, first, _, rest = text.split("\r\n")
    assert header.split(",") == [column.name for column in COLUMNS]
    assert first.startswith("r1,music/song.mp3,Song,Band,30,ok,2023-11-14T22:13:20Z,jazz,0.73,false,") and rest == ""


def test_a_number_below_zero_is_no_formula_and_a_missing_value_is_an_empty_cell() -> None:
    (found,) = read("".join(csv_lines([row(loudness=-14.25, bpm=None, title="-14.25", outside=True)])))
    assert (found["loudness"], found["bpm"], found["title"]) == ("-14.25", "", "'-14.25")
    assert (found["outside"], found["tags"]) == ("true", "guitar; female vocals")


def test_json_lines_hold_one_row_each() -> None:
    lines = "".join(jsonl_lines([row(title="a\nb"), row(title=None)])).splitlines()
    assert [json.loads(line)["title"] for line in lines] == ["a\nb", None]


def test_a_playlist_names_length_artist_and_title() -> None:
    untitled = row(title=None, duration_s=None, source="music/b.mp3")
    text = "".join(m3u8_lines([(row(duration_s=29.6), "/music/a.mp3"), (untitled, "/music/b.mp3")], Path("/music")))
    assert text == "#EXTM3U\n#EXTINF:30,Band - Song\na.mp3\n#EXTINF:-1,b.mp3\nb.mp3\n"


def test_a_playlist_leaves_failed_tracks_out_and_keeps_each_title_on_its_line() -> None:
    tracks = [(Row.of(failed_result(), 0.0), "/x.mp3"), (row(title="a\n#EXTINF:9,b\u2028c"), "/y.mp3")]
    assert "".join(m3u8_lines(tracks)) == "#EXTM3U\n#EXTINF:30,Band - a #EXTINF:9,b c\n/y.mp3\n"


@pytest.mark.parametrize(
    ("place", "folder", "line"),
    [
        ("/music/album/a.mp3", "/music", "album/a.mp3"),
        ("/music/album/a.mp3", "/music/lists", "../album/a.mp3"),
        ("/music/a.mp3", "/home/me", "/music/a.mp3"),
        ("/music/#1.mp3", "/music", "./#1.mp3"),
        ("/music/夜 曲.mp3", "/music", "夜 曲.mp3"),
        ("/music/a.mp3", "/", "music/a.mp3"),
        ("/music/ a.mp3", "/music", "file:///music/%20a.mp3"),
        ("/music/a\nb.mp3", "/music", "file:///music/a%0Ab.mp3"),
        ("/music/\udcff%.mp3", "/music", "file:///music/%FF%25.mp3"),
        ("https://example.org/a b.mp3?x=%20#y", "/music", "https://example.org/a%20b.mp3?x=%20#y"),
        ("4uLU6hMCjMI75M1A2tKUQC", "/music", "https://open.spotify.com/track/4uLU6hMCjMI75M1A2tKUQC"),
    ],
)
def test_a_place_is_written_so_that_a_player_finds_it(place: str, folder: str, line: str) -> None:
    assert playlist_place(place, Path(folder)) == line


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=3))
def test_every_path_is_one_line_that_leads_back_to_the_file(parts: list[bytes]) -> None:
    names = [part.replace(b"/", b"_").replace(b"\0", b"_") for part in parts]
    path = os.fsdecode(os.path.normpath(b"/music/" + b"/".join(names)))
    line = playlist_place(path, Path("/music"))
    assert line.splitlines() == [line] and not line.startswith("#") and line == line.strip()
    line.encode()
    if line.startswith("file://"):
        found = os.fsdecode(unquote_to_bytes(urlsplit(line).path))
    else:
        found = os.path.normpath(os.path.join("/music", line))  # noqa: PTH118
    assert found == path


def test_ffmpeg_opens_a_file_under_its_line_of_a_playlist(tmp_path: Path) -> None:
    odd = tmp_path / "music" / "#1 – 夜's song.wav"
    odd.parent.mkdir()
    odd.write_bytes(wav_bytes(np.zeros(2205)))
    line = playlist_place(str(odd), tmp_path)
    command = [find_ffmpeg(), "-v", "error", "-i", line, "-f", "null", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
