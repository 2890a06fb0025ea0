"""``tonestream submit``: requests for the workers, published to Kafka."""

from __future__ import annotations

import argparse
import codecs
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.cli import redacted_logs
from services.cli.commands.classify import tell
from services.cli.commands.topics import require_topic
from services.cli.inputs import Input, expand
from services.cli.output import complain, encodable, printable
from services.cli.requests import remote_request, shown_source
from services.cli.scan import LeftOut, reason
from services.cli.status import FAILED, OK, WRONG_USAGE, UsageError
from shared.bus.base import Publisher
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import Channel, Topics
from shared.runtime import traces
from shared.runtime.envelope import outgoing
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.blobs.store import BlobStore

#: Requests per published batch.
_AT_ONCE: Final = 100
#: Byte order marks of texts that are not in UTF-8, as Windows writes them.
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One input, and its line of standard input, or None for an argument."""

    input: Input
    line: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``submit``."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="URL|SPOTIFY_ID|PATH",
        help="`-` reads them from standard input, one a line; an M3U playlist will do",
    )
    parser.add_argument("--force", action="store_true", help="compute anew what is cached")
    parser.add_argument(
        "--model", metavar="NAME", help="genre model by folder name or model ID (default: the workers')"
    )
    parser.add_argument("--embedding", action="store_true", help="with 200 numbers a track, to compare tracks by")
    parser.set_defaults(run=_submit)


def _submit(options: argparse.Namespace, settings: Settings) -> int:
    from shared.bus.connect import kafka_bus

    redacted_logs.configure(settings, "text", client_noise=False)
    left_out = LeftOut()
    wanted = list(_wanted(options.inputs, left_out))
    tell(left_out)
    if not wanted:
        complain("nothing to submit")
        return OK
    maker = _Maker(settings, options)
    refused: list[_Wanted] = []

    def refuse(one: _Wanted, why: str) -> None:
        refused.append(one)
        complain(f"{_place(one)}: {why}")

    # Check first what needs neither Kafka nor the blob store, so that mistakes show at once.
    good = [one for one in wanted if _passes(maker.check, one, refuse)]
    if good:
        topics = Topics(settings.topic_prefix)
        bus = kafka_bus(settings, client_id="tonestream-submit")
        try:
            require_topic(bus, topics.name(Channel.REQUESTS))
            with bus.publisher() as publisher:
                for requests in _batches(_made(good, maker, refuse)):
                    _publish(publisher, topics, requests)
        finally:
            bus.close()
    if refused and len(wanted) > 1:
        complain(f"{len(wanted) - len(refused)} of {len(wanted)} submitted")
    if not refused:
        return OK
    return WRONG_USAGE if len(refused) == len(wanted) and all(one.line is None for one in wanted) else FAILED


def _publish(publisher: Publisher, topics: Topics, requests: list[TrackRequest]) -> None:
    with traces.sending([outgoing(topics, request) for request in requests]) as records:
        publisher.publish(records)
    for request in requests:
        print(f"{request.request_id}\t{encodable(printable(request.shown_source))}", flush=True)


class _Maker:
    """Makes requests of inputs."""

    def __init__(self, settings: Settings, options: argparse.Namespace) -> None:
        self._settings = settings
        self._wishes = {"force": options.force, "model": options.model, "embedding": options.embedding}
        self._blobs: BlobStore | None = None

    def check(self, given: Input) -> None:
        """Raises UsageError for an input that is no track."""
        stored = "blob_url" in self._settings.model_fields_set
        if given.kind == "file" and not stored and not self._is_within_reach(given.path):
            raise UsageError(
                "it is no URL and no Spotify track. A local file can be submitted where this machine and the workers"
                " share a folder (TONESTREAM_LOCAL_FILES) or a blob store (TONESTREAM_BLOB_URL); `tonestream classify`"
                " needs neither"
            )
        if given.fault is not None:
            raise UsageError(given.fault)
        if given.kind != "file":
            remote_request(given, "check", **self._wishes)
        elif not given.path.is_file():
            raise UsageError("there is no regular file of that name")

    def make(self, given: Input) -> TrackRequest:
        """The request. A file is passed by its path if ingestion may read it, else copied to the blob store.

        Raises UsageError, DependencyError.
        """
        from shared.blobs.store import UPLOADS, BlobStore

        request_id = uuid.uuid4().hex
        if given.kind != "file":
            return remote_request(given, request_id, **self._wishes)
        try:
            with given.path.open("rb"):  # errors of the file before errors of the store
                pass
        except OSError as error:
            raise UsageError(f"the file cannot be read: {reason(given.path, error)}") from error
        if self._is_within_reach(given.path):
            named = remote_request(Input("url", _whole(given.path).as_uri()), request_id, **self._wishes)
            return named.model_copy(update={"source": shown_source(given)})
        if self._blobs is None:
            self._blobs = BlobStore.of(self._settings)
        reference = self._blobs.put(given.path, f"{UPLOADS}/{request_id}")
        upload = remote_request(Input("url", reference), request_id, **self._wishes)
        return upload.model_copy(update={"source": shown_source(given)})

    def _is_within_reach(self, path: Path) -> bool:
        """Whether ingestion can read the file in place."""
        folder = self._settings.local_files
        return folder is not None and _whole(path).is_relative_to(folder.absolute())


def _whole(path: Path) -> Path:
    """The absolute path without ``..``. Links stay; the reader follows them."""
    return Path(os.path.normpath(path.absolute()))


def _made(
    wanted: Iterable[_Wanted], maker: _Maker, refuse: Callable[[_Wanted, str], None]
) -> Iterator[tuple[TrackRequest, bool]]:
    """The requests, each with whether it must be published at once: a copied file must not wait for its request."""
    for one in wanted:
        try:
            yield maker.make(one.input), one.input.kind == "file"
        except UsageError as error:
            refuse(one, str(error))


def _batches(requests: Iterable[tuple[TrackRequest, bool]]) -> Iterator[list[TrackRequest]]:
    batch: list[TrackRequest] = []
    for request, at_once in requests:
        batch.append(request)
        if at_once or len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _passes(check: Callable[[Input], None], one: _Wanted, refuse: Callable[[_Wanted, str], None]) -> bool:
    try:
        check(one.input)
    except UsageError as error:
        refuse(one, str(error))
        return False
    return True


def _place(one: _Wanted) -> str:
    """A description of the input for error messages."""
    shown = shown_source(one.input)
    shown = shown if len(shown) <= 200 else f"{shown[:199]}…"
    return f"{shown!r}" if one.line is None else f"line {one.line}: {shown!r}"


def _wanted(arguments: Iterable[str], left_out: LeftOut) -> Iterator[_Wanted]:
    for argument in arguments:
        given = _lines(sys.stdin.buffer.read()) if argument == "-" else ((None, argument),)
        for line, text in given:
            for one in expand([text], left_out):
                yield _Wanted(one, line)


def _lines(content: bytes) -> Iterator[tuple[int, str]]:
    """The lines of a list or an M3U playlist with their numbers, without comments and empty lines.

    File names are bytes, so no encoding is an error.
    """
    if content.startswith(_UTF_16):
        content = content.decode("utf-16", "replace").encode()
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        text = os.fsdecode(line)
        # A name may begin with # or end with a space, if there is such a file.
        if not os.path.lexists(text):
            text = text.strip()
        if text and (not text.startswith("#") or os.path.lexists(text)):
            yield number, text
