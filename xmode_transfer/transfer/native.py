"""Put native manifests: after the objects, before our manifest.

A Redshift manifest is create-only. A period's symlink file is replaced by one PutObject, if it still has the
ETag that we put. The ledger's row follows the PUT, so a process that was killed between the two, or a lost
response, is settled by reading what the key has.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from xmode_transfer.aws import checksums
from xmode_transfer.aws.stores import ObjectStore, PutRequest
from xmode_transfer.config import Customer, Subscription
from xmode_transfer.model import native
from xmode_transfer.model.errors import ObjectExists, ObjectNotFound, Unavailable
from xmode_transfer.model.keys import unseen_character
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.native import NativeKind, NativeManifest
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.records import (
    Checksum,
    Delivery,
    Lease,
    ObjectInfo,
    Receipt,
    Status,
    same_etag,
)
from xmode_transfer.transfer.context import Context, opened
from xmode_transfer.transfer.planning import own_ids
from xmode_transfer.transfer.spooling import SpooledFile, chunks_of, prove
from xmode_transfer.transfer.withdrawing import newest_of_folder

_ATTEMPTS = 3
_TYPES = {NativeKind.REDSHIFT: "application/json", NativeKind.SYMLINK: "text/plain; charset=utf-8"}
Receipts = Callable[[], Iterable[Receipt]]


def put(
    context: Context,
    customer: Customer,
    store: ObjectStore,
    delivery: Delivery,
    lease: Lease,
    subscription: Subscription,
    layout: Layout | None,
    receipts: Receipts,
) -> dict[str, str] | None:
    """Puts the manifests of the subscription, and those that the period has already; returns their keys by
    kind. Returns None if a new revision is due: the Redshift manifest of this one has other objects. Raises
    ObjectExists if a key holds what is not ours."""
    known = context.ledger.native.find(delivery.customer, delivery.feed, delivery.period)
    kinds = {*(subscription.manifests or ()), *(item.kind for item in known)}
    work = _Putting(context, customer, store, delivery, lease, receipts)
    found: dict[str, str] = {}
    if NativeKind.REDSHIFT in kinds:
        work.note_superseded({item.revision for item in known if item.kind is NativeKind.REDSHIFT})
        key = native.redshift_key(work.root, delivery.period, delivery.revision)
        if not work.create(key):
            return None
        found[NativeKind.REDSHIFT] = key
    if NativeKind.SYMLINK in kinds:
        symlink = _symlink(known, work.root)
        if work.is_newest:
            symlink = work.replace(symlink, layout)
        if symlink is not None:
            found[NativeKind.SYMLINK] = symlink.key
    return found


def unlist(
    context: Context, customer: Customer, feed: str, period: str, lease: Lease, going: Iterable[str]
) -> None:
    """Takes objects that are about to be deleted out of a drop folder's symlink file, which lists several
    deliveries' objects. A file that the customer has overwritten is left alone."""
    root = f"{customer.destination.prefix}{feed}/"
    is_drop_folder = period == PeriodKind.NONE
    known = (
        _symlink(context.ledger.native.find(customer.name, feed, period), root) if is_drop_folder else None
    )
    keys = set(going) if known is not None else set()
    if known is None or known.key in keys:
        return
    of_period = context.ledger.deliveries.find(customer.name, feed, period)
    delivery = next(item for item in of_period if item.revision == known.revision)
    if any(item.key in keys for item in newest_of_folder(context, delivery, root)):
        with opened(context, customer) as store, suppress(ObjectExists):
            _Putting(context, customer, store, delivery, lease, tuple, keys).replace(known, None)


def _symlink(known: Iterable[NativeManifest], root: str) -> NativeManifest | None:
    wanted = (item for item in known if item.kind is NativeKind.SYMLINK and item.key.startswith(root))
    return next(wanted, None)


def adopt(
    context: Context,
    customer: Customer,
    store: ObjectStore,
    delivery: Delivery,
    lease: Lease,
    members: Mapping[str, object],
) -> None:
    """Records the native manifests that an adopted manifest names, if they have our token. A symlink file is
    of the last revision that put it."""
    work = _Putting(context, customer, store, delivery, lease, tuple)
    keys = {kind: members.get(kind) for kind in NativeKind}
    if keys[NativeKind.REDSHIFT] != native.redshift_key(work.root, delivery.period, delivery.revision):
        keys[NativeKind.REDSHIFT] = None
    for kind, key in keys.items():
        if isinstance(key, str) and key.startswith(f"{work.root}_{kind}/") and not unseen_character(key):
            info = store.head(key)
            tokens = {delivery.id} if kind is NativeKind.REDSHIFT else own_ids(delivery)
            if info is not None and info.token in tokens:
                work.record(kind, info)


