"""What a service is to the runtime: topics it reads, a typed handler, and its answer when it has to give up.

``In`` are the messages of the topics that a service reads, ``Out`` those it publishes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Event
from typing import Any, ClassVar, Final, Generic, TypeVar

from shared.bus.base import Committed, FencedError, Record
from shared.contracts.codec import Message
from shared.contracts.errors import AbandonedError, DependencyError, HeldError, TonestreamError
from shared.contracts.messages import Stage
from shared.contracts.topics import Channel
from shared.runtime import traces
from shared.runtime.logs import about
from shared.runtime.retries import Retry
from shared.settings import Settings

In = TypeVar("In", bound=Message)
Out = TypeVar("Out", bound=Message)
Out_co = TypeVar("Out_co", bound=Message, covariant=True)

#: Bytes of a record's key that a log line shows: a client's may have megabytes.
_LONGEST_KEY: Final = 200


@dataclass(frozen=True, slots=True)
class Delivery(Generic[In]):
    """A valid message and the record it came in.

    ``abandoned`` is set when nobody waits for the outcome any more; a handler that takes long should look at it now and
    then. A handler calls ``queueing`` while it waits in a queue, so that it does not count as stuck.
    """

    record: Record
    message: In
    abandoned: Event = field(default_factory=Event, compare=False)
    queueing: Callable[[], None] = field(default=lambda: None, compare=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """The request a record belongs to: what is needed to answer it, valid or not."""

    request_id: str
    track_key: str
    record: Record


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Out_co]):
    """What a handler made of one delivery: messages to publish with its offset, as one unit.

    ``after_commit`` runs once the unit is committed, best effort: clean-up only, nothing an answer depends on.
    ``retry`` is the delivery's own request, to be tried again later: it leaves in the same unit.
    """

    messages: tuple[Out_co, ...] = ()
    after_commit: tuple[Callable[[], None], ...] = field(default=(), compare=False)
    retry: Retry | None = None


#: A delivery ends in an outcome or in the fault that stood in its way.
Handled = Outcome[Out_co] | Exception


class Service(ABC, Generic[In, Out]):
    """A handler with its adapters. Handling is idempotent: a batch may be redone from the start at any time."""

    stage: ClassVar[Stage]
    inputs: ClassVar[tuple[Channel, ...]]
    #: Most records of one poll: bounds the work between two commits.
    batch_records: ClassVar[int]
    #: Whether a record that is no message is somebody's mistake to be answered (the entry), not a defect to be kept.
    answers_invalid_input: ClassVar[bool] = False
    #: Whether its deliveries are independent and wait a lot: then each is settled on its own (runtime.streaming).
    streams: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Names its consumer group, its metrics and its threads."""
        return self.stage.value

    def window(self, settings: Settings) -> int:
        """Most records in hand at once."""
        return settings.batch_records or self.batch_records

    def wait_s(self, record: Record) -> float:
        """Seconds until a record may be handled. A streaming loop lets others pass it meanwhile."""
        return 0.0

    def start(self) -> None:
        """Load and warm up what the first batch needs."""

    def away(self) -> str | None:
        """Why a server that this service needs besides Kafka and Redis gives no answer, None if all do; asked before
        the first batch until there is one. Raises DependencyError if only a change of settings would bring one."""
        return None

    def ready(self) -> bool:
        """Whether this is a time to take more work; asked before every poll. The loop waits, and stays in its group."""
        return True

    def held(self, message: In) -> HeldError | None:
        """What this message waits for, while others do not; asked before each attempt. None: it can be handled.

        A held message is not handled, and neither are the records behind it in its partition.
        """
        return None

    @abstractmethod
    def handle(self, deliveries: Sequence[Delivery[In]]) -> Sequence[Handled[Out]]:
        """What became of each delivery, in order.

        A TransientError asks for another try, another TonestreamError is final, any other exception is a defect: the
        record goes to the dead letters and its request is answered with ``internal``. Raising (rather than
        returning) DependencyError has the whole batch redone when the dependency is back. FencedError has it dropped:
        others own its partitions by now.
        """

    @abstractmethod
    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[Out]:
        """The typed failure that answers a delivery which cannot be handled, or a record that is no message."""

    def tick(self) -> Sequence[Out]:
        """Messages that are due without a delivery. Called between batches; publishing them twice does no harm."""
        return ()

    def tidy(self, committed: Committed) -> None:
        """Clean up after workers that died between a commit and their clean-up. Called between batches; best effort."""

    def close(self) -> None:
        """Let go of threads and connections."""


class TrackByTrackService(Service[In, Out]):
    """A service whose deliveries do not depend on each other: they are handled side by side in threads."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=self.stage.value)

    @abstractmethod
    def handle_one(self, delivery: Delivery[In]) -> Outcome[Out]:
        """The outcome of one delivery. Raises as ``handle`` describes."""

    def handle(self, deliveries: Sequence[Delivery[In]]) -> Sequence[Handled[Out]]:
        if len(deliveries) == 1:
            handled = [self._try(deliveries[0])]
        else:
            pending = [self._pool.submit(copy_context().run, self._try, delivery) for delivery in deliveries]
            handled = [future.result() for future in pending]
        for one in handled:
            if isinstance(one, DependencyError | FencedError | AbandonedError):
                raise one
        return handled

    def _try(self, delivery: Delivery[In]) -> Handled[Out]:
        key = delivery.record.key[:_LONGEST_KEY].decode("utf-8", "replace")
        with about(request_id=delivery.message.request_id, track_key=key), traces.current(delivery.record):
            try:
                return self.handle_one(delivery)
            except Exception as error:
                return error

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


#: The same, whatever the messages: the runtime decodes and encodes them by their topics.
AnyService = Service[Any, Any]
AnyDelivery = Delivery[Any]
AnyHandled = Handled[Any]
