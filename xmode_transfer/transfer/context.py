"""The context of an execution: its interfaces and settings, its lease, and the record of an operation."""

import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from xmode_transfer import telemetry
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import ObjectStore, ObjectStores
from xmode_transfer.config import Customer, Limits, UnsafeRoles, Vendor
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import AlreadyRunning, Interrupted, LeaseLost, UnsafeRole, XmodeError
from xmode_transfer.model.jobs import Backoff
from xmode_transfer.model.process import Clock, Progress
from xmode_transfer.model.records import Capabilities, Failure, Lease
from xmode_transfer.model.upkeep import (
    INTENDED,
    REMOVED_BY_US,
    OperationKind,
    OperationRecord,
    Removal,
    RemovalOutcome,
)
from xmode_transfer.sources.interface import SourceFactory
from xmode_transfer.telemetry import Event

if TYPE_CHECKING:  # botocore and cryptography take a while to import
    from xmode_transfer.aws.sts import RoleSessions
    from xmode_transfer.transfer.signing import ManifestSignatures


@dataclass(frozen=True, slots=True)
class Context:
    """When ``stop`` is set, work stops at the next object, recorded and resumable. ``holder`` names this
    process in leases. Without ``attestation`` nothing is signed or attested."""

    vendor: Vendor
    limits: Limits
    sources: SourceFactory
    sessions: "RoleSessions"
    stores: ObjectStores
    ledger: Ledger
    clock: Clock
    progress: Progress
    holder: str
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER
    backoff: Backoff = field(default_factory=Backoff)
    stop: threading.Event = field(default_factory=threading.Event)
    attestation: "ManifestSignatures | None" = None

    @property
    def parallel(self) -> int:
        """The number of concurrent requests for one customer."""
        return min(self.limits.parallel_objects, self.limits.parallel_objects_per_customer)

    def check_stop(self, hint: str) -> None:
        """Raise Interrupted if the process is asked to end; ``hint`` says how the work continues."""
        if self.stop.is_set():
            raise Interrupted("stopped on request", hint=hint)


_READING = (Step.LIST, Step.VERIFY)


@contextmanager
def opened(context: Context, customer: Customer, step: Step = Step.DELIVER) -> Iterator[ObjectStore]:
    """Opens the customer's store for one step. A step that changes the destination records its Region in the
    ledger; a step that reads records nothing. Raises the error that refuses access."""
    credentials = admit(context, customer, step)
    known = context.ledger.checks.capabilities(customer.name).region
    store = context.stores.open(customer, credentials, known)
    try:
        yield store
    finally:
        region = store.region
        store.close()
        if step not in _READING and region is not None and region != known:
            learnt = Capabilities(region=region, learned_at=context.clock.now())
            context.ledger.checks.learn(customer.name, learnt)


def admit(context: Context, customer: Customer, step: Step = Step.DELIVER) -> CredentialsProvider:
    """Checks our identity, assumes the customer's role, and refuses changes through an unsafe role."""
    if context.unsafe_roles is UnsafeRoles.STOP and step not in _READING:
        last = context.ledger.checks.last(customer.name)
        if last is not None and last.unsafe:
            raise UnsafeRole(
                f"{customer.name}: on {last.checked_at:%Y-%m-%d} its role could be assumed "
                "without its external ID",
                hint="ask the customer to fix the role's trust policy (`xmode-transfer check-access` prints "
                "it). Deliveries and cleanups resume after a check that finds it fixed",
            )
    context.sessions.verify_identity()
    credentials = context.sessions.open(customer, step)
    credentials.get()
    return credentials


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, name: str, threads: int, ahead: int = 1
) -> Iterator[Iterator[_Result]]:
    """Streams the results. Begins ``ahead`` items for each thread. At the end, also after an error, running
    items finish and no other item begins."""
    window: deque[Future[_Result]] = deque()
    carried = telemetry.carry(work)

    def results() -> Iterator[_Result]:
        for item in items:
            window.append(pool.submit(carried, item))
            if len(window) >= threads * ahead:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            yield results()
        finally:
            for future in window:
                future.cancel()


TTL_SECONDS = 45.0  # a machine may be frozen for this long before another takes over
_RENEW_SECONDS = TTL_SECONDS / 4
_POLL_SECONDS = 0.2


def of_delivery(customer: str, feed: str, period: str) -> str:
    """Return the name of the lease for changes to a period's delivery."""
    return f"delivery/{customer}/{feed}/{period}"


@contextmanager
def held(
    ledger: Ledger, name: str, holder: str, *, wait_seconds: float = 0, stop: threading.Event | None = None
) -> Iterator[Lease]:
    """Claims ``name`` and keeps the lease. Raises AlreadyRunning if another process still holds it after
    ``wait_seconds``, or if ``stop`` is set while waiting."""
    lease = _claim(ledger, name, holder, wait_seconds, stop or threading.Event())
    try:
        with kept(ledger, lease):
            yield lease
    finally:
        ledger.leases.release(lease)


