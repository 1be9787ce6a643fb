"""Proof of delivery: what lies at a customer's destination, key by key, against the ledger and the manifests.

Only lists and reads. A HEAD is the judge of every key; the listing, where all periods are meant, counts what
else lies there. Memory does not grow with the number of keys.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
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
from xmode_transfer.upkeep import receipts as receipt_files
from xmode_transfer.upkeep.listing import Standing, compare

PROVEN = "proven"
NOTHING = "nothing"
DIFFERS = "differs"
INCOMPLETE = "incomplete"

_WINDOW = 8  # keys begun for each thread, so that a slow one does not hold the others up
_MOST_IN_A_ROW = 20  # keys that cannot be looked at one after the other, before it is about all of them
_USUAL_OF = 50
_MOST_LOGGED = 100
_TOLD_DIFFERENCES = 3
_NOT_KNOWN = frozenset({DiscrepancyKind.ELSEWHERE, DiscrepancyKind.UNREADABLE, DiscrepancyKind.UNCHECKED})


@dataclass(slots=True)
class Verified:
    """What came of it. ``foreign`` counts keys below the prefix that are not ours; None where only some
    periods were meant. ``acl_checked`` counts the keys whose rights were looked at, ``superseded`` those of
    revisions that were never published: no manifest names them, so nothing is to be proven of them."""

    keys: int = 0
    proven: int = 0
    proven_bytes: int = 0
    proofs: Counter[Proof] = field(default_factory=Counter)
    rewritten: int = 0
    acl_checked: int = 0
    discrepancies: Counter[DiscrepancyKind] = field(default_factory=Counter)
    foreign: int | None = None
    superseded: int = 0

    def count(self, checked: CheckedKey) -> None:
        judgement = checked.judgement
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
        """``proven``; ``differs`` where something is not as delivered; ``incomplete`` where nothing worse
        was found than keys that could not be looked at; ``nothing`` where the ledger has no key to prove."""
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
        """The tail of a receipt."""
        return receipt_files.tail(
            outcome=self.outcome,
            proven=self.proven,
            bytes_proven=self.proven_bytes,
            findings={str(kind): count for kind, count in sorted(self.discrepancies.items())},
            finished_at=at,
        )


@dataclass(slots=True)
class Verification:
    """One verification under way: iterate over it once, in the order of keys, and ``verified`` is complete.

    ``deep`` reads every object back with ``reader``. ``acl_sample`` is how many keys' rights are looked at
    (None: all); with every day they are others.
    """

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
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __iter__(self) -> Iterator[tuple[CheckedKey, Finding | None]]:
        """Every key that the ledger says should be there, and what is wrong with it. Raises what the role or
        the store refuses for all keys, and Interrupted."""
        context, name = self.context, self.customer.name
        started = context.clock.monotonic()
        count, total = self._expected()
        context.progress.delivery_started(name, self.scope.feed or "all feeds", "verify", count, total)
        with telemetry.bind(customer=name):
            telemetry.log(
                Event.VERIFY_STARTED, feed=self.scope.feed, period=self.scope.period, deep=self.deep
            )
            outcome = "failed"
            try:
                with opened(context, self.customer, Step.VERIFY) as store:
                    yield from self._checked(store, count)
                outcome = self.verified.outcome
                # Health has it from there, until a later verification finds these periods as delivered.
                context.ledger.discrepancies.record(name, self.scope, self._found.values())
            except Interrupted:
                outcome = "interrupted"
                raise
            except XmodeError as error:
                outcome = "blocked" if error.exit_code == ExitCode.BLOCKED else "failed"
                raise
            finally:
                context.progress.delivery_finished()
                self._log(outcome, context.clock.monotonic() - started)

    def _expected(self) -> tuple[int, int]:
        """How many objects there should be, and their bytes."""
        held = [
            item
            for item in self.context.ledger.keys.holdings(self.customer.name)
            if self.scope.covers(item.feed, item.period)
        ]
        return sum(item.objects for item in held), sum(item.bytes for item in held)

    def _checked(self, store: ObjectStore, count: int) -> Iterator[tuple[CheckedKey, Finding | None]]:
        salt = f"{self.context.clock.now():%Y-%m-%d}"
        self._expected_acl = self._usual_acl(store)

        def keys() -> Iterator[tuple[DeliveredKey, bool]]:
            for known in self._keys(store):
                self.context.check_stop("a verification begins anew")
                yield known, in_sample(known.key, salt, count, self.acl_sample)

        def check(item: tuple[DeliveredKey, bool]) -> tuple[CheckedKey, XmodeError | None]:
            return self._check(store, *item)

        with in_order(check, keys(), name="verify", threads=self.context.parallel, ahead=_WINDOW) as checked:
            for item, error in checked:
                yield self._settled(item, error)

    def _keys(self, store: ObjectStore) -> Iterator[DeliveredKey]:
        scope, name = self.scope, self.customer.name
        known = self.context.ledger.keys.delivered(name, scope.feed, scope.period)
        if not scope.is_whole:
            for item in known:
                if scope.covers(item.feed, item.period):
                    if item.superseded:
                        self.verified.superseded += 1
                    else:
                        yield item
            return
        self.verified.foreign = 0
        below = self.customer.destination.prefix + (f"{scope.feed}/" if scope.feed else "")
        for listed in compare(store.list(below), known, self.customer.destination.prefix):
            if listed.standing is Standing.SUPERSEDED:
                self.verified.superseded += 1
            elif listed.known is not None:
                yield listed.known
            elif listed.standing is Standing.UNMANAGED:
                self.verified.foreign += 1

    def _usual_acl(self, store: ObjectStore) -> ObjectAcl | None:
        """What our objects' rights are here, where the role lies outside of the bucket's account: only the
        objects themselves can tell. None in the guide's case, where it is known."""
        if self.customer.bucket_owner == self.customer.account_id:
            return None
        found = []
        known = self.context.ledger.keys.delivered(self.customer.name, self.scope.feed, self.scope.period)
        for item in islice(known, _USUAL_OF):
            try:
                found.append(store.acl(item.key))
            except ObjectNotFound:
                continue
        return usual(found)

    # --- One key ----------------------------------------------------------------------------------------

    def _check(
        self, store: ObjectStore, known: DeliveredKey, with_acl: bool
    ) -> tuple[CheckedKey, XmodeError | None]:
        """In a thread of its own. The error that kept it from being looked at, if one did."""
        now = self.context.clock.now()
        try:
            return self._look(store, known, with_acl, now), None
        except Interrupted:
            raise
        except (AccessDenied, KmsDenied) as error:
            return CheckedKey(
                known, None, Judgement(DiscrepancyKind.UNREADABLE, error.message), None, now
            ), error
        except XmodeError as error:
            if not error.retryable:
                raise
            return CheckedKey(
                known, None, Judgement(DiscrepancyKind.UNCHECKED, error.message), None, now
            ), error

    def _look(self, store: ObjectStore, known: DeliveredKey, with_acl: bool, now: datetime) -> CheckedKey:
        prefix = self.customer.destination.prefix
        if not known.key.startswith(prefix):  # our own session would be refused there
            where = f"it was delivered when the destination's prefix was not {prefix} yet"
            return CheckedKey(known, None, Judgement(DiscrepancyKind.ELSEWHERE, where), None, now)
        seen = store.head(known.key)
        judgement = judge(known, seen)
        acl: bool | None = None
        try:
            if judgement.kind is None and known.etag is None:
                judgement = self._judge_manifest(store, known, judgement)
            elif judgement.kind is None and self.deep:
                read = self.reader.read(
                    store, known.key, expected_checksums(known), self.context.progress.bytes_sent
                )
                judgement = judge_bytes(known, read, judgement)
            if judgement.kind is None and with_acl:
                told = difference(
                    store.acl(known.key), self._expected_acl, bucket_owner=self.customer.bucket_owner
                )
                acl = told is None
                if told is not None:
                    judgement = judgement._replace(kind=DiscrepancyKind.ACL_CHANGED, message=told)
        except ObjectNotFound:  # deleted since the HEAD
            seen, judgement, acl = None, judge(known, None), None
        return CheckedKey(known, seen, judgement, acl, now)

    def _judge_manifest(self, store: ObjectStore, known: DeliveredKey, before: Judgement) -> Judgement:
        """What it lists, beside the ledger; both are streamed."""
        identity = delivery_id(self.customer.name, known.feed, known.period, known.revision)
        reader = ManifestReader(store.read(known.key))
        receipts = (
            receipt for _, receipt in self.context.ledger.objects.planned(identity) if receipt is not None
        )
        try:
            told = list(islice(manifest_differences(reader, receipts), _TOLD_DIFFERENCES))
        except NoManifest as error:
            return Judgement(DiscrepancyKind.ALTERED, f"it is no manifest any more: {error}")
        if told:
            return before._replace(kind=DiscrepancyKind.MANIFEST_DIFFERS, message="; ".join(told))
        if reader.members.get("delivery") != identity:
            return before._replace(kind=DiscrepancyKind.MANIFEST_DIFFERS, message="it names another delivery")
        return before

    # --- What is counted --------------------------------------------------------------------------------

    def _settled(self, checked: CheckedKey, error: XmodeError | None) -> tuple[CheckedKey, Finding | None]:
        """Counts a key; raises the error when so many came one after the other that it is about all."""
        verified, judgement, known = self.verified, checked.judgement, checked.known
        self._in_a_row = self._in_a_row + 1 if error is not None else 0
        if error is not None and self._in_a_row >= _MOST_IN_A_ROW:
            raise error
        verified.count(checked)
        size = known.size or 0
        if not self.deep or known.etag is None:
            self.context.progress.bytes_sent(size)
        if known.etag is not None:  # what was expected counts no manifests
            self.context.progress.object_finished(known.key, size, str(judgement.kind or PROVEN))
        if judgement.kind is None:
            return checked, None
        if judgement.kind not in _NOT_KNOWN:
            place = (known.feed, known.period, judgement.kind)
            first = Discrepancy(*place, 0, known.key, self.context.clock.now())
            found = self._found.get(place, first)
            self._found[place] = found._replace(keys=found.keys + 1)
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
        return checked, Finding(judgement.kind, known, judgement.message)

    def _log(self, outcome: str, seconds: float) -> None:
        verified = self.verified
        telemetry.log(
            Event.VERIFY_FINISHED,
            outcome=outcome,
            keys=verified.keys,
            proven=verified.proven,
            proven_bytes=verified.proven_bytes,
            acl_checked=verified.acl_checked,
            foreign=verified.foreign,
            superseded=verified.superseded,
            seconds=round(seconds, 3),
            **{str(kind): count for kind, count in verified.discrepancies.items()},
        )
