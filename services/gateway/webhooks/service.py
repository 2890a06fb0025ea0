"""Webhooks at work: results are queued as they are read, and each hook has lanes of its own that send them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

from services.gateway.problems import GatewayCode, Problem
from services.gateway.view.database import ViewUnavailableError
from services.gateway.webhooks import signing
from services.gateway.webhooks.schedule import Schedule, pause_s
from services.gateway.webhooks.sender import Answer, Sender
from services.gateway.webhooks.store import Delivery, Failure, Hook, Message, Slot, Store
from shared.bus.base import Record
from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.errors import AbandonedError, ErrorCode, TonestreamError
from shared.contracts.topics import Channel, Topics
from shared.http.own_servers import endpoints
from shared.runtime import metrics
from shared.runtime.metrics import WebhookOutcome
from shared.settings import Settings

log = logging.getLogger(__name__)

_Attempt = Callable[[Delivery, threading.Event], None]

MOST_HOOKS: Final = 50
#: Deliveries under way to one hook at once.
LANES: Final = 4
#: A hook for which more than this waits is disabled: nobody can wait for it any more, and the disk is not endless.
_MOST_PENDING: Final = 200_000
#: A receiver that comes back after longer than this gets at once what waits for it.
_OUTAGE_MS: Final = 30_000
#: How often a lane looks by itself, seconds: clocks change.
_LOOK_AGAIN_S: Final = 60.0
_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How deliveries are tried, and after how many seconds of failure a hook is disabled."""

    schedule: Schedule
    disable_after_s: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(Schedule.parse(settings.gateway_webhook_retries_s), settings.gateway_webhook_disable_after_s)


def beside(view: Path) -> Path:
    """The file of the webhooks that belong to the view in that file."""
    return view.with_name(f"{view.stem}.webhooks{view.suffix}")


