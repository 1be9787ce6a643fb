"""Put the manifest last, once, when every object has its receipt; or return what prevents it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from xmode_transfer.aws.stores import ObjectStore, PutRequest
from xmode_transfer.config import Customer, Subscription
from xmode_transfer.model import keys, manifest
from xmode_transfer.model.checks import Decision
from xmode_transfer.model.errors import (
    AccessDenied,
    Defect,
    ForCustomer,
    Interrupted,
    ObjectExists,
    Responsible,
    XmodeError,
)
from xmode_transfer.model.keys import count as noun_count
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.records import Delivery, Failure, Lease, Receipt, SourceProblem, Status
from xmode_transfer.transfer import native, tables, withdrawing
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.manifest_reading import NoManifest, same_objects
from xmode_transfer.transfer.plan import ScanTotals
from xmode_transfer.transfer.planning import Plan
from xmode_transfer.transfer.sending import Sent
from xmode_transfer.transfer.spooling import SpooledFile, chunks_of, prove


def obstacle(context: Context, plan: Plan, sent: Sent) -> XmodeError | None:
    """Return the error that prevents the manifest; None when all planned objects are delivered."""
    if sent.halted is not None:
        return sent.halted
    if context.stop.is_set():
        return Interrupted("stopped on request", hint="run again: the next run resumes from here")
    count = sent.failed + len(plan.problems)
    if not count:
        return None
    if sent.passing is not None and not (sent.uploaded or sent.adopted or plan.problems):
        return sent.passing  # nothing was delivered: the error is the destination's, not these files'
    of_all = plan.skipped + plan.upload_count + len(plan.problems)
    failures = list(sent.failures.values())
    customer_only = {item.responsible for item in failures} == {Responsible.CUSTOMER} and not plan.problems
    kind = _IncompleteForCustomer if customer_only else Incomplete
    what = f"{count:,} of {noun_count(of_all, 'file')} could not be delivered"
    return kind(what, failures, plan.problems)


class Incomplete(XmodeError):
    """The manifest waits for some files."""

    code = "incomplete"

    def __init__(self, message: str, failures: list[Failure], problems: list[SourceProblem]) -> None:
        hint = (
            "see the log or --json for the names. The delivered files stay, and the manifest follows when "
            "the rest is delivered"
        )
        if problems:
            message += f"; first: {problems[0].name}: {problems[0].message}"
        elif failures:
            message += f"; first: {failures[0].message}"
            if failures[0].hint:
                hint = f"{failures[0].hint}. {hint[:1].upper()}{hint[1:]}"
        super().__init__(message, hint=hint)


class _IncompleteForCustomer(ForCustomer, Incomplete):
    code = Incomplete.code


def publish(
    context: Context,
    customer: Customer,
    store: ObjectStore,
    delivery: Delivery,
    lease: Lease,
    subscription: Subscription,
    layout: Layout | None = None,
) -> Delivery | None:
    """Puts the manifests, ours last, and returns the delivery as delivered. Idempotent: our own
    manifest with the same objects counts as success. Returns None if a new revision is due: it has other
    objects, or a recall has withdrawn one meanwhile. Raises ObjectExists if a key holds anything else."""
    if withdrawing.lists_withdrawn(context, delivery):
        return None
    committed = tables.commit(context, customer, store, delivery, lease)
    if committed.stale:
        return None
    formats = native.put(
        context, customer, store, delivery, lease, subscription, layout, lambda: _receipts(context, delivery)
    )
    if formats is None:
        return None
    key = keys.manifest_key(customer.destination.prefix, delivery.feed, delivery.period, delivery.revision)
    reason = delivery.not_attested or _inherited_reason(context, delivery)
    chunks = manifest.chunks(
        delivery,
        _receipts(context, delivery),
        context.ledger.objects.left_out(delivery.id),
        context.ledger.recalls.received(delivery),
        prefix=customer.destination.prefix,
        bucket=customer.destination.bucket,
        released=_released(context, delivery),
        formats=formats | committed.members,
        sign=context.attestation.sign if context.attestation is not None and reason is None else None,
    )
    with SpooledFile(chunks) as body:
        request = PutRequest(key, delivery.id, body.size, keys.content_type(key))
        try:
            answer = store.put(request, body).result()
        except ObjectExists:
            info = store.head(key)
            if info is None or info.token != delivery.id or info.checksum is None:
                raise _taken(key, "it does not have our token") from None
            checksum = info.checksum
            try:
                if not same_objects(store.read(key), chunks_of(body)):
                    return None
            except NoManifest as error:
                raise _taken(key, f"it is not a manifest: {error}") from None
        else:
            checksum = answer.checksum
            if not answer.proven:
                prove(store, key, body.size)
    now = context.clock.now()
    delivered = replace(
        delivery,
        status=Status.DELIVERED,
        manifest_key=key,
        manifest_checksum=":".join(checksum),
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
    """Records manifests that a killed process may have put for earlier revisions: their objects stay."""
    period = (delivery.customer, delivery.feed, delivery.period)
    found = context.ledger.deliveries.find(*period, statuses=[Status.FAILED])
    failed = {item.revision: item for item in found}
    for revision in range(delivery.revision - 1, 0, -1):
        other = failed.get(revision)
        if other is None:
            return  # it was published, and earlier revisions were checked then
        if other.manifest_key is not None:
            continue
        key = keys.manifest_key(customer.destination.prefix, other.feed, other.period, other.revision)
        checksum = None
        with suppress(AccessDenied):  # then the manifest counts as put
            info = store.head(key)
            if info is None or info.token != other.id:
                continue
            checksum = info.checksum and ":".join(info.checksum)
        put = replace(other, manifest_key=key, manifest_checksum=checksum)
        context.ledger.deliveries.update(lease, put)


def _inherited_reason(context: Context, delivery: Delivery) -> str | None:
    """Return why our signature must not attest the delivery, if it carries over what is not attested."""
    earlier = context.ledger.deliveries.find(delivery.customer, delivery.feed, delivery.period)
    unattested = next((item for item in earlier if item.not_attested is not None), None)
    objects = context.ledger.objects.planned(delivery.id) if unattested is not None else ()
    if unattested is None or not any(planned.carried for planned, _ in objects):
        return None
    return f"it carries over objects of revision {unattested.revision}, which is not attested"


def _released(context: Context, delivery: Delivery) -> dict[str, Any] | None:
    """Return who released what the checks had quarantined, for the manifest."""
    decisions = [
        item
        for item in context.ledger.judgements.decisions(delivery.feed, delivery.period)
        if item.decision is Decision.RELEASED and item.customer in ("", delivery.customer)
    ]
    names = {item.name for item in decisions if item.name}  # of a drop folder
    fingerprints = {"": delivery.fingerprint}
    for planned, _ in context.ledger.objects.planned(delivery.id) if names else ():
        if planned.name in names and not planned.carried:
            fingerprints[planned.name] = ScanTotals([planned.source_file()]).fingerprint
    found = [item for item in decisions if fingerprints.get(item.name) == item.fingerprint]
    if not found:
        return None
    failed = {check: None for item in found for check in item.failed}
    return {
        "by": found[-1].person,
        "at": manifest.timestamp(found[-1].decided_at),
        "reason": found[-1].reason,
        "checks": [{"check": str(item.check), "file": item.file, "message": item.message} for item in failed],
    }


def _receipts(context: Context, delivery: Delivery) -> Iterator[Receipt]:
    for planned, receipt in context.ledger.objects.planned(delivery.id):
        if receipt is None:
            what = f"{planned.name} has no receipt and the manifest was about to be put"
            raise Defect(what, hint="report this")
        yield receipt


def _taken(key: str, why: str) -> ObjectExists:
    return ObjectExists(
        f"{key} already holds an object that is not this delivery's manifest: {why}",
        hint="ask the customer to move that object, then run again. Nothing was overwritten",
    )
