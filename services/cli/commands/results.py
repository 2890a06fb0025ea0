"""``tonestream results``: the workers' results, from Kafka."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator

from services.cli import exports, redacted_logs
from services.cli.answer import Answer
from services.cli.commands.topics import reader_of
from services.cli.output import complain, encodable
from services.cli.status import FAILED, OK
from services.library import where
from shared.bus.base import Reader
from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.messages import Status, TrackResult
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import salvaged_request_id
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``results``."""
    parser.add_argument("--follow", action="store_true", help="wait for more, until interrupted (or all are there)")
    parser.add_argument("--request-id", action="append", metavar="ID", help="only this request; may be repeated")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="longest wait of --follow")
    exports.add_arguments(parser, table="for people, the default on a terminal; elsewhere it is json")
    parser.set_defaults(run=_results)


def _results(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli import show
    from shared.bus.connect import kafka_bus

    redacted_logs.configure(settings, "text", client_noise=False)
    wishes = exports.wishes(options)
    if wishes.format is None and options.format is None and not sys.stdout.isatty():
        wishes = dataclasses.replace(wishes, format="json")
    wanted = set(options.request_id) if options.request_id else None
    bus = kafka_bus(settings, client_id="tonestream-results")
    failed = False
    left_out = 0
    try:
        with (
            reader_of(bus, Topics(settings.topic_prefix).name(Channel.RESULTS)) as reader,
            exports.Export(wishes, ends_by_interruption=options.follow) as export,
        ):
            for answer in _read(reader, wanted, options.follow, options.timeout):
                failed = failed or answer.result.status is not Status.OK
                if wishes.where is not None and not where.selects(wishes.where, answer.row):
                    left_out += 1
                    continue
                export.add(answer)
                if wishes.table:
                    print(encodable(show.line(answer.result)), flush=True)
    finally:
        bus.close()
        if left_out:
            complain(f"{left_out} results left out by --where")
    if wanted:
        complain(f"no result (yet) for {', '.join(sorted(wanted))}")
    return FAILED if wanted or (options.request_id and failed) else OK


def _read(reader: Reader, wanted: set[str] | None, follow: bool, timeout_s: float | None) -> Iterator[Answer]:
    """Results in order: those in ``wanted`` (found ones are removed from it) or all. Ends at the end of the topic, or
    never."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while wanted is None or wanted:
        for record in reader.poll(max_records=500, timeout_s=0.5):
            try:
                result = decode_message(Channel.RESULTS, record.value)
            except MalformedMessageError as error:
                whose = salvaged_request_id(record) or record.coordinates
                complain(f"the result of {whose} cannot be read: {error.reason}")
                continue
            assert isinstance(result, TrackResult)
            if wanted is None or result.request_id in wanted:
                if wanted is not None:
                    wanted.discard(result.request_id)
                yield Answer.of(result, record.timestamp_ms / 1000, result.track.source)
        if not follow and reader.at_end():
            return
        if deadline is not None and time.monotonic() > deadline:
            return
