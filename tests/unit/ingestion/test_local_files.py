"""Files of this machine that requests may name: those of one folder and no others, by every way of naming them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.cli.inputs import expand
from services.cli.scan import LeftOut
from services.ingestion.local_files import LocalFiles
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.messages import TrackRequest


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    (folder / "album").mkdir(parents=True)
    (folder / "album" / "été #1 100%?.mp3").write_bytes(b"sound")
    (tmp_path / "secret").write_bytes(b"hush")
    return folder


def fetched(folder: Path | None, url: str, tmp_path: Path) -> bytes:
    destination = tmp_path / "source"
    LocalFiles(folder).fetch(url, destination)
    return destination.read_bytes()


def refused(folder: Path | None, url: str, tmp_path: Path) -> tuple[ErrorCode, str]:
    with pytest.raises(TonestreamError) as caught:
        fetched(folder, url, tmp_path)
    assert not (tmp_path / "source").exists()
    return caught.value.code, caught.value.message


def test_a_file_of_the_folder_is_read_whatever_its_name(music: Path, tmp_path: Path) -> None:
    (file,) = (music / "album").iterdir()
    assert fetched(music, file.as_uri(), tmp_path) == b"sound"
    assert TrackRequest(request_id="r", audio_url=file.as_uri()).track_key.startswith("url:")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no file names that are no text")
def test_a_name_that_is_no_text_is_read(music: Path, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(music) + b"/\xff.mp3"))
    file.write_bytes(b"sound")
    assert fetched(music, file.as_uri(), tmp_path) == b"sound"


def test_links_within_the_folder_are_followed(music: Path, tmp_path: Path) -> None:
    (music / "link.mp3").symlink_to(next((music / "album").iterdir()))
    assert fetched(music, (music / "link.mp3").as_uri(), tmp_path) == b"sound"


def test_a_folder_that_is_a_link_itself_is_read(music: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(music)
    (file,) = (music / "album").iterdir()
    assert (
        fetched(tmp_path / "mounted", f"{(tmp_path / 'mounted' / 'album' / file.name).as_uri()}", tmp_path) == b"sound"
    )


@pytest.mark.parametrize(
    "path",
    ["../secret", "album/../../secret", "../music-of-others/a.mp3", "..", "%2e%2e/secret", "nothing/../../secret"],
)
def test_nothing_outside_the_folder_is_read_or_looked_at(music: Path, tmp_path: Path, path: str) -> None:
    code, message = refused(music, f"file://{music}/{path}", tmp_path)
    assert (code, message) == (
        ErrorCode.FETCH_FORBIDDEN,
        f"it is not in {music}, the folder of TONESTREAM_LOCAL_FILES",
    )


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_leads_nowhere_outside_the_folder(music: Path, tmp_path: Path, link: str) -> None:
    (music / "out").symlink_to(tmp_path / "secret" if link == "file" else tmp_path)
    url = f"file://{music}/out" + ("" if link == "file" else "/secret")
    assert refused(music, url, tmp_path)[0] is ErrorCode.FETCH_FORBIDDEN


def test_without_the_setting_no_file_is_read(music: Path, tmp_path: Path) -> None:
    code, message = refused(None, f"file://{music}/a.mp3", tmp_path)
    assert code is ErrorCode.FETCH_FORBIDDEN
    assert "TONESTREAM_LOCAL_FILES" in message


def test_what_cannot_be_read_in_the_folder_says_why(music: Path, tmp_path: Path) -> None:
    os.mkfifo(music / "pipe")
    (music / "loop").symlink_to("loop")
    assert refused(music, f"file://{music}/gone.mp3", tmp_path) == (
        ErrorCode.FETCH_FAILED,
        "the file cannot be read: No such file or directory",
    )
    for name in ("pipe", "album"):
        assert refused(music, f"file://{music}/{name}", tmp_path) == (
            ErrorCode.FETCH_FAILED,
            "it is not a regular file",
        )
    assert refused(music, f"file://{music}/loop", tmp_path)[0] is ErrorCode.FETCH_FAILED


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file://server/share/a.mp3", "an absolute path and no host"),
        ("file:a.mp3", "an absolute path and no host"),
        ("file:///music/a.mp3?x", "percent-encoded"),
        ("file:///music/a#1.mp3", "percent-encoded"),
        ("file:///music/a%00.mp3", "zero byte"),
        ("file:///music/a b.mp3", "percent-encode them"),
    ],
)
def test_a_file_url_that_names_no_file_of_this_machine_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TrackRequest(request_id="r", audio_url=url)


def test_the_command_line_takes_a_file_url_for_the_file(music: Path) -> None:
    (file,) = (music / "album").iterdir()
    (given,) = expand([file.as_uri()], LeftOut())
    assert (given.kind, given.path) == ("file", file)
    (wrong,) = expand(["file://server/share"], LeftOut())
    assert wrong.fault is not None and "no host" in wrong.fault
