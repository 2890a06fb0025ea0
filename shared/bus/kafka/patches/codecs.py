"""Kafka's codecs with a size limit: a few kilobytes that unpack to gigabytes must not exhaust a worker's memory.

kafka-python reads gzip by itself, and lz4, snappy and zstd where a library for them is installed. A worker has to read
all four, because each client and each topic chooses its own. A missing library is an error here, when the bus is
imported; kafka-python would notice at the first record.

The broker limits the compressed size of a batch, and kafka-python unpacks without limit. So the decoders below replace
its own in the two modules that use them. tests/unit/bus/test_kafka_unreadable.py fails when this is no longer needed.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from typing import Final, Protocol

from kafka.record import default_records, legacy_records

try:
    import lz4.frame
    import snappy
    import zstandard
except ImportError as error:
    raise ImportError(
        f"records may be compressed by any of Kafka's codecs, and the library of one is missing: {error};"
        " install tonestream's dependencies anew"
    ) from error

#: The most bytes of records that one batch may hold when unpacked. A producer's batches have about 1 MB, and the
#: largest message of any topic 5 MB.
MAX_UNPACKED_BYTES: Final = 16 * 1024 * 1024

_STEP: Final = 1024 * 1024
#: The header of Java's snappy format: magic, version, oldest compatible version. Blocks with their lengths follow.
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16


class UnpackError(ValueError):
    """The compressed records of a batch are damaged or too many."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack_gzip(packed: bytes | memoryview) -> bytes:
    """The bytes that ``packed`` holds. Raises UnpackError, or the error of the library."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed), mode="r") as stream:
        return _read(stream)


def unpack_zstd(packed: bytes) -> bytes:
    """The bytes that ``packed`` holds. Raises UnpackError, or the error of the library."""
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as stream:
        return _read(stream)


def unpack_lz4(packed: bytes) -> bytes:
    """The bytes that ``packed`` holds. Raises UnpackError, or the error of the library."""
    decompressor = lz4.frame.LZ4FrameDecompressor()
    unpacked: bytes = decompressor.decompress(packed, max_length=MAX_UNPACKED_BYTES + 1)
    _check(len(unpacked))
    if not decompressor.eof:
        raise UnpackError("the compressed records end too early")
    return unpacked


def unpack_snappy(packed: bytes) -> bytes:
    """The bytes that ``packed`` holds, in one piece or in Java's blocks. Raises UnpackError, or the library's error."""
    if not packed.startswith(_XERIAL_MAGIC):
        return _snappy_block(packed, 0)
    unpacked, position = bytearray(), _XERIAL_HEADER_BYTES
    while position < len(packed):
        if len(packed) - position < 4:
            raise UnpackError("the compressed records end too early")
        (size,) = struct.unpack_from(">i", packed, position)
        position += 4
        if not 0 < size <= len(packed) - position:
            raise UnpackError(f"a block of {size} bytes where {len(packed) - position} are left")
        unpacked += _snappy_block(packed[position : position + size], len(unpacked))
        position += size
    return bytes(unpacked)


def _snappy_block(block: bytes, before: int) -> bytes:
    # Snappy begins with the unpacked length (seven bits per byte), and its library allocates that much.
    size = 0
    for place, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    _check(before + size)
    unpacked: bytes = snappy.decompress(block)
    return unpacked


def _read(stream: _Readable) -> bytes:
    unpacked = bytearray()
    while step := stream.read(_STEP):
        unpacked += step
        _check(len(unpacked))
    return bytes(unpacked)


def _check(size: int) -> None:
    if size > MAX_UNPACKED_BYTES:
        raise UnpackError(f"the records of the batch unpack to more than {MAX_UNPACKED_BYTES} bytes")


_DECODERS: Final[dict[str, Callable[..., bytes]]] = {
    "gzip_decode": unpack_gzip,
    "snappy_decode": unpack_snappy,
    "lz4_decode": unpack_lz4,
    "zstd_decode": unpack_zstd,
}

for _module in (default_records, legacy_records):
    for _name in _DECODERS.keys() & vars(_module).keys():
        setattr(_module, _name, _DECODERS[_name])
