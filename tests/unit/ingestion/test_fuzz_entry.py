"""Requests made at random, through the real ingestion: each has an answer, none is a defect or makes it wait."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingestion.fetch import Fetched
from services.ingestion.service import Ingestion
from shared.audio.decode import DecodedAudio
from shared.bus.base import Record
from shared.contracts.topics import Channel
from shared.http.urls import Target
from shared.runtime.settling import Settled, Settler
from shared.settings import Settings
from tests.support.fuzzing import cases
from tests.support.loop_bench import PATIENT, TOPICS
from tests.support.mill import wav

_TRACK: Final = "4uLU6hMCjMI75M1A2tKUQC"
_starts = st.sampled_from(
    ["http://", "https://", "HTTP://a.b/", "http://[", "http://user:pw@a.b/", "http://xn--a/", "http://a.b:80",
     "blob:", "blob:music/", "blob:music/song", "blob:uploads/", "ftp://", ""]
)  # fmt: skip
_ends = st.text(max_size=40) | st.text(alphabet="abc/.-_%?#@:[]0123456789", max_size=60) | st.just("a" * 250)
_sources = st.text(max_size=60) | st.sampled_from(
    ["\x00" * 8192, "http://a@" + "b" * 8183, "\U0001f3b5" * 3000, "a" * 8193, " ", "\n", "\u202e"]
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "audio_url": st.builds(str.__add__, _starts, _ends),
        "track_id": st.sampled_from([_TRACK, f"spotify:track:{_TRACK}", f" {_TRACK}\n", "x"]),
        "source": _sources,
        "force": st.booleans(),
    },
)
_stamps = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-1, 0])

Settle = Callable[[Record], Settled]


@pytest.fixture(scope="module")
def settle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settle]:
    """What becomes of a record; every URL that may be fetched leads to the same audio."""
    folder = tmp_path_factory.mktemp("entry")
    (folder / "blobs" / "music").mkdir(parents=True)
    (folder / "blobs" / "music" / "song").write_bytes(b"x")
    settings = Settings.model_validate({"redis_url": f"memory://{folder}", "blob_url": f"file://{folder}/blobs"})
    service = Ingestion.build(settings)

    def fetch(url: str, destination: Path, *more: object) -> Fetched:
        Target.parse(url)
        destination.write_bytes(b"x")
        return Fetched(1, "\x00\xff" * 300, "é")

    def decode(source: Path, destination: Path, abandoned: Event) -> DecodedAudio:
        destination.write_bytes(wav(9))
        return DecodedAudio(destination, 9 * 22050, "ab" * 32, (-20.0,) * 9, -20.0)

    setattr(service._steps._to.fetcher, "fetch", fetch)  # noqa: B010 (a method, for this one object)
    service._steps._decode_file = decode
    settler = Settler(service, TOPICS, PATIENT, lambda seconds: None, str)
    yield lambda record: settler.settle([record])[0]
    service.close()


_offsets = itertools.count()


@cases(quick=200, long=5000)
@given(_fields, st.binary(max_size=300), _stamps)
def test_whatever_a_request_asks_for_it_is_answered_and_no_defect(
    settle: Settle, fields: dict[str, Any], key: bytes, stamp_ms: int
) -> None:
    offset = next(_offsets)
    body = json.dumps({"request_id": f"r{offset}", **fields}).encode()
    settled = settle(Record(TOPICS.name(Channel.REQUESTS), 0, offset, key, body, (), stamp_ms))
    assert settled.kind in {"done", "failed"}, (settled, fields)
    assert [output.topic for output in settled.outputs] == [TOPICS.name(Channel.TRACKS)]
