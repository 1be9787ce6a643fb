"""A customer's destination, opened for what changes it (delivering, cleaning up) or for looking."""

from collections.abc import Iterator
from contextlib import contextmanager

from xmode_transfer.domain.config import Customer, UnsafeRoles
from xmode_transfer.domain.errors import RoleRefused, UnsafeRole
from xmode_transfer.domain.policy import Step
from xmode_transfer.domain.records import Capabilities, Delivery, Status
from xmode_transfer.ports import CredentialsProvider, ObjectStore
from xmode_transfer.services.workbench import Workbench


@contextmanager
def opened(bench: Workbench, customer: Customer, step: Step) -> Iterator[ObjectStore]:
    """The store for a step that only looks: our identity is proven first, and the role assumed before the
    first request to the bucket. Raises what refuses it."""
    bench.sessions.verify_identity()
    credentials = bench.sessions.open(customer, step)
    credentials.get()
    store = bench.stores.open(customer, credentials, bench.ledger.checks.capabilities(customer.name).region)
    try:
        yield store
    finally:
        store.close()


class Destination:
    """The customer's store, opened for one step: our identity proven first, the role assumed before the
    first request."""

    def __init__(self, bench: Workbench, customer: Customer, step: Step = Step.DELIVER) -> None:
        self._bench = bench
        self._customer = customer
        self._step = step
        self._known = bench.ledger.checks.capabilities(customer.name)

    def admit(self) -> CredentialsProvider:
        """Sees to it that we are who we should be, and that the customer lets us in."""
        self._refuse_unsafe_role()
        self._bench.sessions.verify_identity()
        credentials = self._bench.sessions.open(self._customer, self._step)
        credentials.get()
        return credentials

    def __enter__(self) -> ObjectStore:
        credentials = self.admit()
        self._store = self._bench.stores.open(self._customer, credentials, self._known.region)
        return self._store

    def _refuse_unsafe_role(self) -> None:
        if self._bench.unsafe_roles is not UnsafeRoles.STOP:
            return
        last = self._bench.ledger.checks.last(self._customer.name)
        if last is not None and last.unsafe:
            raise UnsafeRole(
                f"{self._customer.name}: on {last.checked_at:%Y-%m-%d} its role could be assumed "
                "without its external ID",
                hint="the customer mends the role's trust policy (`xmode-transfer check-access` has the "
                "exact one); a check that finds it mended lets deliveries and cleanups go on",
            )

    def __exit__(self, *exc: object) -> None:
        region = self._store.region
        self._store.close()
        if region is not None and region != self._known.region:
            self._bench.ledger.checks.learn(
                self._customer.name, Capabilities(region=region, learned_at=self._bench.clock.now())
            )


def was_not_let_in(delivery: Delivery) -> bool:
    """Whether the delivery waits because the customer's role does not let us in."""
    causes = (RoleRefused.code, UnsafeRole.code)
    return (
        delivery.status is Status.BLOCKED
        and delivery.failure is not None
        and delivery.failure.cause in causes
    )
