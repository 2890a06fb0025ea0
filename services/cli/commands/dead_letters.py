"""``tonestream dead-letters``: inspect the records that no worker could handle, and replay them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from services.cli import redacted_logs
from services.cli.commands.topics import reader_of
from services.cli.output import complain
from services.cli.status import FAILED, OK, UsageError
from services.dead_letters import (
    DeadLetterSummary,
    find_letters,
    newest_letters,
    open_replays,
    open_requests,
    read_letters,
    replay_letters,
    with_marks,
)
from services.topology import SERVICE_NAMES
from shared.bus.base import Bus, Reader
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import DeadLetter
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.state.replays import Replays

_ID: Final = re.compile(r"\d{1,9}:\d{1,18}")
_SHOWN_BYTES: Final = 4096

_REPLAY_HELP: Final = """\
Publishes the original key, value and headers to the original topic, with a header that names the dead letter.

A request is forgotten first (that it was made, its votes, its answer), so that it is handled again: it gets one
further result, which is what you asked for. A later record of a request that is answered already is not replayed: the
answer stands, and the audio it was made of is removed. Ask anew instead; the output says where the request stands.

The dead letters are a log: replayed ones stay listed, marked as such, and --all leaves them out. The mark follows the
publishing, so after a crash in between --all takes them once more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``dead-letters``."""
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")

    listed = subcommands.add_parser("list", help="the dead letters, oldest first")
    listed.add_argument("--limit", type=_positive, metavar="N", help="only the newest N")
    listed.add_argument("--service", choices=SERVICE_NAMES, metavar="SERVICE", help="only those of this service")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    listed.set_defaults(run=_list)

    show = subcommands.add_parser("show", help="one dead letter with its stack trace, headers and value")
    show.add_argument("id", type=_letter_id, metavar="ID", help="partition:offset, as `list` shows it")
    show.set_defaults(run=_show)

    replay = subcommands.add_parser(
        "replay",
        help="publish original records once more",
        description=_REPLAY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("id", type=_letter_id, nargs="*", metavar="ID", help="partition:offset, as `list` shows it")
    replay.add_argument("--all", action="store_true", help="all that were not replayed yet")
    replay.add_argument("--service", choices=SERVICE_NAMES, metavar="SERVICE", help="with --all: only of this service")
    replay.set_defaults(run=_replay)

    for one in (listed, show, replay):
        one.add_argument(
            "--timeout", type=float, default=60.0, metavar="SECONDS", help="longest time for reading (default 60)"
        )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


def _letter_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no ID of a dead letter; they look like 3:17 (partition:offset)")
    partition, offset = text.split(":")
    return f"{int(partition)}:{int(offset)}"


# Reading


def _bus(settings: Settings, stack: ExitStack) -> Bus:
    from shared.bus.connect import kafka_bus

    bus = kafka_bus(settings, client_id="tonestream-dead-letters")
    stack.callback(bus.close)
    return bus


def _reader(bus: Bus, topics: Topics, stack: ExitStack) -> Reader:
    return stack.enter_context(reader_of(bus, topics.name(Channel.DEAD_LETTERS)))


# List and show


def _list(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    with ExitStack() as stack:
        reader = _reader(_bus(settings, stack), Topics(settings.topic_prefix), stack)
        found = newest_letters(reader, options.limit, options.service, options.timeout)
    listed = _marked(found, settings)
    for one in listed:
        print(json.dumps(one.model_dump()) if options.json else _line(one), flush=True)
    if not listed and not options.json:
        print("no dead letters")
    return OK


def _marked(listed: Sequence[DeadLetterSummary], settings: Settings) -> list[DeadLetterSummary]:
    """With ``replayed``; None where Redis cannot be asked."""
    found, fault = with_marks(listed, open_replays(settings))
    if fault is not None:
        complain(f"which of them were replayed is not known: {fault}")
    return found


def _line(one: DeadLetterSummary) -> str:
    notes = [name for name, holds in (("replayed", one.replayed), ("cut", one.cut)) if holds]
    if one.replay_of:
        notes.append(f"replay of {' of '.join(reversed(one.replay_of))}")
    said = one.message if len(one.message) <= 100 else f"{one.message[:99]}…"
    stood = f"{one.topic}/{one.partition}@{one.offset}"
    columns = [one.id, one.time, one.service, stood, one.request_id or "-", f"{one.exception}: {said}"]
    return printable("  ".join(columns) + (f"  [{'; '.join(notes)}]" if notes else ""))


def _show(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    with ExitStack() as stack:
        reader = _reader(_bus(settings, stack), Topics(settings.topic_prefix), stack)
        (letter,) = find_letters(reader, [options.id], options.timeout)
    (summary,) = _marked([DeadLetterSummary.of(letter)], settings)
    for name, value in summary.model_dump().items():
        print(f"{name}: {printable('-' if value in (None, '', []) else str(value))}")
    print(f"key: {_bytes(letter.record.key)}")
    for header, content in letter.original_headers():
        print(f"header {printable(header)}: {_bytes(content)}")
    print("stacktrace:")
    for line in letter.stacktrace.splitlines():
        print(f"  {printable(line)}")
    print(f"value: {_bytes(letter.record.value)}")
    return OK


def _bytes(content: bytes) -> str:
    """Text as text, anything else as a Python bytes literal, truncated if long."""
    more = f"... ({len(content)} bytes)" if len(content) > _SHOWN_BYTES else ""
    shown = content[:_SHOWN_BYTES]
    try:
        return printable(shown.decode("utf-8", "strict" if not more else "ignore")) + more
    except UnicodeDecodeError:
        return repr(shown) + more


def printable(text: str) -> str:
    """``text`` with control characters escaped, so that a terminal shows them and does not execute them."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


