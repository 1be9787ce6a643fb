"""Open a customer's destination for changes (deliveries, cleanups) or for reading."""

from collections.abc import Iterator
from contextlib import contextmanager

from xmode_transfer.aws.policy import Step
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer, UnsafeRoles
from xmode_transfer.model.errors import UnsafeRole
from xmode_transfer.model.records import Capabilities
from xmode_transfer.transfer.context import Context

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
