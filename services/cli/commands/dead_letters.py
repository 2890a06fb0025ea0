"""``tonestream dead-letters``: inspect the records that no worker could handle, and replay them."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from services.cli import redacted_logs
from services.cli.commands.topics import reader_of
from services.cli.output import complain
from services.cli.status import FAILED, OK, UsageError
from services.topology import ENTRANCES, READ_BY_SERVICES, SERVICE_NAMES
from shared.bus.base import Bus, BusError, BusUnavailableError, Publisher, Reader
from shared.contracts.errors import DependencyError
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import DeadLetter
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.state.replays import Replays
    from shared.state.requests import Requests

#: Records of one poll: a dead letter can have several megabytes.
_BATCH: Final = 50
#: Dead letters per look-up of replay marks.
_MARKS: Final = 500
_ID: Final = re.compile(r"\d{1,9}:\d{1,18}")
#: At least as long as the dead letters themselves are kept.
_REMEMBERED_S: Final = 31 * 24 * 3600
_SHOWN_BYTES: Final = 4096

_REPLAY_HELP: Final = """\
Publishes the original key, value and headers to the original topic, with a header that names the dead letter.

A request is forgotten first (that it was made, its votes, its answer), so that it is handled again: it gets one
further result, which is what you asked for. A later record of a request that is answered already is not replayed: the
answer stands, and the audio it was made of is removed. Ask anew instead; the output says where the request stands.

The dead letters are a log: replayed ones stay listed, marked as such, and --all leaves them out. The mark follows the
publishing, so after a crash in between --all takes them once more.
"""


class UnknownDeadLetterError(BusError):
    """There is no dead letter of that ID (any more)."""


class NotReadInTimeError(BusUnavailableError):
    """The dead letters could not be read to their end in the time allowed."""


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


def read_letters(reader: Reader, timeout_s: float) -> Iterator[list[DeadLetter]]:
    """All dead letters from the beginning to the current end, some at a time. Raises NotReadInTimeError."""
    deadline = time.monotonic() + timeout_s
    read = 0
    while True:
        letters = [DeadLetter.of(record) for record in reader.poll(_BATCH, timeout_s=0.2)]
        read += len(letters)
        if letters:
            yield letters
        elif reader.at_end():
            return
        if time.monotonic() > deadline:
            raise NotReadInTimeError(
                f"the dead letters were not read to their end in {timeout_s:g} s ({read} read); --timeout allows more"
            )


def find_letters(reader: Reader, wanted: Sequence[str], timeout_s: float) -> list[DeadLetter]:
    """The dead letters with these IDs, in this order. Raises UnknownDeadLetterError, NotReadInTimeError."""
    found: dict[str, DeadLetter] = {}
    for letters in read_letters(reader, timeout_s):
        found.update((letter.id, letter) for letter in letters if letter.id in wanted)
        if len(found) == len(set(wanted)):
            break
    if missing := [letter_id for letter_id in dict.fromkeys(wanted) if letter_id not in found]:
        raise UnknownDeadLetterError(
            f"there is no dead letter {', '.join(missing)}; see `tonestream dead-letters list`"
        )
    return [found[letter_id] for letter_id in dict.fromkeys(wanted)]


def _bus(settings: Settings, stack: ExitStack) -> Bus:
    from shared.bus.connect import kafka_bus

    bus = kafka_bus(settings, client_id="tonestream-dead-letters")
    stack.callback(bus.close)
    return bus


def _reader(bus: Bus, topics: Topics, stack: ExitStack) -> Reader:
    return stack.enter_context(reader_of(bus, topics.name(Channel.DEAD_LETTERS)))


def _replays(settings: Settings) -> Replays:
    from shared.state.connection import connect
    from shared.state.keys import Keys
    from shared.state.replays import Replays

    return Replays(connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix), _REMEMBERED_S)


def _requests(settings: Settings) -> Requests:
    from shared.state.connection import connect
    from shared.state.keys import Keys
    from shared.state.requests import Requests

    client = connect(settings.redis_url.get_secret_value())
    ttl_s, deadline_s = settings.state_ttl_s, settings.result_deadline_s
    return Requests.open(client, Keys(settings.redis_prefix), "dead-letters", ttl_s, deadline_s)


# List and show


def _list(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    # A summary of each without its value, because all values together may not fit into memory.
    found: deque[dict[str, Any]] = deque(maxlen=options.limit)
    with ExitStack() as stack:
        reader = _reader(_bus(settings, stack), Topics(settings.topic_prefix), stack)
        for letters in read_letters(reader, options.timeout):
            found += [_summary(letter) for letter in letters if options.service in (None, letter.service)]
    listed = sorted(found, key=lambda one: one["time"])
    _tell_replayed(listed, _replays(settings))
    for one in listed:
        print(json.dumps(one) if options.json else _line(one), flush=True)
    if not listed and not options.json:
        print("no dead letters")
    return OK


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "time": datetime.fromtimestamp(letter.record.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "service": letter.service,
        "exception": letter.exception,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "attempts": letter.attempts,
        "request_id": letter.request_id,
        "bytes": len(letter.record.value),
        "replay_of": list(letter.replay_of),
        "cut": letter.cut or None,
    }


def _tell_replayed(listed: Sequence[dict[str, Any]], replays: Replays) -> None:
    """Add ``replayed`` to each; null where Redis cannot be asked."""
    for one in listed:
        one["replayed"] = None
    try:
        for start in range(0, len(listed), _MARKS):
            some = listed[start : start + _MARKS]
            marked = replays.marked([one["id"] for one in some])
            for one in some:
                one["replayed"] = one["id"] in marked
    except DependencyError as error:
        complain(f"which of them were replayed is not known: {error}")


def _line(one: dict[str, Any]) -> str:
    notes = [name for name in ("replayed", "cut") if one[name]]
    if one["replay_of"]:
        notes.append(f"replay of {' of '.join(reversed(one['replay_of']))}")
    said = one["message"] if len(one["message"]) <= 100 else f"{one['message'][:99]}…"
    stood = f"{one['topic']}/{one['partition']}@{one['offset']}"
    columns = [one["id"], one["time"], one["service"], stood, one["request_id"] or "-", f"{one['exception']}: {said}"]
    return printable("  ".join(columns) + (f"  [{'; '.join(notes)}]" if notes else ""))


def _show(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    with ExitStack() as stack:
        reader = _reader(_bus(settings, stack), Topics(settings.topic_prefix), stack)
        (letter,) = find_letters(reader, [options.id], options.timeout)
    summary = _summary(letter)
    _tell_replayed([summary], _replays(settings))
    for name, value in summary.items():
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


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A dead letter that is not replayed, and why."""

    letter: DeadLetter
    reason: str


