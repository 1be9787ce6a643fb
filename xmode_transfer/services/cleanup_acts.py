"""A cleanup's acts in the ledger: its own, and those of processes that died before they were done."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from xmode_transfer.domain.acts import Act, ActKind, Removal, RemovalOutcome
from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.records import Failure, Lease
from xmode_transfer.services.acts import INTERRUPTED
from xmode_transfer.services.removing import Removed
from xmode_transfer.services.workbench import Workbench

CLEANED = "cleaned"
_INTENDED = (RemovalOutcome.PLANNED, RemovalOutcome.DOUBTFUL)


@dataclass(slots=True)
class Journal:
    """What one cleanup writes (and an ``expiring.Recorder``). ``lease`` is the cleanup's own; ``died`` are
    the acts that are not closed: their processes were killed, or do not know what became of their last
    requests."""

    bench: Workbench
    customer: Customer
    lease: Lease
    act: Act
    died: Sequence[Act] = field(default_factory=tuple)

    def begin(self) -> None:
        self.bench.ledger.operations.start(self.lease, self.act)

    def planned(self, removals: Sequence[Removal]) -> None:
        self.bench.ledger.operations.record_removals(self.lease, self.act.id, removals)

    def settle(self, keys: Sequence[str]) -> set[str]:
        if not self.died:
            return set()
        versioned = self.bench.ledger.checks.capabilities(self.customer.name).versioned
        outcome = RemovalOutcome.HIDDEN if versioned else RemovalOutcome.DELETED
        return self.bench.ledger.operations.settle_removals(
            self.lease, self.died, keys, outcome, self.bench.clock.now()
        )

    def close(
        self, outcome: str, removed: Removed, failure: Failure | None, *, in_doubt: bool = False
    ) -> None:
        """``in_doubt``: what the last requests did is not known, so the act stays open, with what it had
        planned, for the next cleanup to settle by what it then finds."""
        if not in_doubt:
            self.bench.ledger.operations.forget_planned(self.lease, self.act.id)
        self._finish(self.act, outcome, removed, failure, closed=not in_doubt)

    def close_died(self) -> None:
        """After a whole listing has settled what they had planned."""
        ledger = self.bench.ledger
        for act in self.died:
            ledger.operations.forget_planned(self.lease, act.id)
            counts = Removed()
            for item in ledger.operations.removals(act.id):
                counts.count(item)
            self._finish(act, act.outcome or INTERRUPTED, counts, act.failure, closed=True)
        self.died = ()

    def _finish(
        self, act: Act, outcome: str, removed: Removed, failure: Failure | None, *, closed: bool
    ) -> None:
        done = replace(
            act,
            finished_at=self.bench.clock.now() if closed else None,
            outcome=outcome,
            objects=removed.ours,
            bytes=removed.our_bytes,
            failed=removed.keys[RemovalOutcome.FAILED],
            failure=failure,
        )
        self.bench.ledger.operations.finish(self.lease, done)


def new_act(bench: Workbench, customer: Customer, *, person: str, confirmed: bool) -> Act:
    now = bench.clock.now()
    retention = customer.retention
    policy = retention.model_dump_json(exclude_defaults=True) if retention is not None else "none"
    return Act(
        id=f"cleanup-{customer.name}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        kind=ActKind.CLEANUP,
        customer=customer.name,
        holder=bench.holder,
        person=person,
        reason=f"retention {policy}" + (", confirmed" if confirmed else ""),
        started_at=now,
    )


def feeds_in_doubt(bench: Workbench, acts: Sequence[Act]) -> set[str]:
    """The feeds of which acts that died had planned to remove something."""
    return {
        item.feed for act in acts for item in bench.ledger.operations.removals(act.id, outcomes=_INTENDED)
    }


def confirmed_before(acts: Sequence[Act]) -> bool:
    """Whether a person has let a cleanup of this customer go ahead: nothing else gets that far the first
    time."""
    return any(act.objects or act.outcome == CLEANED for act in acts)
