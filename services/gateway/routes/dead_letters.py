"""Records that no worker could handle: a list, one of them, and sending one again."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from services.dead_letters import (
    DeadLetterSummary,
    NotReadInTimeError,
    UnknownDeadLetterError,
    find_letters,
    newest_letters,
    open_replays,
    open_requests,
    replay_letters,
    with_marks,
)
from services.gateway.gateway import Gateway
from services.gateway.problems import GatewayCode, Problem, responses, unavailable
from services.gateway.routes import LivingGateway
from services.topology import SERVICE_NAMES
from shared.bus.base import BackPressureError, BusError, MessageTooLargeError, Reader
from shared.contracts.topics import Channel
from shared.runtime.dead_letters import DeadLetter

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])

_MOST: Final = 1000
#: The longest time for reading the topic, in seconds. The command line allows more.
_READ_S: Final = 15.0
#: The most bytes of a key, a header or a value that are shown.
_SHOWN_BYTES: Final = 64 * 1024

Partition = Annotated[int, Path(ge=0, lt=10**9, description="partition of the topic of dead letters")]
Offset = Annotated[int, Path(ge=0, lt=10**18, description="offset in that partition")]


class DeadLetterList(BaseModel):
    """The newest dead letters, the oldest of them first."""

    dead_letters: list[DeadLetterSummary]


class Content(BaseModel):
    """Bytes: as text where they are UTF-8, else in base64. ``bytes`` is the whole size; more than 64 KiB are cut."""

    encoding: Literal["utf-8", "base64"]
    content: str
    bytes: int


class RecordHeader(BaseModel):
    """A header of a record."""

    name: str
    value: Content


class DeadLetterDetail(DeadLetterSummary):
    """A dead letter with its stack trace and the original record."""

    stacktrace: str
    key: Content
    headers: list[RecordHeader]
    value: Content


class Replayed(BaseModel):
    """The original record is on its topic once more."""

    id: str
    topic: str
    request_id: str | None


@router.get("", summary="The newest dead letters", responses=responses())
def list_all(
    gateway: LivingGateway,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = 100,
    service: Annotated[str | None, Query(description=f"only those of one of {', '.join(SERVICE_NAMES)}")] = None,
) -> DeadLetterList:
    """As `tonestream dead-letters list` shows them. Only with a pipeline on Kafka."""
    with _reader(gateway) as reader:
        listed = newest_letters(reader, limit, service, _READ_S)
    return DeadLetterList(dead_letters=_marked(gateway, listed))


@router.get("/{partition}:{offset}", summary="One dead letter", responses=responses(GatewayCode.NOT_FOUND))
def show(gateway: LivingGateway, partition: Partition, offset: Offset) -> DeadLetterDetail:
    """With its stack trace and the original record."""
    letter = _letter(gateway, partition, offset)
    (summary,) = _marked(gateway, [DeadLetterSummary.of(letter)])
    return DeadLetterDetail(
        **summary.model_dump(),
        stacktrace=letter.stacktrace,
        key=_content(letter.record.key),
        headers=[RecordHeader(name=name, value=_content(value)) for name, value in letter.original_headers()],
        value=_content(letter.record.value),
    )


@router.post(
    "/{partition}:{offset}/replay",
    status_code=202,
    summary="Publish the original record once more",
    responses=responses(GatewayCode.NOT_FOUND, GatewayCode.CONFLICT),
)
def replay(gateway: LivingGateway, partition: Partition, offset: Offset) -> Replayed:
    """A request is forgotten first, so that it is handled again and gets one further result. A later record of a
    request that is answered already is refused: submit the track again instead."""
    letter = _letter(gateway, partition, offset)
    requests, replays = open_requests(gateway.settings), open_replays(gateway.settings)
    try:
        with gateway.bus.publisher() as publisher:
            _, refusals = replay_letters([letter], gateway.topics, requests, replays, publisher)
    except (MessageTooLargeError, BackPressureError) as error:
        raise Problem(GatewayCode.CONFLICT, f"the record cannot be published: {error}") from None
    except BusError as error:
        raise unavailable(str(error)) from error
    for refusal in refusals:
        raise Problem(GatewayCode.CONFLICT, refusal.reason)
    return Replayed(id=letter.id, topic=letter.topic, request_id=letter.request_id)


def _letter(gateway: Gateway, partition: int, offset: int) -> DeadLetter:
    """Raises Problem: not_found, unavailable."""
    letter_id = f"{partition}:{offset}"
    with _reader(gateway, (partition, offset)) as reader:
        try:
            (letter,) = find_letters(reader, [letter_id], _READ_S)
        except UnknownDeadLetterError:
            raise Problem(GatewayCode.NOT_FOUND, f"there is no dead letter {letter_id}") from None
    return letter


@contextlib.contextmanager
def _reader(gateway: Gateway, at: tuple[int, int] | None = None) -> Iterator[Reader]:
    """A reader of all dead letters, or of one partition from an offset on. Raises Problem (unavailable)."""
    if gateway.mode == "embedded":
        raise unavailable("a pipeline inside this process keeps no dead letters; its log says what failed")
    topic = gateway.topics.name(Channel.DEAD_LETTERS)
    positions = None if at is None else {(topic, at[0]): at[1]}
    try:
        with gateway.bus.reader([topic], from_beginning=at is None, positions=positions) as reader:
            yield reader
    except UnknownDeadLetterError:
        raise
    except NotReadInTimeError:
        raise unavailable(
            f"the dead letters could not be read within {_READ_S:g} s; `tonestream dead-letters` takes more time"
        ) from None
    except BusError as error:
        raise unavailable(str(error)) from error


def _marked(gateway: Gateway, listed: list[DeadLetterSummary]) -> list[DeadLetterSummary]:
    return with_marks(listed, open_replays(gateway.settings))[0]


def _content(content: bytes) -> Content:
    shown = content[:_SHOWN_BYTES]
    try:
        text = shown.decode("utf-8", "strict" if len(shown) == len(content) else "ignore")
        return Content(encoding="utf-8", content=text, bytes=len(content))
    except UnicodeDecodeError:
        return Content(encoding="base64", content=base64.b64encode(shown).decode("ascii"), bytes=len(content))
