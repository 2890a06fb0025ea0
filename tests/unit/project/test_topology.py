"""The topology says what the services do: their topics, and the types of the messages that mypy holds them to."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import pytest

from services.topology import TOPOLOGY, Node, service_class
from shared.contracts.codec import CHANNEL_OF
from shared.contracts.topics import Channel
from shared.runtime.service import Service


def messages_of(channels: tuple[Channel, ...]) -> set[type]:
    """The types of the messages on these topics. The retry topic carries requests."""
    homes = {Channel.REQUESTS if channel is Channel.REQUESTS_RETRY else channel for channel in channels}
    return {message for message, channel in CHANNEL_OF.items() if channel in homes}


def declared(service: type) -> tuple[set[type], set[type]]:
    """What ``service`` takes and makes, by the type arguments of its ``Service``."""
    for base in (base for cls in service.__mro__ for base in getattr(cls, "__orig_bases__", ())):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Service) and len(get_args(base)) == 2:
            taken, made = get_args(base)
            return set(get_args(taken) or (taken,)), set(get_args(made) or (made,))
    raise AssertionError(f"{service} declares no messages")


@pytest.mark.parametrize("node", TOPOLOGY, ids=lambda node: node.name)
def test_a_service_is_what_its_node_says(node: Node) -> None:
    service: Any = service_class(node)
    assert (service.stage, service.inputs) == (node.stage, node.reads)
    assert service.name.fget(service.__new__(service)) == node.name


@pytest.mark.parametrize("node", TOPOLOGY, ids=lambda node: node.name)
def test_a_service_takes_what_its_topics_carry_and_makes_what_they_take(node: Node) -> None:
    taken, made = declared(service_class(node))
    assert taken == messages_of(node.reads)
    assert made <= messages_of(node.writes)
    written = {CHANNEL_OF[message] for message in made}
    assert written == set(node.writes) - {Channel.REQUESTS_RETRY}


def test_every_topic_between_services_has_a_writer_and_a_reader() -> None:
    written = {channel for node in TOPOLOGY for channel in node.writes}
    read = {channel for node in TOPOLOGY for channel in node.reads}
    assert set(Channel) - written == {Channel.REQUESTS, Channel.DEAD_LETTERS}
    assert set(Channel) - read == {Channel.RESULTS, Channel.DEAD_LETTERS}
