"""The loop of a service whose deliveries are independent and wait a lot: nothing waits for the slowest of a batch.

A window of records is in hand, each handled in a thread of its own. It polls for more whenever there is room. A
finished record leaves at once, unless an unfinished one stands before it in its partition: a committed offset never
passes an unfinished record. The outputs of a record leave with its offset, in one transaction, as in the loop for
batches.

    waiting  -> running -> settled -> committed
    (not due,              (the prefix of its
    suspect,                partition is settled)
    or held)
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Final

from shared.bus.base import BusError, FencedError, Record
from shared.contracts.errors import DependencyError, HeldError
from shared.runtime import metrics
from shared.runtime.crash_guard import CrashLoop, Unit
from shared.runtime.envelope import salvaged_request_id
from shared.runtime.loop import ServiceLoop
from shared.runtime.service import AnyService
from shared.runtime.settling import HeldPartitions, Settled
from shared.system.fault_points import BATCH_BEGUN, fault_point

log = logging.getLogger(__name__)

#: How long a poll may delay the commit of records that are settled meanwhile, seconds.
_POLL_S: Final = 0.05
#: The longest wait between two looks at the bus, seconds.
_LOOK_S: Final = 0.5


@dataclass(slots=True, eq=False)
class _InHand:
    """A record between its poll and its commit. ``settled`` or ``fault`` is the result of its thread. A HeldError makes
    it wait again."""

    record: Record
    #: Whose it is, and whether it is a message at all.
    request_id: str | None
    valid: bool
    polled_at: float
    due_at: float
    started_at: float | None = None
    busy_since: float = 0.0
    suspect: bool = False
    held: bool = False
    settled: Settled | None = None
    fault: BaseException | None = None

    @property
    def running(self) -> bool:
        return self.started_at is not None and self.settled is None and self.fault is None

    def is_in_a_queue(self) -> None:
        """At this moment it waits for its turn, and is not stuck."""
        self.busy_since = time.monotonic()

    @property
    def partition(self) -> tuple[str, int]:
        return self.record.topic, self.record.partition


class StreamingLoop(ServiceLoop):
    """See the module. ``batch_records`` of the policy is the size of the window."""

    def __init__(self, service: AnyService, *more: Any, **named: Any) -> None:
        super().__init__(service, *more, **named)
        #: What is in hand, by partition, in the order of offsets.
        self._window: dict[tuple[str, int], deque[_InHand]] = {}
        self._news = threading.Event()  # a thread has ended

    def _turn(self) -> bool:
        self._pulse.moved()
        self._tick()
        self._start_what_is_due()
        committed = self._commit_what_is_settled()
        self._look_for_more()
        self._pulse.in_hand_since(min((one.busy_since for one in self._in_hand() if one.running), default=None))
        return committed or not self._window

    def _in_hand(self) -> Iterator[_InHand]:
        return (one for queue in self._window.values() for one in queue)

    # Polling

    def _look_for_more(self) -> None:
        self._news.clear()
        if any(one.fault for one in self._in_hand()) or any(queue[0].settled for queue in self._window.values()):
            return
        room = self._policy.batch_records - sum(len(queue) for queue in self._window.values())
        if room > 0 and self._service.ready():
            records = self._poll(room, _POLL_S if self._window else self._policy.poll_s)
            self._own(records)
            self._take(records)
            metrics.LAST_POLL.labels(self._name).set_to_current_time()
        else:
            self._membership.keep_alive()
            self._news.wait(_LOOK_S if self._window else self._policy.pause_s)
        self._reached_the_bus()
        if not self._window:
            self._in_flight.flush()

    def _take(self, records: list[Record]) -> None:
        for record in records:
            now = time.monotonic()
            request_id, valid = salvaged_request_id(record), self._settler.is_message(record)
            one = _InHand(record, request_id, valid, now, now + self._service.wait_s(record))
            queue = self._window.setdefault(one.partition, deque())
            if queue and queue[-1].record.epoch != record.epoch:
                raise FencedError(f"{record.topic}/{record.partition} was given to another member meanwhile")
            queue.append(one)

    # Handling

    def _start_what_is_due(self) -> None:
        """Start what may be started. A suspect is handled alone: when it is due, the window runs empty first."""
        if any(one.suspect and one.running for one in self._in_hand()):
            return
        now = time.monotonic()
        due = [one for one in self._waiting() if one.due_at <= now]
        if suspect := next((one for one in due if one.suspect), None):
            if not any(one.running for one in self._in_hand()):
                self._in_flight.withdraw()  # settled records are not in flight
                self._start(suspect, self._begin(Unit((suspect.record,), alone=True)))
            return
        for one in self._begin_together(self._one_a_request(due)):
            self._start(one)

    def _waiting(self) -> Iterator[_InHand]:
        """Records that have not been started, except those behind a suspect: if the suspect kills its worker, their
        work would be lost again and again."""
        for queue in self._window.values():
            for one in queue:
                if one.started_at is None:
                    yield one
                if one.suspect and one.settled is None:
                    break

    def _one_a_request(self, due: list[_InHand]) -> list[_InHand]:
        """One record a request ID: the first that is a message. The others wait until it is settled. So an invalid
        request does not take the request ID of a valid one that was read with it."""
        busy = {one.request_id for one in self._in_hand() if one.running}
        others = set()
        for one in sorted(due, key=lambda one: not one.valid):
            if one.request_id is not None and one.request_id in busy:
                others.add(one.record.coordinates)
            busy.add(one.request_id)
        return [one for one in due if one.record.coordinates not in others]

    def _begin_together(self, due: list[_InHand]) -> list[_InHand]:
        """Write down that these are in hand. Returns those that are no suspects; the others wait."""
        if not due:
            return []
        begun = [one.record for one in self._in_hand() if one.started_at is not None or (one.held and one not in due)]
        crashes = self._in_flight.begin([*begun, *(one.record for one in due)])
        fault_point(BATCH_BEGUN)
        for one in due:
            found = crashes.get(one.record.coordinates)
            one.suspect = found is not None and found.suspect
        if not any(one.suspect for one in due):
            return due
        self._in_flight.withdraw()
        held_up: set[tuple[str, int]] = set()
        free = []
        for one in due:
            if one.suspect:
                held_up.add(one.partition)
            elif one.partition not in held_up:
                free.append(one)
        self._in_flight.begin([*begun, *(one.record for one in free)])
        return free

    def _start(self, one: _InHand, crash_loop: CrashLoop | None = None) -> None:
        """Settle the record in a thread of its own: one that is abandoned takes nobody's place, and none keeps the
        process from ending."""
        work = partial(self._settle_alone, one, crash_loop, self._abandoned)
        one.started_at = one.busy_since = time.monotonic()
        threading.Thread(target=copy_context().run, args=(work,), name=f"{self._name}-record", daemon=True).start()

    def _settle_alone(self, one: _InHand, crash_loop: CrashLoop | None, abandoned: threading.Event) -> None:
        try:
            if crash_loop is not None:
                one.settled = self._settler.crashed(one.record, crash_loop)
                return
            held = HeldPartitions()
            found = self._settler.settle((one.record,), held, abandoned, one.is_in_a_queue)
            held.release()
            (one.settled,) = found
        except BaseException as error:
            one.fault = error
        finally:
            self._news.set()

    # Committing

    def _commit_what_is_settled(self) -> bool:
        """Commit the settled prefix of each partition, all as one unit. Raises what stopped a record from settling."""
        for one in self._in_hand():
            if isinstance(one.fault, HeldError):
                self._put_off(one, one.fault)
            elif one.fault is not None:
                raise one.fault
        ready = [one for queue in self._window.values() for one in takewhile(lambda one: one.settled, queue)]
        if not ready:
            return False
        self._commit([one.settled for one in ready if one.settled])
        self._holds = 0
        for one in ready:
            self._window[one.partition].popleft()
            metrics.BATCH_SECONDS.labels(self._name).observe(time.monotonic() - one.polled_at)
        self._window = {partition: queue for partition, queue in self._window.items() if queue}
        return True

    def _put_off(self, one: _InHand, fault: HeldError) -> None:
        """The record is looked at again later. It stays written down as in hand."""
        self._holds += 1
        self._pulse.waiting(str(fault))
        one.started_at, one.fault, one.held = None, None, True
        one.due_at = time.monotonic() + self._hold_s()

    # Ending

    def _finish(self) -> None:
        """What is nearly done may end and be committed."""
        until = time.monotonic() + self._policy.stop_grace_s
        try:
            while True:
                self._news.clear()
                self._commit_what_is_settled()
                left_s = until - time.monotonic()
                if left_s <= 0 or not any(one.running for one in self._in_hand()):
                    return
                self._membership.keep_alive()
                self._news.wait(min(left_s, _LOOK_S))
        except (BusError, DependencyError) as error:
            log.warning("stopped; what is not committed goes to another worker: %s", error)

    def _give_up_what_is_in_hand(self) -> None:
        self._abandoned.set()
        self._abandoned = threading.Event()
        self._window = {}
        self._in_flight.withdraw()
        self._pulse.in_hand_since(None)
