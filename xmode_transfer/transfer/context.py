"""The context of an execution: the interfaces and settings that deliveries and upkeep work with."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from xmode_transfer import telemetry
from xmode_transfer.aws.policy import Step
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import ObjectStore, ObjectStores
from xmode_transfer.config import Customer, Limits, UnsafeRoles, Vendor
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import AlreadyRunning, Interrupted, LeaseLost, UnsafeRole, XmodeError
from xmode_transfer.model.jobs import Backoff
from xmode_transfer.model.process import Attestation, Clock, Progress
from xmode_transfer.model.records import Capabilities, Lease
from xmode_transfer.sources.interface import ChecksumOf, SourceFactory
from xmode_transfer.telemetry import Event

if TYPE_CHECKING:  # botocore takes a while to import
    from xmode_transfer.aws.sts import RoleSessions


@dataclass(frozen=True, slots=True)
class Context:
    """The ports, put together by ``service.assembly``. ``stop`` is set when the process is asked to end;
    work then stops at the next object, recorded and resumable. ``holder`` names this process in leases.
    Without ``attestation`` nothing is signed or attested."""

    vendor: Vendor
    limits: Limits
    sources: SourceFactory
    sessions: "RoleSessions"
    stores: ObjectStores
    ledger: Ledger
    clock: Clock
    progress: Progress
    checksum_of: ChecksumOf
    holder: str
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER
    backoff: Backoff = field(default_factory=Backoff)
    stop: threading.Event = field(default_factory=threading.Event)
    attestation: Attestation | None = None

    @property
    def parallel(self) -> int:
        """The number of concurrent requests for one customer."""
        return min(self.limits.parallel_objects, self.limits.parallel_objects_per_customer)

    def check_stop(self, hint: str) -> None:
        """Raises Interrupted when the process is asked to end; ``hint`` says how the work
        continues."""
        if self.stop.is_set():
            raise Interrupted("stopped on request", hint=hint)


_READING = (Step.LIST, Step.VERIFY)


@contextmanager
def opened(context: Context, customer: Customer, step: Step = Step.DELIVER) -> Iterator[ObjectStore]:
    """Opens the customer's store for one step, after access is granted. A step that changes the destination
    records its Region in the ledger; a step that reads records nothing. Raises the error that refuses
    access."""
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
    """Streams the results. Begins ``ahead`` items for each thread, so that a slow item does not hold up the
    others. At the end, also after an error, running items finish and no other item begins."""
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
    """Returns the name of the lease for changes to a period's delivery."""
    return f"delivery/{customer}/{feed}/{period}"


@contextmanager
def held(
    ledger: Ledger, name: str, holder: str, *, wait_seconds: float = 0, stop: threading.Event | None = None
) -> Iterator[Lease]:
    """Claims ``name``, renews the lease in the background, and releases it at the end. Raises AlreadyRunning
    if another process still holds it after ``wait_seconds``, or if ``stop`` is set while waiting."""
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
    """Renews our lease in the background; the caller releases it. Calls ``lost`` in another thread when
    another process has taken the lease over."""
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
