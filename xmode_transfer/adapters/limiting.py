"""Object stores under the limits that all customers of a process share: requests in flight, memory,
bandwidth.

What does not fit waits in a queue of its customer, without a thread; the customers' queues are served in
turn, so that one with a million files holds no other up.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from xmode_transfer import telemetry
from xmode_transfer.adapters.bandwidth import Allowance, Allowances
from xmode_transfer.adapters.timer import Timer
from xmode_transfer.domain.acl import ObjectAcl
from xmode_transfer.domain.bandwidth import Timetable
from xmode_transfer.domain.config import Customer, Limits
from xmode_transfer.domain.errors import Interrupted
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import (
    Clock,
    CredentialsProvider,
    Deleted,
    Deletion,
    ListedObject,
    ObjectInfo,
    ObjectStore,
    ObjectStores,
    OpenFile,
    PutAnswer,
    PutRequest,
)

T = TypeVar("T")

BODY_MEMORY_BYTES = 8 * 1024 * 1024
"""The most memory that an engine holds for one body; larger ones are streamed."""


@dataclass(frozen=True, slots=True)
class _Request:
    customer: str
    length: int
    begin: Callable[[], None]
    give_up: Callable[[], None]

    @property
    def memory_bytes(self) -> int:
        return min(self.length, BODY_MEMORY_BYTES)


class Gate:
    """Lets requests with a body begin when there is room for them. Thread-safe."""

    def __init__(self, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        self._limits = limits
        self._stop = stop
        self._timer = Timer(stop)
        self._lock = threading.Lock()
        self._queues: OrderedDict[str, deque[_Request]] = OrderedDict()
        self._in_flight = 0
        self._of_customer: Counter[str] = Counter()
        self._memory_bytes = 0
        self._bandwidths = Allowances(limits.bandwidth, clock)
        self._of_customers: dict[str, tuple[Allowance, ...]] = {}
        self._woken: set[Allowance] = set()
        self._admitting = False
        self._look_again = False
        self._closed = False

    def limit(self, customer: str, bandwidth: Timetable) -> None:
        """The bandwidth of one customer, within that of the process. Without this it has no limit of its
        own."""
        with self._lock:
            self._of_customers[customer] = self._bandwidths.of(customer, bandwidth)

    def submit(self, customer: str, length: int, begin: Callable[[], Future[T]]) -> Future[T]:
        """The future of ``begin``, called as soon as the limits let ``length`` bytes for this customer go.
        Fails with Interrupted what still waits when we are asked to stop."""
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        carried = telemetry.carry(begin)

        def go() -> None:
            try:
                inner = carried()
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
                self._release(request)
                outer.set_exception(error)
            else:
                inner.add_done_callback(finished)

        def finished(inner: Future[T]) -> None:
            # Room is made before the caller hears of it, so that what it submits next finds it.
            self._release(request)
            error = inner.exception()
            if error is None:
                outer.set_result(inner.result())
            else:
                outer.set_exception(error)

        def give_up() -> None:
            outer.set_exception(Interrupted("we were asked to stop before this was sent"))

        request = _Request(customer, length, go, give_up)
        with self._lock:
            self._queues.setdefault(customer, deque()).append(request)
        self._admit()
        return outer

    def close(self) -> None:
        """Gives up what still waits. Idempotent."""
        self._closed = True
        self._timer.close()
        self._admit()

    def _release(self, request: _Request) -> None:
        with self._lock:
            self._in_flight -= 1
            self._of_customer[request.customer] -= 1
            if not self._of_customer[request.customer]:
                del self._of_customer[request.customer]
            self._memory_bytes -= request.memory_bytes
        self._admit()

    def _admit(self) -> None:
        """Begins everything that has room now. One thread at a time does so: what begins may end at once and
        come back here, and a long queue must not become a deep stack."""
        with self._lock:
            if self._admitting:
                self._look_again = True
                return
            self._admitting = True
        while (call := self._next()) is not None:
            call()

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            while True:
                self._look_again = False
                stopped = self._closed or self._stop.is_set()
                request = self._take(anything=stopped)
                if request is not None:
                    if stopped:
                        return request.give_up
                    self._count(request)
                    return request.begin
                if not self._look_again:
                    self._admitting = False
                    return None

    def _take(self, *, anything: bool) -> _Request | None:
        """The next request that may begin: the customers take turns, each within its own limit."""
        if not anything and (self._in_flight >= self._limits.parallel_objects or self._all_must_wait()):
            return None
        for customer, queue in self._queues.items():
            if anything or self._may_send(customer):
                if not anything and not self._fits(queue[0]):
                    return None  # it is this one's turn: smaller ones must not pass it for ever
                self._queues.move_to_end(customer)
                request = queue.popleft()
                if not queue:
                    del self._queues[customer]
                return request
        return None

    def _all_must_wait(self) -> bool:
        return bool(self._queues) and any(map(self._is_spent, self._bandwidths.of_all))

    def _may_send(self, customer: str) -> bool:
        """Whether a customer has requests and bandwidth to spare; if not, its turn passes to the next."""
        allowed = self._limits.parallel_objects_per_customer
        return self._of_customer[customer] < allowed and not any(
            map(self._is_spent, self._allowances(customer))
        )

    def _allowances(self, customer: str) -> tuple[Allowance, ...]:
        return self._of_customers.get(customer) or self._bandwidths.of_all

    def _fits(self, request: _Request) -> bool:
        alone = self._in_flight == 0
        return alone or self._memory_bytes + request.memory_bytes <= self._limits.memory_bytes

    def _count(self, request: _Request) -> None:
        self._in_flight += 1
        self._of_customer[request.customer] += 1
        self._memory_bytes += request.memory_bytes
        for bandwidth in self._allowances(request.customer):
            bandwidth.take(request.length)

    def _is_spent(self, bandwidth: Allowance) -> bool:
        """Whether it is used up for now; then the timer comes back when it no longer is."""
        seconds = bandwidth.wait()
        if seconds > 0 and bandwidth not in self._woken:
            self._woken.add(bandwidth)
            wake = partial(self._wake, bandwidth)
            self._timer.after(seconds, wake, wake)
        return seconds > 0

    def _wake(self, bandwidth: Allowance) -> None:
        with self._lock:
            self._woken.discard(bandwidth)
        self._admit()


class LimitingStores:
    """Implements ``ports.ObjectStores`` around another. ``stop`` ends all waiting at once."""

    def __init__(self, stores: ObjectStores, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        self.info = stores.info
        self._stores = stores
        self._gate = Gate(limits, clock, stop)

    def open(
        self, customer: Customer, credentials: CredentialsProvider, region: str | None
    ) -> "LimitingStore":
        self._gate.limit(customer.name, customer.limits.bandwidth)
        return LimitingStore(self._stores.open(customer, credentials, region), customer.name, self._gate)

    def close(self) -> None:
        self._gate.close()
        self._stores.close()


class LimitingStore:
    """Implements ``ports.ObjectStore`` around another: what carries a body goes through the gate."""

    def __init__(self, store: ObjectStore, customer: str, gate: Gate) -> None:
        self._store = store
        self._customer = customer
        self._gate = gate
        self._outstanding = 0
        self._idle = threading.Condition()

    @property
    def region(self) -> str | None:
        return self._store.region

    @property
    def checksum_algorithm(self) -> str:
        return self._store.checksum_algorithm

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        return self._through(request.size, lambda: self._store.put(request, body))

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        return self._through(
            length, lambda: self._store.upload_part(key, upload_id, number, body, offset, length)
        )

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        return self._store.create_upload(request)

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        return self._store.complete_upload(key, upload_id, parts, size)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._store.abort_upload(key, upload_id)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        return self._store.list(prefix, start_after)

    def read(self, key: str) -> Iterator[bytes]:
        return self._store.read(key)

    def acl(self, key: str) -> ObjectAcl:
        return self._store.acl(key)

    def delete(self, key: str, etag: str | None = None) -> str | None:
        return self._store.delete(key, etag)

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        return self._store.delete_many(wanted)

    def close(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._outstanding == 0)
        self._store.close()

    def _through(self, length: int, begin: Callable[[], Future[T]]) -> Future[T]:
        with self._idle:
            self._outstanding += 1
        future = self._gate.submit(self._customer, length, begin)
        future.add_done_callback(self._settled)
        return future

    def _settled(self, _: Future[Any]) -> None:
        with self._idle:
            self._outstanding -= 1
            self._idle.notify_all()