def _replay(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    if bool(options.id) == options.all:
        raise UsageError("name the dead letters to replay, or give --all")
    if options.service and not options.all:
        raise UsageError("--service goes with --all")
    topics = Topics(settings.topic_prefix)
    replays, requests = _replays(settings), _requests(settings)
    replayed = refused = 0
    with ExitStack() as stack:
        bus = _bus(settings, stack)
        reader = _reader(bus, topics, stack)
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


def replay_letters(
    letters: Sequence[DeadLetter], topics: Topics, requests: Requests, replays: Replays, publisher: Publisher
) -> tuple[list[DeadLetter], list[_Refusal]]:
    """Publish the original records of dead letters; returns the replayed ones, and the others with the reason.

    The order is: reopen the requests in Redis, publish, mark as replayed. A crash in between replays too much rather
    than too little. Raises DependencyError and the errors of ``Publisher.publish``.
    """
    sent: list[DeadLetter] = []
    refusals: list[_Refusal] = []
    for letter in letters:
        reason = _obstacle(letter, topics, requests)
        if reason is None:
            sent.append(letter)
        else:
            refusals.append(_Refusal(letter, reason))
    entrances = [letter for letter in sent if topics.channel(letter.topic) in ENTRANCES]
    requests.reopen(letter.request_id for letter in entrances if letter.request_id)
    if sent:
        publisher.publish([letter.replayed() for letter in sent])
        replays.mark(letter.id for letter in sent)
    return sent, refusals


def _obstacle(letter: DeadLetter, topics: Topics, requests: Requests) -> str | None:
    """Why a letter cannot be replayed; None if it can."""
    try:
        channel = topics.channel(letter.topic)
    except ValueError:
        channel = None
    if channel not in READ_BY_SERVICES:
        known = repr(letter.topic) if letter.topic else "none"
        return f"its original topic is unknown: {known} is no topic that workers of {topics.prefix!r} read"
    if letter.first_offset:
        return "it is a batch of records that cannot be read; whoever wrote it has to send them again"
    if letter.cut:
        return f"it holds only a part of its record, which had {letter.cut} and stood at {letter.stood_at}"
    if letter.request_id is None:
        return None
    claims = requests.claims([letter.request_id])[letter.request_id]
    if channel in ENTRANCES:
        if claims.waiting and claims.answered_by is None:
            return f"request {letter.request_id} is still under way; try again when it is answered"
        return None
    if claims.answered_by is not None:
        entered = f"; the request stands at {claims.accepted_by}" if claims.accepted_by else ""
        return (
            f"request {letter.request_id} is answered already, and a part of it changes no answer: submit the track"
            f" again{entered}"
        )
    return None
