"""The manifest: what may keep it back, and putting it last, once, when every object has its receipt."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace

from xmode_transfer.aws.bodies import OpenFile
from xmode_transfer.aws.stores import ObjectStore, PutRequest
from xmode_transfer.config import Customer
from xmode_transfer.model import keys, manifest
from xmode_transfer.model.errors import (
    AccessDenied,
    Defect,
    ForCustomer,
    Interrupted,
    ObjectExists,
    Responsible,
    Unavailable,
    XmodeError,
)
from xmode_transfer.model.records import Checksum, Delivery, Failure, Lease, Receipt, SourceProblem, Status
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.manifest_reading import NoManifest, same_objects
from xmode_transfer.transfer.planning import Plan
from xmode_transfer.transfer.sending import Sent

_CHUNK_BYTES = 1024 * 1024


def obstacle(context: Context, plan: Plan, sent: Sent) -> XmodeError | None:
    """None when everything of the plan has arrived."""
    if sent.halted is not None:
        return sent.halted
    if context.stop.is_set():
        return Interrupted(
            "stopped on request", hint="what was sent is recorded; the next run goes on from there"
        )
    count = sent.failed + len(plan.problems)
    if not count:
        return None
    if sent.passing is not None and not (sent.uploaded or sent.adopted or plan.problems):
        return sent.passing  # nothing got through: that is the destination's trouble, not these files'
    of_all = plan.skipped + plan.upload_count + len(plan.problems)
    failures = list(sent.failures.values())
    theirs = {item.responsible for item in failures} == {Responsible.CUSTOMER} and not plan.problems
    return (_IncompleteForCustomer if theirs else Incomplete)(
        f"{count} of {of_all} files could not be delivered",
        *failures,
        problems=plan.problems,
    )


class Incomplete(XmodeError):
    """Some files did not arrive; the manifest waits for them."""

    code = "incomplete"

    def __init__(self, message: str, *failures: Failure, problems: list[SourceProblem]) -> None:
        first = problems[0] if problems else None
        if first is not None:
            message += f"; first: {first.name}: {first.message}"
        elif failures:
            message += f"; first: {failures[0].message}"
        hint = (
            "the files that arrived stay; the manifest follows when the rest has arrived. "
            "The names are in the log and in --json"
        )
        if first is None and failures and failures[0].hint:
            hint = f"{failures[0].hint}; {hint}"
        super().__init__(message, hint=hint)


class _IncompleteForCustomer(ForCustomer, Incomplete):
    """Whatever did not arrive, only the customer can let in."""

    code = Incomplete.code


def publish(
    context: Context, customer: Customer, store: ObjectStore, delivery: Delivery, lease: Lease
) -> Delivery | None:
    """Puts the manifest and answers the delivery as delivered. None when a manifest of this very revision is
    there, put before a crash, and the source has moved on since: a new revision is due. Idempotent: a
    manifest of ours that is there already, with the same objects, is success. Raises ObjectExists when
    something else lies under its key, and what the store raises."""
    key = keys.manifest_key(customer.destination.prefix, delivery.feed, delivery.period, delivery.revision)
    missing = context.ledger.objects.left_out(delivery.id)
    reason = delivery.not_attested or _inherited_reason(context, delivery)
    chunks = manifest.chunks(
        delivery,
        _receipts(context, delivery),
        missing,
        prefix=customer.destination.prefix,
        bucket=customer.destination.bucket,
        sign=context.attestation.sign if context.attestation is not None and reason is None else None,
    )
    with SpooledFile(chunks) as body:
        request = PutRequest(key, delivery.id, body.size, keys.content_type(key))
        try:
            answer = store.put(request, body).result()
        except ObjectExists:
            checksum = _ours_already(store, delivery, key)
            try:
                if not same_objects(store.read(key), chunks_of(body)):
                    return None
            except NoManifest as error:
                raise _taken(key, f"it is no manifest: {error}") from None
        else:
            checksum = answer.checksum
            if not answer.proven:
                prove(store, key, body.size)
    now = context.clock.now()
    delivered = replace(
        delivery,
        status=Status.DELIVERED,
        manifest_key=key,
        manifest_checksum=f"{checksum.algorithm}:{checksum.value}",
        delivered_at=now,
        updated_at=now,
        failure=None,
        next_attempt_at=None,
        not_attested=reason,
    )
    context.ledger.deliveries.update(lease, delivered)
    return delivered


def note_published(
    context: Context, customer: Customer, store: ObjectStore, delivery: Delivery, lease: Lease
) -> None:
    """Before a revision takes the place of those that failed: a process that was killed may have put the
    manifest of one of them and not lived to record it. What that manifest lists stays. Where it cannot be
    looked at, it counts as put."""
    place = (delivery.customer, delivery.feed, delivery.period)
    failed = {
        item.revision: item for item in context.ledger.deliveries.find(*place, statuses=[Status.FAILED])
    }
    for revision in range(delivery.revision - 1, 0, -1):
        other = failed.get(revision)
        if other is None:
            return  # it was published, and what is before it was looked at then
        if other.manifest_key is not None:
            continue
        key = keys.manifest_key(customer.destination.prefix, other.feed, other.period, other.revision)
        try:
            info = store.head(key)
        except AccessDenied:
            info = None
        else:
            if info is None or info.token != other.id:
                continue
        checksum = info.checksum if info is not None else None
        context.ledger.deliveries.update(
            lease,
            replace(
                other,
                manifest_key=key,
                manifest_checksum=f"{checksum.algorithm}:{checksum.value}" if checksum else None,
            ),
        )


def _inherited_reason(context: Context, delivery: Delivery) -> str | None:
    """Why our signature must not vouch for the delivery: it carries over objects of one that was taken back
    from the bucket without it."""
    earlier = context.ledger.deliveries.find(delivery.customer, delivery.feed, delivery.period)
    unattested = next((item for item in earlier if item.not_attested is not None), None)
    if unattested is None or not any(
        planned.carried for planned, _ in context.ledger.objects.planned(delivery.id)
    ):
        return None
    return f"it carries over objects of revision {unattested.revision}, which is not attested"


def _receipts(context: Context, delivery: Delivery) -> Iterator[Receipt]:
    for planned, receipt in context.ledger.objects.planned(delivery.id):
        if receipt is None:
            raise Defect(
                f"{planned.name} has no receipt and the manifest was about to be put", hint="report this"
            )
        yield receipt


def prove(store: ObjectStore, key: str, size: int) -> None:
    """Where S3 did not answer with the checksum, a HEAD is the proof. Raises Unavailable when there is
    none."""
    info = store.head(key)
    if info is None or info.size != size:
        raise Unavailable(f"{key} was acknowledged and is not there", hint="the next try puts it again")


def _ours_already(store: ObjectStore, delivery: Delivery, key: str) -> Checksum:
    """The checksum of what lies there already and carries this delivery's mark."""
    info = store.head(key)
    if info is None or info.token != delivery.id or info.checksum is None:
        raise _taken(key, "it does not carry our mark")
    return info.checksum


def _taken(key: str, why: str) -> ObjectExists:
    return ObjectExists(
        f"{key} is taken by something that is not this delivery's manifest: {why}",
        hint="nothing was overwritten; have the customer move that object away, then run again",
    )


def chunks_of(body: OpenFile) -> Iterator[bytes]:
    """An open file, piece by piece."""
    for offset in range(0, body.size, _CHUNK_BYTES):
        yield body.read_at(offset, min(_CHUNK_BYTES, body.size - offset))


class SpooledFile:
    """An unnamed temporary file, gone when it is closed or the process ends."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._file = tempfile.TemporaryFile(prefix="xmode-spool-", buffering=1024 * 1024)  # noqa: SIM115 - closed by close()
        try:
            for chunk in chunks:
                self._file.write(chunk)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._file.fileno(), [buffer], offset)

    def check_unchanged(self) -> None:
        """Nobody else can reach an unnamed file."""

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "SpooledFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
