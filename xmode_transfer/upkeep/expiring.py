"""Plan a cleanup: join the ledger's keys with the bucket's in one pass, and apply the policy to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer
from xmode_transfer.model.upkeep import Removal, RemovalOutcome
from xmode_transfer.transfer.context import Context, Operation
from xmode_transfer.transfer.removing import LEFT_NAMED, ExpiringPeriod, States, planned_removal
from xmode_transfer.upkeep.listing import compare
from xmode_transfer.upkeep.retention import Action, DeliveryKey, Verdict, decide

_BATCH = 1000


@dataclass(slots=True)
class Expiring:
    """The plan. ``objects`` excludes the manifests, ``bytes`` includes them. ``doubtful`` counts keys that
    expire but are not listed as we put them; ``left`` has the first thousand of them. ``unmanaged`` are keys
    that are not ours, ``settled`` those that an operation that died had deleted."""

    periods: dict[tuple[str, str], ExpiringPeriod] = field(default_factory=dict)
    objects: int = 0
    bytes: int = 0
    manifests: int = 0
    doubtful: int = 0
    kept: int = 0
    unmanaged: int = 0
    listed: int = 0
    settled: int = 0
    left: list[Removal] = field(default_factory=list)


@dataclass(slots=True)
class Planning:
    """One pass; without an ``operation``, a dry run. Beyond ``most_objects``, the plan is counted but not
    recorded, because it will not be applied."""

    context: Context
    customer: Customer
    store: ObjectStore
    verdicts: Mapping[DeliveryKey, Verdict]
    states: Mapping[tuple[str, str], States]
    feeds: Sequence[str]
    operation: Operation | None
    most_objects: int | None
    _plan: Expiring = field(default_factory=Expiring)
    _unwritten: list[Removal] = field(default_factory=list)
    _unseen: dict[str, tuple[Removal, bool]] = field(default_factory=dict)

    def plan(self) -> Expiring:
        """If this raises, no part of the plan may be used."""
        prefix = self.customer.destination.prefix
        below = tuple(f"{prefix}{feed}/" for feed in sorted(self.feeds, key=lambda feed: f"{feed}/"))
        delivered = self.context.ledger.keys.delivered(self.customer.name)
        known = (item for item in delivered if item.key.startswith(below))
        # feed by feed, in the order of their keys
        for item in compare(chain.from_iterable(map(self.store.list, below)), known, prefix):
            self.context.check_stop("clean up again: nothing was deleted")
            self._plan.listed += item.there is not None
            if item.known is None:
                self._plan.unmanaged += 1
                continue
            action, reason = decide(self.verdicts, item.known, item.there, prefix)
            if action is Action.KEEP and item.there is not None:
                self._plan.kept += 1
                continue
            there = item.there if action is Action.EXPIRE else None
            removal = planned_removal(item.known, there, reason, self.context.clock.now())
            if item.there is None:
                self._unseen[item.key] = removal, action is Action.LEAVE_GONE
                if len(self._unseen) >= _BATCH:
                    self._settle()
            elif action is Action.LEAVE_CHANGED:
                self._note_inconclusive(removal, RemovalOutcome.CHANGED)
            else:
                self._expire(removal)
        self._settle()
        self._write()
        return self._plan

    def _expire(self, removal: Removal) -> None:
        plan, period = self._plan, self._period(removal)
        if removal.manifest:
            plan.manifests += 1
            period.manifests.append(removal)
        else:
            plan.objects += 1
            period.objects += 1
        plan.bytes += removal.size
        period.bytes += removal.size
        if self.most_objects is None or plan.objects <= self.most_objects:
            self._record(removal)

    def _note_inconclusive(self, removal: Removal, seems: RemovalOutcome) -> None:
        plan, period = self._plan, self._period(removal)
        plan.doubtful += 1
        if len(plan.left) < LEFT_NAMED:
            plan.left.append(removal._replace(outcome=seems))
        if removal.manifest:
            period.manifests.append(removal)
        else:
            period.doubtful += 1
        self._record(removal)

    def _settle(self) -> None:
        """Settles unlisted keys: an operation that died deleted them, or a HEAD checks those that expire."""
        settled = self.operation.settle(list(self._unseen)) if self.operation and self._unseen else set()
        self._plan.settled += len(settled)
        for key, (removal, expires) in self._unseen.items():
            if expires and key not in settled:
                self._note_inconclusive(removal, RemovalOutcome.GONE)
        self._unseen.clear()

    def _period(self, removal: Removal) -> ExpiringPeriod:
        of = (removal.feed, removal.period)
        if of not in self._plan.periods:
            self._plan.periods[of] = ExpiringPeriod(*of, removal.reason, self.states[of])
        return self._plan.periods[of]

    def _record(self, removal: Removal) -> None:
        if self.operation is not None:
            self._unwritten.append(removal)
            if len(self._unwritten) >= _BATCH:
                self._write()

    def _write(self) -> None:
        if self.operation is not None and self._unwritten:
            self.operation.record(self._unwritten)
            self._unwritten = []
