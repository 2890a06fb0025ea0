"""``tonestream topics``: the topics on the broker, and what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

from services.cli import redacted_logs
from services.cli.output import complain
from services.cli.status import OK
from shared.bus.base import Bus, BusError, BusSecurityError, BusUnavailableError, Reader, TopicSpec
from shared.bus.topics import topic_specs
from shared.contracts.topics import Topics
from shared.settings import Settings

_HELP: Final = "`tonestream topics create` creates the topics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``topics``."""
    topics_commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = topics_commands.add_parser("create", help="create the topics that are missing")
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
    from shared.bus.connect import kafka_bus

    redacted_logs.configure(settings, "text", client_noise=False)
    wanted = topic_specs(Topics(settings.topic_prefix))
    bus = kafka_bus(settings, client_id="tonestream-topics")
    try:
        created = bus.create_topics(wanted)
        existing = bus.existing([spec.name for spec in wanted if spec.name not in created])
    finally:
        bus.close()
    for name in created:
        print(f"created {name}")
    shortcomings = [
        text for spec in wanted if spec.name in existing for text in _shortcomings(spec, existing[spec.name])
    ]
    for text in shortcomings:
        complain(text)
    if not created:
        print("all topics exist" + (", some with less than is wanted" if shortcomings else ""))
    # Everything works, although not at every message size. Services that wait for this command may start.
    return OK


def _shortcomings(wanted: TopicSpec, found: TopicSpec) -> Iterator[str]:
    """What an existing topic lacks, what follows from it, and the command that mends it."""
    if found.partitions < wanted.partitions:
        has = "1 partition" if found.partitions == 1 else f"{found.partitions} partitions"
        workers = "only 1 worker" if found.partitions == 1 else f"at most {found.partitions} workers"
        yield (
            f"{wanted.name} has {has}, not {wanted.partitions}: {workers} of a service can share it. To grow it:"
            f" kafka-topics.sh --bootstrap-server SERVER --alter --topic {wanted.name}"
            f" --partitions {wanted.partitions}"
        )
    most, needed = found.max_message_bytes, wanted.max_message_bytes
    if most is not None and needed is not None and most < needed:
        yield (
            f"{wanted.name} takes messages of {most} bytes, not {needed}: larger ones become dead letters, or are cut"
            f" where this is the topic of the dead letters. To raise it: kafka-configs.sh --bootstrap-server SERVER"
            f" --alter --topic {wanted.name} --add-config max.message.bytes={needed}"
        )
