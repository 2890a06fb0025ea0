"""Batches that cannot be read, as kafka-python fetches them: what is delivered in their place."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from kafka import codec
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, MemoryRecordsBuilder, default_records
from kafka.structs import TopicPartition

from shared.bus.kafka.patches import codecs as kafka_codecs
from shared.bus.kafka.patches import unreadable as kafka_unreadable
from shared.bus.kafka.patches.codecs import MAX_UNPACKED_BYTES, UnpackError
from shared.bus.kafka.patches.unreadable import unreadable
from tests.support import damage
from tests.support.damage import Damage

ROOT = Path(__file__).resolve().parents[3]
HERE = TopicPartition("requests", 3)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
DAMAGES: list[tuple[str, Damage]] = [
    ("zstd", damage.bad_checksum),
    ("none", damage.bad_checksum),
    ("none", damage.unknown_codec),
    *((name, damage.garbage_body) for name in CODECS if name != "none"),
    *((name, damage.truncated_body) for name in CODECS),
]


def a_batch(base: int, *values: bytes, codec: str = "none") -> bytearray:
    builder = MemoryRecordsBuilder(magic=2, compression_type=CODECS[codec], batch_size=10**8)
    for value in values:
        builder.append(timestamp=1, key=None, value=value, headers=[])
    builder.close()
    made = bytearray(builder.buffer())
    struct.pack_into(">q", made, 0, base)
    return made


def damaged(batch: bytearray, how: Damage) -> bytearray:
    how(batch)
    return batch


def fetched(*batches_: bytes | bytearray, offset: int = 0, highwater: int = 1000) -> Any:
    assignment = {HERE: SimpleNamespace(highwater=highwater)}
    records = MemoryRecords(b"".join(batches_))
    return kafka_unreadable._PartitionRecords(assignment, offset, HERE, records)


def taken(part: Any) -> list[Any]:
    found: list[Any] = []
    while part:
        found += part.take(1)
    return found


@pytest.mark.parametrize(("codec", "how"), DAMAGES)
def test_a_batch_that_cannot_be_read_is_one_record_at_its_last_offset_with_its_bytes(codec: str, how: Damage) -> None:
    bad = damaged(a_batch(1, *(b"a value that compresses " * 9 for _ in range(3)), codec=codec), how)
    good, mark = taken(fetched(a_batch(0, b"before"), bad))[:1], taken(fetched(a_batch(0, b"before"), bad))[1:]
    assert [record.value for record in good] == [b"before"]
    if how is damage.truncated_body and codec == "none":
        mark = [record for record in mark if unreadable(record)]  # its first record can be read
    (record,) = mark
    why = unreadable(record)
    assert why is not None and why.reason and 1 <= why.first_offset <= 3
    assert (record.topic, record.partition, record.offset) == ("requests", 3, 3)
    assert record.value == bytes(bad) and record.key is None and record.headers == []


def test_what_comes_behind_it_is_fetched_anew_from_the_next_offset() -> None:
    part = fetched(damaged(a_batch(5, b"a", b"b"), damage.bad_checksum), a_batch(7, b"behind"), offset=5)
    (record,) = taken(part)
    assert record.offset == 6 and part.next_fetch_offset == 7


def test_records_of_the_batch_that_can_be_read_are_delivered_and_the_rest_is_named() -> None:
    bad = damaged(a_batch(10, b"a", b"b", b"c"), damage.garbage_end)
    first, second, rest = taken(fetched(bad, offset=10))
    assert [first.value, second.value] == [b"a", b"b"]
    assert (rest.offset, unreadable(rest).first_offset) == (12, 12)  # type: ignore[union-attr]


def test_damage_behind_the_last_record_of_a_batch_costs_none() -> None:
    bad = damaged(a_batch(10, b"a", b"b"), damage.one_record_too_many)
    assert [record.value for record in taken(fetched(bad, a_batch(12, b"c"), offset=10))] == [b"a", b"b", b"c"]


def test_a_rewind_into_the_batch_names_what_is_left_of_it_and_comes_to_its_end() -> None:
    bad = damaged(a_batch(10, b"a", b"b", b"c"), damage.bad_checksum)
    (record,) = taken(fetched(bad, offset=11))
    assert (record.offset, unreadable(record).first_offset) == (12, 11)  # type: ignore[union-attr]


@pytest.mark.parametrize(("behind", "last"), [([], 1), ([a_batch(2, b"behind")], 1)])
def test_a_damaged_header_skips_nothing_that_can_be_read_and_never_leads_beyond_the_end(
    behind: list[bytearray], last: int
) -> None:
    bad = damaged(a_batch(0, b"a", b"b"), damage.wild_last_offset)
    record, *rest = taken(fetched(bad, *behind, highwater=100))
    assert record.offset == last
    assert [one.value for one in rest] == [b"behind"] * len(behind)


def test_a_length_that_leads_backwards_is_damage_like_any_other() -> None:
    bad = a_batch(0, b"a")
    struct.pack_into(">i", bad, 8, -5)
    (record,) = taken(fetched(bad, a_batch(1, b"b")))
    assert record.offset == 0 and unreadable(record) is not None


def test_a_partition_that_its_broker_cannot_read_waits_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def parse(fetch: Any) -> str:
        if fetch.topic_partition == HERE:
            raise CorruptRecordError("Unexpected error while fetching data")
        return "records"

    fetcher = SimpleNamespace(_parse_fetched_data=parse)
    consumer: Any = SimpleNamespace(_fetcher=fetcher, _subscription=SimpleNamespace(assignment={}))
    kafka_unreadable.name_unreadable_batches(consumer)
    for _ in range(3):
        assert fetcher._parse_fetched_data(SimpleNamespace(topic_partition=HERE, fetched_offset=7)) is None
    there = TopicPartition("requests", 4)
    assert fetcher._parse_fetched_data(SimpleNamespace(topic_partition=there, fetched_offset=7)) == "records"
    (line,) = caplog.messages
    assert "the broker cannot read" in line and "at 7" in line


def test_an_error_that_says_nothing_about_the_batch_is_raised_and_the_partition_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(packed: bytes) -> bytes:
        raise MemoryError

    monkeypatch.setattr(default_records, "zstd_decode", no_memory)
    part = fetched(a_batch(0, b"a" * 100, codec="zstd"))
    with pytest.raises(MemoryError):
        part.take(1)
    assert not part, "kept, kafka-python would ask it for ever"


def test_kafka_python_still_raises_once_and_then_delivers_nothing_for_ever() -> None:
    """When this fails, shared/bus/kafka/patches/unreadable.py may not be needed any more."""
    records = MemoryRecords(bytes(damaged(a_batch(0, b"a"), damage.bad_checksum)))
    part = Fetcher.PartitionRecords(0, HERE, records)
    with pytest.raises(Exception, match="crc"):
        part.take(1)
    assert part and part.take(1) == []


PACKERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip.compress, kafka_codecs.unpack_gzip),
    "lz4": (lz4.frame.compress, kafka_codecs.unpack_lz4),
    "zstd": (lambda raw: zstandard.ZstdCompressor().compress(raw), kafka_codecs.unpack_zstd),
    "snappy as librdkafka has it": (snappy.compress, kafka_codecs.unpack_snappy),
    "snappy as Java has it": (codec.snappy_encode, kafka_codecs.unpack_snappy),
}


@pytest.mark.parametrize("name", PACKERS)
def test_every_codec_unpacks_what_was_packed_and_no_more_than_the_limit(name: str) -> None:
    pack, unpack = PACKERS[name]
    for raw in (b"", b"x", b"a value " * 100_000, bytes(MAX_UNPACKED_BYTES)):
        assert unpack(pack(raw)) == raw
    bomb = pack(bytes(MAX_UNPACKED_BYTES + 1))
    assert len(bomb) < MAX_UNPACKED_BYTES / 10
    with pytest.raises(UnpackError, match="unpack to more than"):
        unpack(bomb)


@pytest.mark.parametrize("library", ["lz4.frame", "snappy", "zstandard"])
def test_a_worker_without_the_library_of_a_codec_does_not_start_and_says_which_is_missing(library: str) -> None:
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from services.cli.main import main; sys.exit(main(['worker', 'ingestion']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1 and library in done.stderr and "Kafka's codecs" in done.stderr


def test_kafka_python_unpacks_with_these_decoders() -> None:
    assert default_records.zstd_decode is kafka_codecs.unpack_zstd
    assert default_records.snappy_decode is kafka_codecs.unpack_snappy
    assert default_records.lz4_decode is kafka_codecs.unpack_lz4
    assert default_records.gzip_decode is kafka_codecs.unpack_gzip