@dataclass(frozen=True, slots=True)
class _Putting:
    context: Context
    customer: Customer
    store: ObjectStore
    delivery: Delivery
    lease: Lease
    receipts: Receipts
    leaving: Collection[str] = ()

    @property
    def root(self) -> str:
        return f"{self.customer.destination.prefix}{self.delivery.feed}/"

    @property
    def is_newest(self) -> bool:
        """False for a revision that is published again after a later one: the symlink file is the later's."""
        delivery = self.delivery
        of_period = (delivery.customer, delivery.feed, delivery.period, [Status.DELIVERED])
        published = self.context.ledger.deliveries.find(*of_period)
        return all(item.revision <= delivery.revision for item in published)

    def note_superseded(self, known: set[int]) -> None:
        """Records what a killed process put for earlier revisions that were never published."""
        delivery = self.delivery
        of_period = self.context.ledger.deliveries.find(delivery.customer, delivery.feed, delivery.period)
        for other in sorted(of_period, key=lambda item: -item.revision):
            if other.revision >= delivery.revision:
                continue
            if other.status is not Status.FAILED:
                return
            key = native.redshift_key(self.root, other.period, other.revision)
            info = self.store.head(key) if other.revision not in known else None
            if info is not None and info.token == other.id:
                self.record(NativeKind.REDSHIFT, info, other.revision)

    def create(self, key: str) -> bool:
        """Returns whether the Redshift manifest has this delivery's objects."""
        with SpooledFile(native.redshift(self.customer.destination.bucket, self.receipts())) as body:
            try:
                self._put(NativeKind.REDSHIFT, key, body, None)
            except ObjectExists:
                info = self._ours(key, {self.delivery.id})
                self.record(NativeKind.REDSHIFT, info)
                return self._has(info, body)
        return True

    def replace(self, known: NativeManifest | None, layout: Layout | None) -> NativeManifest:
        """Puts the period's symlink file, or replaces the one that is there if it is ours."""
        period = period_labelled(self.delivery.period)
        assert period is not None
        directory = "" if period.kind is PeriodKind.NONE else f"period={period.label}"
        if layout is not None:
            directory = layout.directory_of(period)
        key = known.key if known is not None else native.symlink_key(self.root, directory)
        with SpooledFile(native.symlinks(self.customer.destination.bucket, self._current())) as body:
            replaces = known.etag if known is not None else None
            if known is not None and known.size == body.size:  # nothing may have changed
                info = self.store.head(key)
                if info is not None and same_etag(info.etag, known.etag) and self._has(info, body):
                    return self.record(NativeKind.SYMLINK, info)
            for _ in range(_ATTEMPTS):
                try:
                    return self._put(NativeKind.SYMLINK, key, body, replaces)
                except ObjectNotFound:  # deleted meanwhile
                    replaces = None
                except ObjectExists:
                    info = self._ours(key, own_ids(self.delivery))
                    if self._has(info, body):
                        return self.record(NativeKind.SYMLINK, info)
                    replaces = info.etag
        raise Unavailable(f"{key} is written by somebody else too", hint="the next attempt replaces it again")

    def _current(self) -> Iterable[Receipt]:
        """Return what readers should see."""
        if self.delivery.period != PeriodKind.NONE:
            return self.receipts()
        newest = newest_of_folder(self.context, self.delivery, self.root)
        return (item for item in newest if item.key not in self.leaving)

    def _put(self, kind: NativeKind, key: str, body: SpooledFile, replaces: str | None) -> NativeManifest:
        request = PutRequest(key, self.delivery.id, body.size, _TYPES[kind], replaces=replaces)
        answer = self.store.put(request, body).result()
        if not answer.proven:
            prove(self.store, key, body.size)
        return self._recorded(kind, key, body.size, answer.etag, answer.checksum)

    def _ours(self, key: str, tokens: set[str]) -> ObjectInfo:
        info = self.store.head(key)
        if info is None:
            raise Unavailable(f"{key} was deleted meanwhile", hint="the next attempt puts it again")
        if info.token not in tokens:
            raise ObjectExists(
                f"{key} holds an object that is not ours: it does not have our token",
                hint="ask the customer to move that object, then run again. Nothing was overwritten",
            )
        return info

    def _has(self, info: ObjectInfo, body: SpooledFile) -> bool:
        if info.size != body.size:
            return False
        return _sha256(self.store.read(info.key)) == _sha256(chunks_of(body))

    def record(self, kind: NativeKind, info: ObjectInfo, revision: int | None = None) -> NativeManifest:
        checksum = info.checksum
        if checksum is None:
            with SpooledFile(self.store.read(info.key)) as body:
                checksum = Checksum(checksums.ALGORITHM, checksums.of(body, checksums.ALGORITHM))
        return self._recorded(kind, info.key, info.size, info.etag, checksum, revision)

    def _recorded(
        self,
        kind: NativeKind,
        key: str,
        size: int,
        etag: str,
        checksum: Checksum,
        revision: int | None = None,
    ) -> NativeManifest:
        of = (kind, self.delivery.feed, self.delivery.period, revision or self.delivery.revision)
        manifest = NativeManifest(*of, key, size, etag, checksum, self.context.clock.now())
        self.context.ledger.native.record(self.lease, self.delivery.customer, manifest)
        return manifest


def _sha256(chunks: Iterable[bytes]) -> bytes:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.digest()
