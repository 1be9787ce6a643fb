"""A customer's destination, opened for what changes it (delivering, cleaning up) or for looking."""

from collections.abc import Iterator
from contextlib import contextmanager

from xmode_transfer.aws.policy import Step
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer, UnsafeRoles
from xmode_transfer.model.errors import UnsafeRole
from xmode_transfer.model.records import Capabilities
from xmode_transfer.transfer.context import Context

_LOOKING = (Step.LIST, Step.VERIFY)


@contextmanager
def opened(context: Context, customer: Customer, step: Step = Step.DELIVER) -> Iterator[ObjectStore]:
    """The customer's store for one step: we are admitted before the first request. Its Region is remembered
    by whoever changes it; a look writes nothing. Raises what refuses it."""
    credentials = admit(context, customer, step)
    known = context.ledger.checks.capabilities(customer.name).region
    store = context.stores.open(customer, credentials, known)
    try:
        yield store
    finally:
        region = store.region
        store.close()
        if step not in _LOOKING and region is not None and region != known:
            learnt = Capabilities(region=region, learned_at=context.clock.now())
            context.ledger.checks.learn(customer.name, learnt)


def admit(context: Context, customer: Customer, step: Step = Step.DELIVER) -> CredentialsProvider:
    """Sees to it that we are who we should be, that the customer lets us in, and that nothing is changed by a
    role that is not safe."""
    if context.unsafe_roles is UnsafeRoles.STOP and step not in _LOOKING:
        last = context.ledger.checks.last(customer.name)
        if last is not None and last.unsafe:
            raise UnsafeRole(
                f"{customer.name}: on {last.checked_at:%Y-%m-%d} its role could be assumed "
                "without its external ID",
                hint="the customer mends the role's trust policy (`xmode-transfer check-access` has the "
                "exact one); a check that finds it mended lets deliveries and cleanups go on",
            )
    context.sessions.verify_identity()
    credentials = context.sessions.open(customer, step)
    credentials.get()
    return credentials