class Webhooks:
    """Queues and sends. Safe from many threads. ``remembers``: the bus keeps records, so positions in it outlive this
    process. Raises ViewError for a file that cannot be used."""

    def __init__(self, path: Path, topics: Topics, sender: Sender, policy: Policy, remembers: bool) -> None:
        self._store = Store(path)
        self._results = topics.name(Channel.RESULTS)
        self._sender = sender
        self._policy = policy
        self._remembers = remembers
        self._positions = self._store.positions() if remembers else {}
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lanes] = {}
        self._started = False

    @classmethod
    def of(cls, settings: Settings, path: Path, remembers: bool) -> Self:
        """As the settings say. Raises ViewError."""
        sender = Sender(settings.gateway_webhook_timeout_s, settings.gateway_webhook_private, endpoints(settings))
        return cls(path, Topics(settings.topic_prefix), sender, Policy.of(settings), remembers)

    def start(self) -> None:
        """Send what waits from an earlier run."""
        with self._lock:
            self._started = True
            for hook in self._store.hooks():
                self._open_lanes(hook)

    def close(self) -> None:
        """End deliveries that are under way, which counts as no attempt, and release the file."""
        with self._lock:
            self._started = False
            closing = list(self._lanes.values())
            self._lanes.clear()
        for lanes in closing:
            lanes.stop()
        for lanes in closing:
            lanes.join()
        self._store.close()

    # Registrations

    def register(self, url: str, secret: str | None) -> Hook:
        """Send all results from now on to ``url``. Raises Problem: fetch_forbidden, invalid_request, conflict."""
        try:
            self._sender.check(url)
            secret = secret or signing.new_secret()
            signing.key_of(secret)
        except TonestreamError as error:
            code = error.code if error.code is ErrorCode.FETCH_FORBIDDEN else ErrorCode.INVALID_REQUEST
            raise Problem(code, f"url: {error.message}") from None
        except ValueError as error:
            raise Problem(ErrorCode.INVALID_REQUEST, str(error)) from None
        with self._lock:
            if len(self._store.hooks()) >= MOST_HOOKS:
                raise Problem(GatewayCode.CONFLICT, f"there are {MOST_HOOKS} webhooks, the most there may be")
            hook = self._store.add(url, secret)
            self._open_lanes(hook)
        return hook

    def hooks(self) -> list[Hook]:
        """All registrations, the oldest first."""
        return self._store.hooks()

    def pending(self) -> int:
        """How many deliveries wait. Raises ViewUnavailableError."""
        return sum(hook.pending for hook in self._store.hooks())

    def hook(self, hook_id: str) -> Hook:
        """Raises Problem (not_found)."""
        found = self._store.hook(hook_id)
        if found is None:
            raise _unknown(hook_id)
        return found

    def remove(self, hook_id: str) -> None:
        """Forget a registration and what waits for it. Raises Problem (not_found)."""
        with self._lock:
            lanes = self._lanes.pop(hook_id, None)
            found = self._store.remove(hook_id)
        if lanes is not None:
            lanes.stop()
        if not found:
            raise _unknown(hook_id)

    # What is to be sent

    def take(self, records: Sequence[Record]) -> None:
        """Queue the results among ``records``, which come in the order of their partitions and may come again.

        Raises ViewUnavailableError. Then nothing was queued, and the same records are to be given again.
        """
        results = [one for one in records if one.topic == self._results and one.offset >= self._position(one)]
        if not results:
            return
        ahead: dict[Slot, int] = {(one.topic, one.partition): one.offset + 1 for one in results}
        with self._lock:
            wanted = bool(self._lanes)
        messages = []
        if wanted:
            messages = [message for record in results if (message := _message(record, self._remembers)) is not None]
        added = self._store.take(messages, ahead if self._remembers else {})
        self._positions.update(ahead)
        if added:
            with self._lock:
                for lanes in self._lanes.values():
                    lanes.wake()
            self._disable_the_overfull()

    def _position(self, record: Record) -> int:
        return self._positions.get((record.topic, record.partition), 0)

    def _disable_the_overfull(self) -> None:
        for hook in self._store.hooks():
            if hook.pending > _MOST_PENDING:
                self._disable(hook.id, f"more than {_MOST_PENDING} results waited for it")

    # Sending

    def _open_lanes(self, hook: Hook) -> None:
        if self._started and hook.state == "active":
            self._lanes[hook.id] = _Lanes(hook.id, self._store, self._attempt)

    def _attempt(self, delivery: Delivery, abandoned: threading.Event) -> None:
        """Raises AbandonedError, ViewUnavailableError."""
        hook = self._store.hook(delivery.hook)
        if hook is None or hook.state == "disabled":
            return
        now_s = time.time()
        fields = signing.signed(hook.secret, delivery.message_id, int(now_s), delivery.body)
        started = time.perf_counter()
        answer = self._sender.post(hook.url, fields, delivery.body, abandoned)
        metrics.WEBHOOK_SECONDS.observe(time.perf_counter() - started)
        if answer.fault is None and answer.status is not None:
            metrics.WEBHOOK_ATTEMPTS.labels(WebhookOutcome.DELIVERED).inc()
            self._store.succeeded(delivery, answer.status, _OUTAGE_MS)
            return
        self._note_failure(hook, delivery, answer)

    def _note_failure(self, hook: Hook, delivery: Delivery, answer: Answer) -> None:
        now_ms = int(time.time() * 1000)
        age_s = (now_ms - delivery.queued_ms) / 1000
        wait_s = self._policy.schedule.next_wait_s(delivery.attempts + 1, age_s, answer.retry_after_s)
        due_ms = None if wait_s is None else now_ms + int(wait_s * 1000)
        resumes_ms = now_ms + int(pause_s(hook.failures + 1, answer.retry_after_s) * 1000)
        fault = answer.fault or "no reason is known"
        self._store.failed(delivery, Failure(answer.status, fault, due_ms, resumes_ms))
        metrics.WEBHOOK_ATTEMPTS.labels(WebhookOutcome.FAILED if due_ms else WebhookOutcome.GIVEN_UP).inc()
        log.info(
            "a webhook was not delivered%s: %s",
            "" if due_ms else ", and is given up",
            fault,
            extra={"hook": hook.id, "attempts": delivery.attempts + 1},
        )
        failing_s = (now_ms - (hook.failing_since_ms or now_ms)) / 1000
        if answer.status == HTTPStatus.GONE:
            self._disable(hook.id, "the receiver answered 410 (Gone): it wants nothing more")
        elif failing_s > self._policy.disable_after_s:
            self._disable(hook.id, f"nothing arrived for {failing_s / 86400:.1f} days; at last: {fault}")

    def _disable(self, hook_id: str, reason: str) -> None:
        self._store.disable(hook_id, reason)
        log.warning("a webhook is disabled: %s", reason, extra={"hook": hook_id})
        with self._lock:
            lanes = self._lanes.pop(hook_id, None)
        if lanes is not None:
            lanes.stop()


