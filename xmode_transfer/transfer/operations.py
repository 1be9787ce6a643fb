"""What is done to a customer's bucket besides delivering, as the ledger records it: begun before the first
request, and closed with what it came to, by the next of its kind where its process died."""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.operations import INTENDED, Act, ActKind, Removal, RemovalOutcome
from xmode_transfer.model.records import Failure, Lease
from xmode_transfer.transfer import leasing
from xmode_transfer.transfer.context import Context

INTERRUPTED = "interrupted"
LEFT_NAMED = 1000
"""How many of the keys that are not removed an answer names; the ledger has them all."""
_NOT_BY_US = (
    RemovalOutcome.CHANGED,
    RemovalOutcome.GONE,
    RemovalOutcome.RETAINED,
    RemovalOutcome.FAILED,
)


@dataclass(slots=True)
class Removed:
    """What came of it, by outcome: keys and their bytes, manifests among them. ``left`` names the first
    thousand keys that were not removed by us; ``refusal`` is the first answer that refused one."""

    keys: Counter[RemovalOutcome] = field(default_factory=Counter)
    bytes: Counter[RemovalOutcome] = field(default_factory=Counter)
    left: list[Removal] = field(default_factory=list)
    interrupted: bool = False
    refusal: XmodeError | None = None

    @property
    def ours(self) -> int:
        """Keys that this operation removed itself."""
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
    """One operation. ``lease`` is the one that every operation of its kind holds while it lasts, so whoever
    began those in ``died``, which were never finished, was killed or does not know what became of its last
    requests."""

    def __init__(
        self, context: Context, lease: Lease, kind: ActKind, customer: str, *, person: str, reason: str
    ) -> None:
        now = context.clock.now()
        self._context = context
        self._lease = lease
        self._ledger = context.ledger.operations
        self._customer = customer
        self._act = Act(
            id=f"{kind}-{customer}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
            kind=kind,
            customer=customer,
            holder=context.holder,
            person=person,
            reason=reason,
            started_at=now,
        )
        self.id = self._act.id
        self.died: Sequence[Act] = [
            act for act in self._ledger.newest(customer, kind, None) if act.finished_at is None
        ]

    def begin(self) -> None:
        self._ledger.start(self._lease, self._act)

    def record(self, removals: Sequence[Removal]) -> None:
        """What is planned to be removed, or what became of it."""
        self._ledger.record_removals(self._lease, self.id, removals)

    def finish(
        self,
        outcome: str,
        *,
        objects: int,
        size: int,
        failed: int,
        failure: Failure | None,
        in_doubt: bool = False,
    ) -> None:
        """``in_doubt``: what the last requests did is not known, so it stays open, with what it had planned,
        for the next of its kind to settle by what it then finds."""
        if not in_doubt:
            self._ledger.forget_planned(self._lease, self.id)
        done = replace(
            self._act,
            finished_at=None if in_doubt else self._context.clock.now(),
            outcome=outcome,
            objects=objects,
            bytes=size,
            failed=failed,
            failure=failure,
        )
        self._ledger.finish(self._lease, done)

    # --- Those that died ----------------------------------------------------------------------------

    def feeds_in_doubt(self) -> set[str]:
        """The feeds of which those that died had planned to remove something."""
        return {item.feed for act in self.died for item in self._ledger.removals(act.id, outcomes=INTENDED)}

    def settle(self, keys: Sequence[str]) -> set[str]:
        """Of keys that the bucket does not show, those that one that died had planned to remove: it has."""
        versioned = self._context.ledger.checks.capabilities(self._customer).versioned
        outcome = RemovalOutcome.HIDDEN if versioned else RemovalOutcome.DELETED
        return self._ledger.settle_removals(self._lease, self.died, keys, outcome, self._context.clock.now())

    def close_died(self) -> None:
        """With what is known of each by now; what it has only planned is forgotten."""
        for act in self.died:
            self._ledger.forget_planned(self._lease, act.id)
            removed = Removed()
            for item in self._ledger.removals(act.id):
                removed.count(item)
            done = replace(
                act,
                finished_at=self._context.clock.now(),
                outcome=act.outcome or INTERRUPTED,
                objects=removed.ours,
                bytes=removed.our_bytes,
                failed=removed.keys[RemovalOutcome.FAILED],
            )
            self._ledger.finish(self._lease, done)
        self.died = ()


@contextmanager
def begun(context: Context, kind: ActKind, customer: str, *, person: str, reason: str) -> Iterator[Operation]:
    """An operation whose plan needs nothing of those that died: they are closed, and it is begun. Raises
    AlreadyRunning when another process is at one of its kind."""
    with leasing.held(context.ledger, f"{kind}/{customer}", context.holder) as lease:
        operation = Operation(context, lease, kind, customer, person=person, reason=reason)
        operation.close_died()
        operation.begin()
        yield operation