def _claim(ledger: Ledger, name: str, holder: str, wait_seconds: float, stop: threading.Event) -> Lease:
    for _ in range(int(wait_seconds / _POLL_SECONDS)):
        with suppress(AlreadyRunning):
            return ledger.leases.claim(name, holder, TTL_SECONDS)
        if stop.wait(_POLL_SECONDS):
            break
    return ledger.leases.claim(name, holder, TTL_SECONDS)


@contextmanager
def kept(ledger: Ledger, lease: Lease, *, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Renews our lease in the background. Calls ``lost`` in another thread when another process has it."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEW_SECONDS):
            try:
                ledger.leases.renew(lease, TTL_SECONDS)
            except LeaseLost:
                telemetry.log(Event.LEASE_LOST, lease=lease.name)
                lost()
                return  # the ledger refuses our next write, which ends the work
            except XmodeError as error:
                telemetry.log(Event.LEASE_NOT_RENEWED, lease=lease.name, **error.log_context())

    renewer = threading.Thread(target=renew, name=f"lease {lease.name}", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        done.set()
        renewer.join()


INTERRUPTED = "interrupted"


class Operation:
    """An operation on a customer's bucket other than a delivery. Each of a kind holds the same ``lease``.
    Therefore the unfinished ones in ``died`` belong to processes that were killed, or that do not know the
    outcome of their last requests."""

    def __init__(
        self, context: Context, lease: Lease, kind: OperationKind, customer: str, *, person: str, reason: str
    ) -> None:
        now = context.clock.now()
        self._context = context
        self._lease = lease
        self._ledger = context.ledger.operations
        self._record = OperationRecord(
            id=f"{kind}-{customer}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
            kind=kind,
            customer=customer,
            holder=context.holder,
            person=person,
            reason=reason,
            started_at=now,
        )
        self.id = self._record.id
        self.has_begun = False
        self.died: Sequence[OperationRecord] = [
            earlier for earlier in self._ledger.newest(customer, kind, None) if earlier.finished_at is None
        ]

    def begin(self) -> None:
        self._ledger.start(self._lease, self._record)
        self.has_begun = True

    def record(self, removals: Sequence[Removal]) -> None:
        """Records keys that are planned to be deleted, or their outcomes."""
        self._ledger.record_removals(self._lease, self.id, removals)

    def finish(
        self,
        outcome: str,
        *,
        objects: int,
        size: int,
        failed: int,
        failure: Failure | None,
        inconclusive: bool = False,
    ) -> None:
        """Closes the operation. If the outcome of the last requests is unknown (``inconclusive``), the
        operation and its plan stay open, and the next operation of its kind settles them."""
        record = replace(
            self._record, outcome=outcome, objects=objects, bytes=size, failed=failed, failure=failure
        )
        if inconclusive:
            self._ledger.finish(self._lease, record)
        else:
            self._close(record)

    def _close(self, record: OperationRecord) -> None:
        self._ledger.forget_planned(self._lease, record.id)
        self._ledger.finish(self._lease, replace(record, finished_at=self._context.clock.now()))

    def inconclusive_feeds(self) -> set[str]:
        """Return the feeds from which the operations that died had planned to delete keys."""
        return {item.feed for died in self.died for item in self._ledger.removals(died.id, outcomes=INTENDED)}

    def settle(self, keys: Sequence[str]) -> set[str]:
        """Records and returns the unlisted keys that an operation that died had planned to delete."""
        versioned = self._context.ledger.checks.capabilities(self._record.customer).versioned
        outcome = RemovalOutcome.HIDDEN if versioned else RemovalOutcome.DELETED
        return self._ledger.settle_removals(self._lease, self.died, keys, outcome, self._context.clock.now())

    def close_died(self) -> None:
        """Closes each operation that died with its known outcomes. Its remaining plan is dropped."""
        for earlier in self.died:
            objects = size = failed = 0
            for item in self._ledger.removals(earlier.id):
                ours = item.outcome in REMOVED_BY_US
                objects += ours
                size += item.size if ours else 0
                failed += item.outcome is RemovalOutcome.FAILED
            outcome = earlier.outcome or INTERRUPTED
            self._close(replace(earlier, outcome=outcome, objects=objects, bytes=size, failed=failed))
        self.died = ()


@contextmanager
def begun(
    context: Context, kind: OperationKind, customer: str, *, person: str, reason: str
) -> Iterator[Operation]:
    """Begins an operation that needs nothing from those that died. Raises AlreadyRunning."""
    with held(context.ledger, f"{kind}/{customer}", context.holder) as lease:
        operation = Operation(context, lease, kind, customer, person=person, reason=reason)
        operation.close_died()
        operation.begin()
        yield operation