class _Lanes:
    """The threads that send to one hook. A receiver that is slow or away keeps these busy, and no others."""

    def __init__(self, hook_id: str, store: Store, attempt: _Attempt) -> None:
        self._hook_id = hook_id
        self._store = store
        self._attempt = attempt
        self._changed = threading.Condition()
        self._under_way: set[int] = set()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"webhook-{hook_id[:11]}-{number}", daemon=True)
            for number in range(LANES)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is something new to send."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Abandon what is under way."""
        self._stopping.set()
        self.wake()

    def join(self) -> None:
        """Wait for the threads, which takes a moment after ``stop``."""
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._claimed() as delivery:
                    if delivery is not None:
                        self._attempt(delivery, self._stopping)
            except AbandonedError:
                return
            except ViewUnavailableError as error:
                if not self._stopping.is_set():
                    log.warning("webhooks wait: %s", error)
                self._stopping.wait(_PAUSE_S)
            except Exception:
                log.exception("a defect in the delivery of a webhook", extra={"hook": self._hook_id})
                self._stopping.wait(_LOOK_AGAIN_S)

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[Delivery | None]:
        """A delivery that is due, for this thread alone; None after a wait without any."""
        delivery = None
        with self._changed:
            if not self._stopping.is_set():
                found = self._store.next_delivery(self._hook_id, self._under_way)
                wait_s = _LOOK_AGAIN_S if found is None else min(_LOOK_AGAIN_S, found[0] / 1000 - time.time())
                if found is None or wait_s > 0:
                    self._changed.wait(wait_s)
                else:
                    delivery = found[1]
                    self._under_way.add(delivery.number)
        try:
            yield delivery
        finally:
            if delivery is not None:
                with self._changed:
                    self._under_way.discard(delivery.number)
                    # What was released, or paused, concerns the other threads too.
                    self._changed.notify_all()


def _message(record: Record, remembers: bool) -> Message | None:
    """What is sent about a result; None for what is none.

    Its ID is the same whenever the record is read again. Where the bus forgets, a record does not come again, but after
    a crash the request may be answered again; so there the ID follows from the request.
    """
    try:
        result = decode_message(Channel.RESULTS, record.value)
    except MalformedMessageError:
        return None
    at_ms = record.timestamp_ms or int(time.time() * 1000)
    at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    named = f"{record.coordinates} {at_ms} ".encode() + record.value if remembers else result.request_id.encode()
    head = f'{{"type":"result","timestamp":{json.dumps(at)},"data":'
    return Message(f"msg_{hashlib.sha256(named).hexdigest()[:32]}", at_ms, head.encode() + record.value + b"}")


def _unknown(hook_id: str) -> Problem:
    return Problem(GatewayCode.NOT_FOUND, f"there is no webhook {hook_id[:80]!r}")
