"""``multipart/form-data``, read as it comes: files go to the receiver, other fields are few and small."""

from __future__ import annotations

from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.gateway.problems import GatewayCode, Problem
from services.gateway.uploads import Receiver
from shared.contracts.errors import ErrorCode

FILE_FIELD: Final = "file"
_MOST_FIELD_BYTES: Final = 4096


class Form:
    """The parser of one body. ``fields`` are those that are no files. It runs in threads, one call at a time."""

    def __init__(self, content_type: str, receiver: Receiver) -> None:
        """Raises Problem (invalid_request) for a content type without a boundary."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise Problem(ErrorCode.INVALID_REQUEST, "the content type multipart/form-data names no boundary")
        self.fields: dict[str, str] = {}
        self._receiver = receiver
        self._ended = False
        self._header: list[bytearray] = [bytearray(), bytearray()]
        self._disposition = b""
        self._field: str | None = None
        self._value = bytearray()
        self._read = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from None

    def feed(self, data: bytes) -> None:
        """More of the body. Raises Problem, DependencyError."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from None

    def finish(self) -> None:
        """The body has ended. Raises Problem (upload_incomplete) if its last boundary is missing."""
        if not self._ended:
            raise Problem(GatewayCode.UPLOAD_INCOMPLETE, "the form ends in the middle of a part")

    # What the parser calls

    def _part_begins(self) -> None:
        self._disposition = b""
        self._field = None
        self._value = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _header_ends(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = [bytearray(), bytearray()]
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None:
            self._field = name
            return
        if name != FILE_FIELD:
            raise Problem(ErrorCode.INVALID_REQUEST, f"files are sent in fields with the name {FILE_FIELD!r}")
        self._receiver.begin(filename.decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._receiver.write(data[start:end])
            return
        self._read += end - start
        if self._read > _MOST_FIELD_BYTES:
            raise Problem(
                ErrorCode.INVALID_REQUEST, f"the fields of the form are longer than {_MOST_FIELD_BYTES} bytes"
            )
        self._value += data[start:end]

    def _part_ends(self) -> None:
        if self._field is None:
            self._receiver.end()
        else:
            self.fields[self._field] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


def _malformed(error: Exception) -> Problem:
    return Problem(ErrorCode.INVALID_REQUEST, f"the form cannot be read: {error}")
