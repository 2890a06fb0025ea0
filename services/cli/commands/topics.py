"""``tonestream topics``: the topics on the broker, and what is missing."""

from __future__ import annotations

import argparse
import time
from typing import Final

from services.cli import redacted_logs
from services.cli.output import complain
from services.cli.status import OK
from shared.bus.base import Bus, BusError, BusSecurityError, BusUnavailableError, Reader
from shared.bus.topics import shortcomings, topic_specs
from shared.contracts.topics import PARTITIONS, Topics
from shared.runtime.redaction import Redactor
from shared.settings import Settings

_HELP: Final = "`tonestream topics create` creates the topics"
#: More than workers of one service are of use, and each costs every broker files.
_MOST_PARTITIONS: Final = 1000
#: Between two attempts to reach a broker, seconds.
_PAUSE_S: Final = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``topics``."""
    topics_commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = topics_commands.add_parser("create", help="create the topics that are missing")
    create.add_argument(
        "--partitions",
        type=_partitions,
        metavar="N",
        help=f"partitions of each topic, the most workers of one service; by default {PARTITIONS} of a new one."
        " Existing topics with fewer grow, while the services run",
    )
    create.add_argument(
        "--wait", action="store_true", help="where no broker answers, wait for one, however long it takes"
    )
    create.set_defaults(run=_create)


def reader_of(bus: Bus, topic: str) -> Reader:
    """A reader of one topic from its beginning. Raises BusError, with the command that helps where there is none."""
    try:
        return bus.reader([topic])
    except (BusUnavailableError, BusSecurityError):
        raise
    except BusError as error:
        raise BusError(f"{error}. {_HELP}") from error


def require_topic(bus: Bus, topic: str) -> None:
    """Raises BusError, with the command that helps, if there is no such topic."""
    if not bus.existing([topic]):
        raise BusError(f"there is no topic {topic!r}. {_HELP}")


def _create(options: argparse.Namespace, settings: Settings) -> int:
    redacted_logs.configure(settings, "text", client_noise=False)
    complained = False
    while True:
        try:
            return _create_at_once(options, settings)
        except BusUnavailableError as error:
            if not options.wait:
                raise
            if not complained:
                complain(Redactor(settings.secrets())(f"waiting for Kafka: {error}"))
            complained = True
            time.sleep(_PAUSE_S)


def _create_at_once(options: argparse.Namespace, settings: Settings) -> int:
    from shared.bus.connect import kafka_bus

    wanted = topic_specs(Topics(settings.topic_prefix), options.partitions or PARTITIONS)
    bus = kafka_bus(settings, client_id="tonestream-topics")
    try:
        created = bus.create_topics(wanted)
        existing = bus.existing([spec.name for spec in wanted])
        # A client may be allowed to create topics, and not to describe them.
        unseen = [spec.name for spec in wanted if spec.name not in {*existing, *created}]
        wanted = [spec for spec in wanted if spec.name in existing]
        small = {spec.name: spec.partitions for spec in wanted if existing[spec.name].partitions < spec.partitions}
        if options.partitions is not None:
            bus.grow_topics(small)
            existing |= bus.existing(list(small))
    finally:
        bus.close()
    for name in created:
        print(f"created {name}")
    if options.partitions is not None:
        for name, partitions in small.items():
            print(f"{name} has {partitions} partitions now")
        for name in unseen:
            complain(f"{name} may not be described by this client; how many partitions it has is not known")
        for spec in wanted:
            if existing[spec.name].partitions > spec.partitions:
                complain(f"{spec.name} has {existing[spec.name].partitions} partitions, and Kafka takes none away")
    faults = [text for spec in wanted for text in shortcomings(spec, existing[spec.name])]
    for text in faults:
        complain(text)
    if not created:
        print("all topics exist" + (", some with less than is wanted" if faults else ""))
    # Everything works, although not at every message size. Services that wait for this command may start.
    return OK


def _partitions(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _MOST_PARTITIONS):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {_MOST_PARTITIONS} is needed")
    return int(text)
