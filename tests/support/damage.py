"""Batches of records as they stand on a broker's disk, and ways to damage them.

A broker checks what it is sent, so a damaged batch cannot be produced. It is made on the disk of a broker that is
stopped: that one does not look again when it starts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from kafka.record.util import calc_crc32c

#: Where the fields of a batch begin: see kafka/record/default_records.py.
_LENGTH: Final = 8
_CHECKSUM: Final = 17
_ATTRIBUTES: Final = 21
_LAST_OFFSET_DELTA: Final = 23
_COUNT: Final = 57
_BODY: Final = 61

#: Changes a batch in place.
Damage = Callable[[bytearray], None]


def batches(log: bytes) -> Iterator[tuple[int, int, int]]:
    """The base offset of each batch, and where in ``log`` it begins and ends."""
    position = 0
    while position < len(log):
        base, length = struct.unpack_from(">qi", log, position)
        yield base, position, position + 12 + length
        position += 12 + length


def damage_file(path: Path, damages: dict[int, Damage]) -> None:
    """Damage the batches with these base offsets in a segment of a stopped broker's log."""
    log = bytearray(path.read_bytes())
    undamaged = set(damages)
    for base, start, end in batches(bytes(log)):
        if base in damages:
            batch = log[start:end]
            damages[base](batch)
            assert len(batch) == end - start, "what stands behind would move"
            log[start:end] = batch
            undamaged.remove(base)
    assert not undamaged, f"no batches begin at {undamaged}"
    path.write_bytes(log)


def sealed(batch: bytearray) -> None:
    """Make the checksum fit."""
    struct.pack_into(">I", batch, _CHECKSUM, calc_crc32c(memoryview(batch)[_ATTRIBUTES:]))


def bad_checksum(batch: bytearray) -> None:
    """A bit that fell over."""
    batch[_BODY + 3] ^= 0x10


def unknown_codec(batch: bytearray) -> None:
    """Compressed by a codec that nobody knows."""
    batch[_ATTRIBUTES + 1] = batch[_ATTRIBUTES + 1] & ~0x07 | 0x06
    sealed(batch)


def garbage_body(batch: bytearray) -> None:
    """Said to be compressed, and is not."""
    batch[_BODY:] = bytes(number * 7 % 251 for number in range(len(batch) - _BODY))
    sealed(batch)


def truncated_body(batch: bytearray) -> None:
    """Compressed records that end too early: the second half is lost."""
    half = (len(batch) - _BODY) // 2
    batch[-half:] = bytes(half)
    sealed(batch)


def garbage_end(batch: bytearray) -> None:
    """The last third is garbage: records before can be read."""
    third = (len(batch) - _BODY) // 3
    batch[-third:] = b"\xff" * third
    sealed(batch)


def one_record_too_many(batch: bytearray) -> None:
    """More records announced than there are. All there are can be read."""
    (count,) = struct.unpack_from(">i", batch, _COUNT)
    struct.pack_into(">i", batch, _COUNT, count + 1)
    sealed(batch)


def wild_last_offset(batch: bytearray) -> None:
    """A header that says the batch reaches far beyond the end of the log, and a checksum that does not fit."""
    struct.pack_into(">i", batch, _LAST_OFFSET_DELTA, 1_000_000)
