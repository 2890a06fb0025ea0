"""Results for other programs: which format, which rows, to standard output or into a file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from services.cli.answer import Answer
from services.cli.output import complain, json_line
from services.cli.output_file import OutputFile
from services.cli.status import UsageError
from services.library import where
from services.library.formats import M3U8_HEADER, csv_header, csv_line, jsonl_lines, m3u8_entry

#: Does something with an answer.
Taker: TypeAlias = Callable[[Answer], None]
FileFormat: TypeAlias = Literal["json", "jsonl", "csv", "m3u8"]
_FORMATS: Final = ("table", "json", "jsonl", "csv", "m3u8")
#: What the end of a file's name says about its format.
_BY_SUFFIX: Final[dict[str, FileFormat]] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".m3u8": "m3u8",
    ".m3u": "m3u8",
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user wants to see. ``format`` None: a table, for people. ``output`` None: on standard output."""

    format: FileFormat | None
    output: Path | None
    where: where.Node | None

    @property
    def table(self) -> bool:
        """Whether people read standard output."""
        return self.format is None or self.output is not None


def add_arguments(parser: argparse.ArgumentParser, table: str) -> None:
    """The arguments for formats and filters. ``table`` says when the table is the format."""
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        metavar="FORMAT",
        help=f"table ({table}); json: one TrackResult a line, with all evidence; jsonl and csv: one flat row a track;"
        " m3u8: a playlist",
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument(
        "--where",
        type=_expression,
        metavar="EXPR",
        help="only tracks for which it holds: 'mood == calm and energy < 0.4 and tags has guitar'",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the format into FILE, which is replaced when all is done; its end says which format (.csv, .jsonl,"
        " .json, .m3u8). The table is shown all the same",
    )


def wishes(options: argparse.Namespace) -> Wishes:
    """The wishes in parsed arguments. Raises UsageError if they contradict each other."""
    if options.json and options.format not in {None, "json"}:
        raise UsageError(f"--json and --format {options.format} contradict each other")
    name = "json" if options.json else options.format
    if options.output is not None:
        name = name or _BY_SUFFIX.get(options.output.suffix.lower())
        if name in {None, "table"}:
            raise UsageError("which format has the output file? Give --format json, jsonl, csv or m3u8")
    return Wishes(None if name in {None, "table"} else cast(FileFormat, name), options.output, options.where)


class Export:
    """Writes answers in the wished format, if there is one. Each is there at once, or in a file that is finished at the
    end. A context manager: after an error the unfinished file is left aside, and named; so it is after an interruption,
    unless the command always ends by one.

    Raises UsageError if the file cannot be created, and OutputError if it cannot be written.
    """

    def __init__(self, wishes: Wishes, ends_by_interruption: bool = False) -> None:
        self._file = OutputFile(wishes.output) if wishes.output is not None and wishes.format is not None else None
        self._ends_by_interruption = ends_by_interruption
        self._empty = True
        folder = Path(os.path.abspath(wishes.output)).parent if wishes.output is not None else Path.cwd()  # noqa: PTH100
        header, self._text = _writer(wishes.format, folder)
        if header:
            self._write(header)

    def __enter__(self) -> Export:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if self._file is None:
            return
        if kind is None or (self._ends_by_interruption and issubclass(kind, KeyboardInterrupt)):
            self._file.finish()
        elif (part := self._file.abandon(keep=not self._empty)) is not None:
            complain(f"{self._file.path} was not finished; what there is lies in {part}")

    def add(self, answer: Answer) -> None:
        """One more answer that is to be shown."""
        if self._text is not None:
            self._empty = False
            self._write(self._text(answer))

    def _write(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
        else:
            print(text, end="", flush=True)


def _writer(wished: FileFormat | None, folder: Path) -> tuple[str, Callable[[Answer], str] | None]:
    """What a file of the format begins with, and what it holds of an answer."""
    match wished:
        case "json":
            return "", lambda answer: json_line(answer.result.model_dump_json()) + "\n"
        case "jsonl":
            return "", lambda answer: json_line("".join(jsonl_lines([answer.row])))
        case "csv":
            return csv_header(), lambda answer: csv_line(answer.row)
        case "m3u8":
            return M3U8_HEADER, lambda answer: m3u8_entry(answer.row, _absolute(answer), folder)
        case None:
            return "", None


def _absolute(answer: Answer) -> str:
    return answer.place if answer.file is None else os.path.abspath(answer.file)  # noqa: PTH100 (links stay links)


def _expression(text: str) -> where.Node:
    try:
        return where.parse(text)
    except where.WhereError as error:
        raise argparse.ArgumentTypeError(error.shown()) from error
