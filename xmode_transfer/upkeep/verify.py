"""Verify deliveries: compare every key at a destination with the ledger and the manifests, as streams."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice

from xmode_transfer import telemetry
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import ObjectAcl, ObjectStore, Reader, difference, usual
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import (
    AccessDenied,
    ExitCode,
    Interrupted,
    KmsDenied,
    ObjectNotFound,
    Responsible,
    XmodeError,
)
from xmode_transfer.model.manifest import timestamp
from xmode_transfer.model.records import DeliveredKey
from xmode_transfer.model.upkeep import (
    CheckedKey,
    Discrepancy,
    DiscrepancyKind,
    Finding,
    Judgement,
    Proof,
    Scope,
    expected_checksums,
    in_sample,
    judge,
    judge_bytes,
    manifest_differences,
)
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, in_order, opened
from xmode_transfer.transfer.manifest_reading import ManifestReader, NoManifest
from xmode_transfer.transfer.planning import delivery_id
from xmode_transfer.upkeep.listing import Standing, compare, table_roots
from xmode_transfer.upkeep.table_check import TableCheck

PROVEN = "proven"
NOTHING = "nothing"
DIFFERS = "differs"
INCOMPLETE = "incomplete"

_WINDOW = 8  # keys begun for each thread, so that a slow one does not block the others
_MOST_IN_A_ROW = 20  # after this many consecutive keys that cannot be checked, all are assumed to fail
_USUAL_OF = 50
_MOST_LOGGED = 100
_SHOWN_DIFFERENCES = 3
_NOT_KNOWN = frozenset({DiscrepancyKind.ELSEWHERE, DiscrepancyKind.UNREADABLE, DiscrepancyKind.UNCHECKED})


@dataclass(slots=True)
class Verified:
    """``unmanaged`` counts keys below the prefix that are not ours; None for a scope of some periods.
    ``superseded`` counts keys of revisions that were never published, ``withdrawn`` those that a recall has
    withdrawn and that are still there: nothing is to be proven of them. ``tables`` counts the feeds of which
    the table was compared with the manifests."""

    keys: int = 0
    proven: int = 0
    proven_bytes: int = 0
    proofs: Counter[Proof] = field(default_factory=Counter)
    rewritten: int = 0
    acl_checked: int = 0
    discrepancies: Counter[DiscrepancyKind] = field(default_factory=Counter)
    tables: int = 0
    unmanaged: int | None = None
    superseded: int = 0
    withdrawn: int = 0

    def count(self, checked: CheckedKey) -> None:
        judgement = checked.judgement
        if checked.of_table and judgement.kind is not None:
            self.discrepancies[judgement.kind] += 1
            return
        self.keys += 1
        self.acl_checked += checked.acl is not None
        if judgement.kind is not None:
            self.discrepancies[judgement.kind] += 1
            return
        self.proven += 1
        self.proven_bytes += checked.seen.size if checked.seen is not None else 0
        self.rewritten += judgement.rewritten
        if judgement.proof is not None:
            self.proofs[judgement.proof] += 1

    @property
    def outcome(self) -> str:
        """``incomplete`` if only some keys could not be checked; ``nothing`` without a key to prove."""
        if any(kind not in _NOT_KNOWN for kind in self.discrepancies):
            return DIFFERS
        if self.discrepancies:
            return INCOMPLETE
        return PROVEN if self.keys else NOTHING

    @property
    def exit_code(self) -> int:
        responsible = {kind.responsible for kind in self.discrepancies}
        if Responsible.CUSTOMER in responsible:
            return ExitCode.BLOCKED
        return ExitCode.WILL_RETRY if responsible else ExitCode.DONE

    def summary(self, at: datetime) -> dict[str, object]:
        """Return the last line but one of a receipt."""
        return {
            "outcome": self.outcome,
            "proven": self.proven,
            "bytes": self.proven_bytes,
            "findings": {str(kind): count for kind, count in sorted(self.discrepancies.items())},
            "finished_at": timestamp(at),
        }


@dataclass(slots=True)
class Verification:
    """Iterate over it once; ``verified`` is then complete. ``deep`` reads every object with ``reader``.
    ``acl_sample`` is the number of ACLs to read, others each day (None: all)."""

    context: Context
    customer: Customer
    scope: Scope
    reader: Reader
    deep: bool = False
    acl_sample: int | None = 1000
    verified: Verified = field(default_factory=Verified)
    _expected_acl: ObjectAcl | None = None
    _found: dict[tuple[str, str, DiscrepancyKind], Discrepancy] = field(default_factory=dict)
    _in_a_row: int = 0

    def __iter__(self) -> Iterator[tuple[CheckedKey, Finding | None]]:
        """Yield every key that should exist according to the ledger, in order, with its discrepancy."""
        context, name, scope = self.context, self.customer.name, self.scope
        started = context.clock.monotonic()
        held = [item for item in context.ledger.keys.holdings(name) if scope.covers(item.feed, item.period)]
        count, total = sum(item.objects for item in held), sum(item.bytes for item in held)
        context.progress.delivery_started(name, scope.feed or "all feeds", "verify", count, total)
        with telemetry.bind(customer=name):
            telemetry.log(Event.VERIFY_STARTED, feed=scope.feed, period=scope.period, deep=self.deep)
            outcome = "failed"
            try:
                with opened(context, self.customer, Step.VERIFY) as store:
                    yield from self._checked(store, count)
                outcome = self.verified.outcome
                # Health reports them until a later verification finds these periods as delivered.
                context.ledger.discrepancies.record(name, scope, self._found.values())
            except XmodeError as error:
                outcomes = {ExitCode.INTERRUPTED: "interrupted", ExitCode.BLOCKED: "blocked"}
                outcome = outcomes.get(error.exit_code, outcome)
                raise
            finally:
                context.progress.delivery_finished()
                verified = self.verified
                telemetry.log(
                    Event.VERIFY_FINISHED,
                    outcome=outcome,
                    keys=verified.keys,
                    proven=verified.proven,
                    proven_bytes=verified.proven_bytes,
                    acl_checked=verified.acl_checked,
                    tables=verified.tables,
                    unmanaged=verified.unmanaged,
                    superseded=verified.superseded,
                    withdrawn=verified.withdrawn,
                    seconds=round(context.clock.monotonic() - started, 3),
                    **{str(kind): count for kind, count in verified.discrepancies.items()},
                )

    def _checked(self, store: ObjectStore, count: int) -> Iterator[tuple[CheckedKey, Finding | None]]:
        salt = f"{self.context.clock.now():%Y-%m-%d}"
        self._expected_acl = self._usual_acl(store)

        def keys() -> Iterator[tuple[DeliveredKey, bool]]:
            for known in self._keys(store):
                self.context.check_stop("verify again: it starts from the beginning")
                yield known, in_sample(known.key, salt, count, self.acl_sample)

        check = partial(self._check, store)
        with in_order(check, keys(), name="verify", threads=self.context.parallel, ahead=_WINDOW) as checked:
            for item, error in checked:
                yield self._settled(item, error)
        for table in self.context.ledger.tables.find(self.customer.name):
            if self.scope.feed in (None, table.feed):
                self.verified.tables += 1
                for differing in TableCheck(self.context, self.customer, store, table, self.scope):
                    self.verified.count(differing)
                    yield differing, self._noted(differing)

    def _keys(self, store: ObjectStore) -> Iterator[DeliveredKey]:
        scope, name = self.scope, self.customer.name
        known = self.context.ledger.keys.delivered(name, scope.feed, scope.period)
        if not scope.is_whole:
            for item in known:
                if scope.covers(item.feed, item.period):
                    if item.withdrawn:
                        self.verified.withdrawn += 1
                    elif item.superseded:
                        self.verified.superseded += 1
                    else:
                        yield item
            return
        self.verified.unmanaged = 0
        below = self.customer.destination.prefix + (f"{scope.feed}/" if scope.feed else "")
        prefix, roots = self.customer.destination.prefix, table_roots(self.context, name)
        for listed in compare(store.list(below), known, prefix, roots):
            if listed.standing is Standing.WITHDRAWN:
                self.verified.withdrawn += 1
            elif listed.standing is Standing.SUPERSEDED:
                self.verified.superseded += 1
            elif listed.known is not None:
                yield listed.known
            elif listed.standing is Standing.UNMANAGED:
                self.verified.unmanaged += 1

    def _usual_acl(self, store: ObjectStore) -> ObjectAcl | None:
        """Return the ACL of most of our objects, if the role is outside of the bucket's account."""
        if self.customer.bucket_owner == self.customer.account_id:
            return None
        found = []
        known = self.context.ledger.keys.delivered(self.customer.name, self.scope.feed, self.scope.period)
        for item in islice(known, _USUAL_OF):
            with suppress(ObjectNotFound):
                found.append(store.acl(item.key))
        return usual(found)

    def _check(
        self, store: ObjectStore, item: tuple[DeliveredKey, bool]
    ) -> tuple[CheckedKey, XmodeError | None]:
        """Return the error that prevented the check, if there is one."""
        known, with_acl = item
        now = self.context.clock.now()
        try:
            return self._judge(store, known, with_acl, now), None
        except Interrupted:
            raise
        except XmodeError as error:
            denied = isinstance(error, AccessDenied | KmsDenied)
            if not denied and not error.retryable:
                raise
            kind = DiscrepancyKind.UNREADABLE if denied else DiscrepancyKind.UNCHECKED
            return CheckedKey(known, None, Judgement(kind, error.message), None, now), error

    def _judge(self, store: ObjectStore, known: DeliveredKey, with_acl: bool, now: datetime) -> CheckedKey:
        prefix = self.customer.destination.prefix
        if not known.key.startswith(prefix):  # the session policy denies it
            where = f"it was delivered when the destination's prefix was not {prefix} yet"
            return CheckedKey(known, None, Judgement(DiscrepancyKind.ELSEWHERE, where), None, now)
        seen = store.head(known.key)
        judgement = judge(known, seen)
        acl: bool | None = None
        try:
            if judgement.kind is None and known.etag is None:
                judgement = self._judge_manifest(store, known, judgement)
            elif judgement.kind is None and self.deep:
                progress = self.context.progress.bytes_sent
                read = self.reader.read(store, known.key, expected_checksums(known), progress)
                judgement = judge_bytes(known, read, judgement)
            if judgement.kind is None and with_acl:
                found, owner = store.acl(known.key), self.customer.bucket_owner
                change = difference(found, self._expected_acl, bucket_owner=owner)
                acl = change is None
                if change is not None:
                    judgement = judgement._replace(kind=DiscrepancyKind.ACL_CHANGED, message=change)
        except ObjectNotFound:  # deleted since the HEAD
            seen, judgement, acl = None, judge(known, None), None
        return CheckedKey(known, seen, judgement, acl, now)

    def _judge_manifest(self, store: ObjectStore, known: DeliveredKey, before: Judgement) -> Judgement:
        """Compares the manifest's content with the ledger."""
        identity = delivery_id(self.customer.name, known.feed, known.period, known.revision)
        reader = ManifestReader(store.read(known.key))
        planned = self.context.ledger.objects.planned(identity)
        receipts = (receipt for _, receipt in planned if receipt is not None)
        try:
            differences = list(islice(manifest_differences(reader, receipts), _SHOWN_DIFFERENCES))
        except NoManifest as error:
            return Judgement(DiscrepancyKind.ALTERED, f"it is no manifest any more: {error}")
        if not differences and reader.members.get("delivery") != identity:
            differences = ["it names another delivery"]
        if differences:
            return before._replace(kind=DiscrepancyKind.MANIFEST_DIFFERS, message="; ".join(differences))
        return before

    def _settled(self, checked: CheckedKey, error: XmodeError | None) -> tuple[CheckedKey, Finding | None]:
        """Counts a key. Raises the error if too many keys failed in a row."""
        verified, judgement, known = self.verified, checked.judgement, checked.known
        self._in_a_row = self._in_a_row + 1 if error is not None else 0
        if error is not None and self._in_a_row >= _MOST_IN_A_ROW:
            raise error
        verified.count(checked)
        size = known.size or 0
        if not known.is_manifest:  # the expected count excludes manifests
            if not self.deep:
                self.context.progress.bytes_sent(size)
            self.context.progress.object_finished(known.key, size, str(judgement.kind or PROVEN))
        return checked, self._noted(checked)

    def _noted(self, checked: CheckedKey) -> Finding | None:
        """Keeps a discrepancy for the ledger, and logs it."""
        verified, judgement, known = self.verified, checked.judgement, checked.known
        if judgement.kind is None:
            return None
        if judgement.kind not in _NOT_KNOWN:
            of = (known.feed, known.period, judgement.kind)
            first = Discrepancy(*of, 0, known.key, self.context.clock.now())
            found = self._found.get(of, first)
            self._found[of] = found._replace(keys=found.keys + 1)
        if verified.discrepancies.total() <= _MOST_LOGGED:
            telemetry.warn(
                Event.VERIFY_FOUND,
                key=known.key,
                feed=known.feed,
                period=known.period,
                cause=str(judgement.kind),
                responsible=str(judgement.kind.responsible),
                message=judgement.message,
            )
        return Finding(judgement.kind, known, judgement.message)
