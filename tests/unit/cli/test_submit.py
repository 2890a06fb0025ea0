"""``tonestream submit``: good lines go out, bad ones are named with their number."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from services.cli.main import main
from shared.bus import connect
from shared.bus.base import Reader
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import Channel, Topics
from tests.support.samples import SAMPLE


class Desk:
    """The command on a bus in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        bus, topics = MemoryBus(), Topics("tonestream")
        bus.create_topics(topic_specs(topics))
        self._reader: Reader = bus.reader([topics.name(Channel.REQUESTS)])
        monkeypatch.setattr(bus, "close", lambda: None)
        monkeypatch.setattr(connect, "kafka_bus", lambda settings, client_id: bus)

    def submit(self, *arguments: str, stdin: bytes = b"") -> tuple[int, list[str], list[str]]:
        """The exit status, what was sent, and what was said on standard error."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "ascii"))
        status = main(["submit", *arguments])
        requests = [decode_message(Channel.REQUESTS, record.value) for record in self._reader.poll(1000, 0.1)]
        sent = [request for request in requests if isinstance(request, TrackRequest)]
        out, err = self._capsys.readouterr()
        assert {line.split("\t")[0] for line in out.splitlines()} == {request.request_id for request in sent}
        return status, sorted(request.shown_source for request in sent), err.splitlines()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


def test_good_lines_go_out_and_bad_ones_are_named_with_their_number(desk: Desk) -> None:
    lines = b"https://example.org/a.mp3\nno such thing\n\nspotify:album:4uLU6hMCjMI75M1A2tKUQC\r\nftp://x/y\n"
    lines += b"https://example.org/b.mp3\n"
    status, sent, said = desk.submit("-", stdin=lines)
    assert status == 1
    assert sent == ["https://example.org/a.mp3", "https://example.org/b.mp3"]
    assert [line.partition(": ")[2][:7] for line in said[:3]] == ["line 2:", "line 4:", "line 5:"]
    assert "it names a Spotify album" in said[1]
    assert said[3] == "tonestream: 2 of 5 submitted"


@pytest.mark.parametrize(
    "playlist",
    [
        b"\xef\xbb\xbf#EXTM3U\r\n#EXTINF:1,Band - Song\r\nhttps://example.org/a.mp3\r\n",
        "#EXTM3U\nhttps://example.org/a.mp3\n".encode("utf-16"),
        b"#EXTINF:1,B\xfcrger\n  https://example.org/a.mp3  ",
    ],
    ids=["UTF-8 with a mark", "UTF-16", "Latin-1"],
)
def test_a_playlist_is_a_list(playlist: bytes, desk: Desk) -> None:
    assert desk.submit("-", stdin=playlist) == (0, ["https://example.org/a.mp3"], [])


def test_files_are_read_by_their_bytes_and_may_begin_with_a_number_sign(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TONESTREAM_BLOB_URL", f"file://{tmp_path}/blobs")
    names = [b"#1 Hits.mp3", b"no-\xff-text.mp3", b"a space at its end.mp3 "]
    for name in names:
        Path(tmp_path, *[name.decode("utf-8", "surrogateescape")]).write_bytes(SAMPLE.read_bytes())
    status, sent, said = desk.submit("-", stdin=b"\n".join([*names, b"#gone.mp3", b"gone.mp3"]))
    assert sent == ["#1 Hits.mp3", "a space at its end.mp3 ", "no-\\xff-text.mp3"]
    assert status == 1
    assert said[0].startswith("tonestream: line 5: 'gone.mp3': there is no such file") and len(said) == 2
    assert len(list((tmp_path / "blobs" / "uploads").iterdir())) == 3


def test_a_file_without_a_shared_store_is_said_to_need_one_and_the_rest_goes_out(desk: Desk) -> None:
    status, sent, said = desk.submit(str(SAMPLE), "https://example.org/a.mp3")
    assert (status, sent) == (1, ["https://example.org/a.mp3"])
    assert "is no URL and no Spotify track" in said[0] and "TONESTREAM_BLOB_URL" in said[0]


def test_where_all_arguments_are_wrong_it_is_wrong_usage_and_an_empty_list_is_not(desk: Desk) -> None:
    assert desk.submit("nothing.mp3")[:2] == (2, [])
    assert desk.submit("-", stdin=b"nothing.mp3\n")[:2] == (1, [])
    assert desk.submit("-", stdin=b"#EXTM3U\n") == (0, [], ["tonestream: nothing to submit"])
