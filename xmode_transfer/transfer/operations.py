"""Operations on a customer's bucket other than a delivery, recorded in the ledger.

An operation is recorded before its first request and closed with its outcome. If its process dies, the next
operation of its kind closes it.
"""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.records import Failure, Lease
from xmode_transfer.model.upkeep import INTENDED, OperationKind, OperationRecord, Removal, RemovalOutcome
from xmode_transfer.transfer.context import Context, held

INTERRUPTED = "interrupted"
LEFT_NAMED = 1000
"""The number of keys that an answer names of those that were not deleted; the ledger has all of them."""
_NOT_BY_US = (
    RemovalOutcome.CHANGED,
    RemovalOutcome.GONE,
    RemovalOutcome.RETAINED,
    RemovalOutcome.FAILED,
)


@dataclass(slots=True)
class Removed:
    """Counts of keys and of their bytes by outcome, manifests included. ``left`` has the first thousand keys
    that we did not delete; ``refusal`` is the first answer that refused a delete."""

    keys: Counter[RemovalOutcome] = field(default_factory=Counter)
    bytes: Counter[RemovalOutcome] = field(default_factory=Counter)
    left: list[Removal] = field(default_factory=list)
    interrupted: bool = False
    refusal: XmodeError | None = None

    @property
    def ours(self) -> int:
        """The number of keys that this operation deleted itself."""
        return self.keys[RemovalOutcome.DELETED] + self.keys[RemovalOutcome.HIDDEN]

    @property
    def our_bytes(self) -> int:
        return self.bytes[RemovalOutcome.DELETED] + self.bytes[RemovalOutcome.HIDDEN]

    def count(self, removal: Removal) -> None:
        self.keys[removal.outcome] += 1
        self.bytes[removal.outcome] += removal.size
        if removal.outcome in _NOT_BY_US and len(self.left) < LEFT_NAMED:
            self.left.append(removal)


class Operation:
    """One operation. Every operation of a kind holds the same ``lease`` while it runs. Therefore the
    unfinished operations in ``died`` belong to processes that were killed, or that do not know the outcome of
    their last requests."""

    def __init__(
        self, context: Context, lease: Lease, kind: OperationKind, customer: str, *, person: str, reason: str
    ) -> None:
        now = context.clock.now()
        self._context = context
        self._lease = lease
        self._ledger = context.ledger.operations
        self._customer = customer
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
        self.died: Sequence[OperationRecord] = [
            earlier for earlier in self._ledger.newest(customer, kind, None) if earlier.finished_at is None
        ]

    def begin(self) -> None:
        self._ledger.start(self._lease, self._record)

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
        """Closes the operation. ``inconclusive``: the outcome of the last requests is unknown. The operation
        and its plan then stay open, and the next operation of its kind settles them by what it finds."""
        if not inconclusive:
            self._ledger.forget_planned(self._lease, self.id)
        done = replace(
            self._record,
            finished_at=None if inconclusive else self._context.clock.now(),
            outcome=outcome,
            objects=objects,
            bytes=size,
            failed=failed,
            failure=failure,
        )
        self._ledger.finish(self._lease, done)

    # --- Those that died ----------------------------------------------------------------------------

    def inconclusive_feeds(self) -> set[str]:
        """Returns the feeds from which the operations that died had planned to delete keys."""
        return {
            item.feed
            for earlier in self.died
            for item in self._ledger.removals(earlier.id, outcomes=INTENDED)
        }

    def settle(self, keys: Sequence[str]) -> set[str]:
        """Of keys that the bucket no longer lists, records as deleted those that an operation that died had
        planned to delete. Returns them."""
        versioned = self._context.ledger.checks.capabilities(self._customer).versioned
        outcome = RemovalOutcome.HIDDEN if versioned else RemovalOutcome.DELETED
        return self._ledger.settle_removals(self._lease, self.died, keys, outcome, self._context.clock.now())

    def close_died(self) -> None:
        """Closes each operation that died with its known outcomes. Its remaining plan is dropped."""
        for earlier in self.died:
            self._ledger.forget_planned(self._lease, earlier.id)
            removed = Removed()
            for item in self._ledger.removals(earlier.id):
                removed.count(item)
            done = replace(
                earlier,
                finished_at=self._context.clock.now(),
                outcome=earlier.outcome or INTERRUPTED,
                objects=removed.ours,
                bytes=removed.our_bytes,
                failed=removed.keys[RemovalOutcome.FAILED],
            )
            self._ledger.finish(self._lease, done)
        self.died = ()


@contextmanager
def begun(
    context: Context, kind: OperationKind, customer: str, *, person: str, reason: str
) -> Iterator[Operation]:
    """Closes the operations that died and begins a new one, whose plan needs nothing from them. Raises
    AlreadyRunning while another process runs an operation of this kind."""
    with held(context.ledger, f"{kind}/{customer}", context.holder) as lease:
        operation = Operation(context, lease, kind, customer, person=person, reason=reason)
        operation.close_died()
        operation.begin()
        yield operation
