"""Helping with a delivery that another worker has divided: chunk after chunk, until none is left."""

from collections.abc import Callable
from dataclasses import dataclass

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Configuration, Customer, Feed
from xmode_transfer.domain.errors import (
    ConfigError,
    ExitCode,
    LeaseLost,
    LedgerError,
    Party,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.domain.records import Delivery
from xmode_transfer.domain.sharing import Chunk, Division, DivisionState, fingerprint
from xmode_transfer.services import leasing
from xmode_transfer.services.destination import Destination
from xmode_transfer.services.run import active_customer
from xmode_transfer.services.sending import Sent
from xmode_transfer.services.sharing import Eye, Work, result_of, was_interrupted
from xmode_transfer.services.workbench import Sharing, Workbench
from xmode_transfer.telemetry import Event


@dataclass(slots=True)
class Help:
    """What the help came to, and why it ended."""

    chunks: int = 0
    uploaded: int = 0
    uploaded_bytes: int = 0
    reason: str = "nothing is left to take"


def help_out(
    bench: Workbench,
    configuration: Configuration,
    delivery_id: str,
    *,
    enough: Callable[[], bool] = lambda: False,
) -> Help:
    """Takes chunks of the delivery and sends them, until none is left, ``bench.stop`` is set, or ``enough``
    says after a chunk that others want the place. What it finds out about the customer reaches the closer by
    the ledger; what may be this machine's own trouble does not: then the chunk is given back. Raises
    VendorIdentityError and LedgerError, which would meet every other delivery too."""
    sharing = bench.sharing
    helped = Help()
    if sharing is None:
        return helped
    state = sharing.shares.state(delivery_id)
    delivery = bench.ledger.deliveries.get(delivery_id)
    if state is None or delivery is None or state.ends or not state.unclaimed_count:
        return helped
    with telemetry.bind(customer=delivery.customer, feed=delivery.feed, period=delivery.period):
        try:
            _help(bench, sharing, configuration, delivery, state, enough, helped)
        finally:
            telemetry.log(
                Event.HELP_ENDED,
                chunks=helped.chunks,
                uploaded=helped.uploaded,
                sent_bytes=helped.uploaded_bytes,
                reason=helped.reason,
            )
    return helped


def _help(
    bench: Workbench,
    sharing: Sharing,
    configuration: Configuration,
    delivery: Delivery,
    state: DivisionState,
    enough: Callable[[], bool],
    helped: Help,
) -> None:
    if bench.holder in state.holders | {state.division.lease.holder}:
        # This process sends it already, within limits that two pieces at once do not raise. The job is held
        # for a moment, so that the next one goes to somebody else.
        helped.reason = "this process is at it already"
        bench.stop.wait(sharing.look_seconds)
        return
    try:
        customer, feed = _subscription(configuration, delivery)
    except XmodeError as error:
        helped.reason = str(error)
        return
    if fingerprint(customer, feed) != state.division.fingerprint:
        helped.reason = "this worker has read another configuration of the customer than the closer"
        return
    try:
        with Destination(bench, customer) as store:
            work = Work(bench, customer, feed, bench.sources(feed), store, delivery)
            _Helper(bench, sharing, work, state.division, helped).work(enough)
    except (VendorIdentityError, LedgerError) as error:
        helped.reason = error.message
        raise
    except LeaseLost:
        helped.reason = "the delivery is nobody's to help with any more"
    except XmodeError as error:
        helped.reason = error.message


def _subscription(configuration: Configuration, delivery: Delivery) -> tuple[Customer, Feed]:
    customer = active_customer(configuration, delivery.customer)
    if delivery.feed not in customer.feeds:
        raise ConfigError(f"{customer.name} does not subscribe to {delivery.feed} here")
    return customer, configuration.feeds[delivery.feed]


@dataclass(frozen=True, slots=True)
class _Helper:
    bench: Workbench
    sharing: Sharing
    work_on: Work
    division: Division
    helped: Help

    def work(self, enough: Callable[[], bool]) -> None:
        shares = self.sharing.shares
        with Eye(self.bench, self.sharing, self.division) as eye:
            noticed = False
            while not eye.stopped:
                chunk = shares.take(self.division, self.bench.holder, leasing.TTL_SECONDS)
                if chunk is None:
                    return
                if not noticed:
                    # Those who send already give up a part of what the customer may take before we use it.
                    eye.look()
                    with leasing.kept(self.bench.ledger, chunk.lease):
                        eye.wait(1.5)
                    noticed = True
                if not self._settled(chunk, eye, self.work_on.on(chunk, eye)):
                    return
                if enough():
                    self.helped.reason = "others want the place"
                    return
            self.helped.reason = "it was called off, or we are to stop"

    def _settled(self, chunk: Chunk, eye: Eye, sent: Sent) -> bool:
        """Records what came of a chunk. False when we had better not take another."""
        self.helped.uploaded += sent.uploaded
        self.helped.uploaded_bytes += sent.uploaded_bytes
        if isinstance(sent.halted, LeaseLost):
            return True  # of the chunk alone, if the next one can be taken
        if isinstance(sent.halted, LedgerError):
            raise sent.halted
        if sent.halted is None and (eye.stopped or was_interrupted(sent)):
            self.helped.reason = "it was called off, or we are to stop"
        elif _may_be_ours(sent):
            self.helped.reason = "what failed here may not fail elsewhere"
        else:
            self.sharing.shares.finish(chunk, result_of(sent))
            self.helped.chunks += 1
            return sent.halted is None
        self.sharing.shares.give_back(chunk, result_of(sent))
        if isinstance(sent.halted, VendorIdentityError):
            raise sent.halted
        return False


def _may_be_ours(sent: Sent) -> bool:
    """Whether what went wrong may be this machine's own trouble: its network, its mounts, its clock, its
    keys. The closer then finds out for itself."""
    if sent.halted is not None:
        return sent.halted.exit_code != ExitCode.BLOCKED
    parties = {failed.failure.party for failed in sent.failures}
    return bool(sent.failed) and not (sent.uploaded or sent.adopted) and parties != {Party.CUSTOMER}