# Replay


def _replay(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    if bool(options.id) == options.all:
        raise UsageError("name the dead letters to replay, or give --all")
    if options.service and not options.all:
        raise UsageError("--service goes with --all")
    topics = Topics(settings.topic_prefix)
    replayed = refused = 0
    with ExitStack() as stack:
        bus = _bus(settings, stack)
        reader = _reader(bus, topics, stack)
        replays, requests = open_replays(settings), open_requests(settings)
        publisher = stack.enter_context(bus.publisher())
        batches: Iterable[list[DeadLetter]]
        if options.all:
            batches = _not_yet_replayed(read_letters(reader, options.timeout), options.service, replays)
        else:
            batches = [[letter] for letter in find_letters(reader, options.id, options.timeout)]
        for letters in batches:
            sent, refusals = replay_letters(letters, topics, requests, replays, publisher)
            for letter in sent:
                print(f"replayed {letter.id} to {letter.topic}{_of_request(letter)}", flush=True)
            for refusal in refusals:
                complain(f"{refusal.letter.id} is not replayed: {printable(refusal.reason)}")
            replayed, refused = replayed + len(sent), refused + len(refusals)
    if options.all:
        print(f"{replayed} replayed, {refused} not")
    return FAILED if refused and not options.all else OK


def _of_request(letter: DeadLetter) -> str:
    return f" (request {letter.request_id})" if letter.request_id else ""


def _not_yet_replayed(
    batches: Iterable[list[DeadLetter]], service: str | None, replays: Replays
) -> Iterator[list[DeadLetter]]:
    """The dead letters of --all. A record that fails again meanwhile is not replayed twice."""
    sent: set[str] = set()
    for letters in batches:
        marked = replays.marked([letter.id for letter in letters])
        chosen = [
            letter
            for letter in letters
            if letter.id not in marked and service in (None, letter.service) and not sent.intersection(letter.replay_of)
        ]
        sent.update(letter.id for letter in chosen)
        if chosen:
            yield chosen
