"""Compare a feed's table at a destination with the ledger and the newest manifests.

The log's JSON commits are read from the first on, so memory grows with the files that are in the table.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer
from xmode_transfer.model.delta import DeltaTable, is_log_key, log_key, parsed, token
from xmode_transfer.model.errors import AccessDenied, Interrupted, KmsDenied, ObjectNotFound, XmodeError
from xmode_transfer.model.keys import count
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import DeliveredKey
from xmode_transfer.model.upkeep import INTENDED, CheckedKey, DiscrepancyKind, Judgement, Scope
from xmode_transfer.transfer.context import Context, in_order
from xmode_transfer.transfer.planning import delivery_id

LOG_PERIOD = "table"
"""Stands for a period where a discrepancy is one of the table's log."""
_THREADS = 8  # a commit of 10,000 files is about 5 MB, and each thread holds one
_TRIES = 5


class _Active(NamedTuple):
    size: int
    period: str
    revision: int


@dataclass(slots=True)
class TableCheck:
    """Iterate over it once, for what differs in ``scope``."""

    context: Context
    customer: Customer
    store: ObjectStore
    table: DeltaTable
    scope: Scope
    _active: dict[str, _Active] = field(default_factory=dict)

    def __iter__(self) -> Iterator[CheckedKey]:
        tables, of = self.context.ledger.tables, (self.customer.name, self.table.feed)
        root = self.table.root
        if not root.startswith(self.customer.destination.prefix):  # the session policy denies it
            where = f"the table began when the prefix was not {self.customer.destination.prefix} yet"
            yield self._of_log(root, DiscrepancyKind.ELSEWHERE, where)
            return
        read = self.table._replace(version=-1, table_schema="", checkpoint=None)
        try:
            for _ in range(_TRIES):  # a commit of another process meanwhile is read too
                now = tables.get(*of)
                if now is None or now.ending_at is not None:
                    return
                read, wrong = self._replay(read, now.version)
                found = [wrong] if wrong is not None else [*self._differences()]
                if wrong is not None or not found or tables.get(*of) == now:
                    yield from found
                    yield from self._not_ours(now.version)
                    return
            reason = f"the table changed during each of {count(_TRIES, 'comparison')}"
            yield self._of_log(root, DiscrepancyKind.UNCHECKED, reason)
        except XmodeError as error:
            denied = isinstance(error, AccessDenied | KmsDenied)
            if isinstance(error, Interrupted) or not (denied or error.retryable):
                raise
            kind = DiscrepancyKind.UNREADABLE if denied else DiscrepancyKind.UNCHECKED
            yield self._of_log(f"{root}_delta_log/", kind, error.message)

    def _replay(self, read: DeltaTable, version: int) -> tuple[DeltaTable, CheckedKey | None]:
        """Reads on up to a version of the ledger's; the first that is not as committed ends it."""
        root, altered = self.table.root, DiscrepancyKind.TABLE_ALTERED
        versions, threads = range(read.version + 1, version + 1), min(_THREADS, self.context.parallel)
        with in_order(self._read, versions, name="table", threads=threads) as commits:
            for number, body in zip(versions, commits, strict=True):
                self.context.check_stop("verify again: it starts from the beginning")
                if isinstance(body, str):
                    return read, self._of_log(log_key(root, number), altered, body)
                try:
                    read, commit, added, removed = parsed(read, body.splitlines())
                    if (read.id, read.columns) != (self.table.id, self.table.columns):
                        raise ValueError("it is another table's")
                except ValueError as error:
                    return read, self._of_log(log_key(root, number), altered, f"it is not as put: {error}")
                for key in removed:
                    self._active.pop(key, None)
                for file in added:
                    self._active[file.key] = _Active(file.size, file.period, commit.revision or 0)
        return read, None

    def _read(self, version: int) -> bytes | str:
        """Return the commit, or what is wrong with it."""
        key = log_key(self.table.root, version)
        info = self.store.head(key)
        try:
            if info is not None and info.token == token(self.customer.name, self.table.feed):
                return b"".join(self.store.read(key))
        except ObjectNotFound:  # deleted since the HEAD
            info = None
        return "the version no longer exists" if info is None else "it does not have our token"

    def _not_ours(self, version: int) -> Iterator[CheckedKey]:
        """A version of ours that the ledger does not have yet is read by the next delivery."""
        root = self.table.root
        for item in self.store.list(f"{root}_delta_log/", log_key(root, version) if version >= 0 else None):
            if is_log_key(root, item.key) and item.key.endswith(".json"):
                info = self.store.head(item.key)
                if info is not None and info.token != token(self.customer.name, self.table.feed):
                    message = "it is not ours: another writer has added a version"
                    yield self._of_log(item.key, DiscrepancyKind.TABLE_ALTERED, message)

    def _differences(self) -> Iterator[CheckedKey]:
        feed, differs = self.table.feed, DiscrepancyKind.TABLE_DIFFERS
        current, going, listed = self._current(), self._going(), set[str]()
        for known in self._listed(current):
            listed.add(known.key)
            if known.key in going or not self.scope.covers(feed, known.period):
                continue
            there = self._active.get(known.key)
            if there is None:
                yield self._checked(known, differs, "the newest manifest lists it, the table does not")
            elif there.size != known.size:
                sizes = f"{count(there.size, 'byte')}, the manifest with {known.size:,}"
                yield self._checked(known, differs, f"the table has it with {sizes}")

        @cache
        def left_out(period: str) -> set[str]:
            """What an adoption could not prove, or what was gone when a later revision carried it."""
            ids = (delivery_id(self.customer.name, feed, period, number) for number in current[period])
            return {item.key for one in ids for item in self.context.ledger.objects.left_out(one)}

        for key, (size, period, revision) in self._active.items():
            if key in listed or key in going or not self.scope.covers(feed, period):
                continue
            if key not in left_out(period):
                of = DeliveredKey(key, size, None, feed, period, revision, self.context.clock.now())
                yield self._checked(of, differs, "the table has it, and no newest manifest lists it")

    def _current(self) -> Mapping[str, set[int]]:
        """Return the revisions that the table should show, by period: the newest with a manifest, or one
        that is committed and gets its manifest next; of a drop folder, all that no other one replaces."""
        ledger, of = self.context.ledger, (self.customer.name, self.table.feed)
        current, replaced = defaultdict[str, set[int]](set), set[int]()
        for known in ledger.keys.delivered(*of):
            if not known.name and known.etag is None:
                current[known.period].add(known.revision)
        for delivery in ledger.deliveries.find(*of, PeriodKind.NONE):
            replaced.update(delivery.replaces or ())
        last: dict[str, int | None] = {}
        for commit in ledger.tables.commits(*of):  # the newest first
            last.setdefault(commit.period, commit.revision)
        for period, revision in last.items():
            if revision is not None and revision > max(current[period], default=0):
                current[period].add(revision)
        for period, revisions in current.items():
            keep = revisions - replaced if period == PeriodKind.NONE else {max(revisions, default=0)}
            current[period] = keep
        return current

    def _listed(self, current: Mapping[str, set[int]]) -> Iterator[DeliveredKey]:
        """Yield the Parquet objects of these revisions; of a drop folder, the newest of each name."""
        newest: dict[str, tuple[int, DeliveredKey]] = {}
        of = (self.customer.name, self.table.feed)
        for known in self.context.ledger.keys.delivered(*of):
            revision = max(current[known.period].intersection(known.named_by), default=0)
            in_table = known.key.endswith(".parquet") and known.key.startswith(self.table.root)
            if not known.name or not revision or not in_table:
                continue
            if known.period != PeriodKind.NONE:
                yield known
            elif known.name not in newest or newest[known.name][0] < revision:
                newest[known.name] = (revision, known)
        gone = {
            item.name: item.removed
            for item in self.context.ledger.objects.receipts(*of, PeriodKind.NONE)
            if not item.superseded
        }  # the newest of its name is removed: an older one does not come back
        yield from (known for _, known in newest.values() if not gone[known.name])

    def _going(self) -> set[str]:
        """Return the keys that an unfinished operation is about to delete."""
        operations = self.context.ledger.operations
        unfinished = [
            item for item in operations.newest(self.customer.name, None, None) if not item.finished_at
        ]
        return {
            item.key
            for operation in unfinished
            for item in operations.removals(operation.id, self.table.feed, outcomes=INTENDED)
        }

    def _of_log(self, key: str, kind: DiscrepancyKind, message: str) -> CheckedKey:
        of = DeliveredKey(key, None, None, self.table.feed, LOG_PERIOD, 0, self.context.clock.now())
        return self._checked(of, kind, message)

    def _checked(self, known: DeliveredKey, kind: DiscrepancyKind, message: str) -> CheckedKey:
        at = self.context.clock.now()
        return CheckedKey(known, None, Judgement(kind, message), None, at, of_table=True)
