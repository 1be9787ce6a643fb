"""Delete objects that have expired under a customer's retention policy.

The plan is in the ledger before the first delete, so that the next cleanup settles one that was killed. A
first cleanup, and one that exceeds the caps, deletes nothing until a person confirms it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xmode_transfer import telemetry
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Configuration, Customer
from xmode_transfer.model.errors import (
    AccessDenied,
    AlreadyRunning,
    ConfigError,
    ExitCode,
    Interrupted,
    LeaseLost,
    LedgerError,
    ListingEmpty,
    NeedsConfirmation,
    Responsible,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.keys import count
from xmode_transfer.model.records import Capabilities, Delivery, Failure, Holding, Lease
from xmode_transfer.model.upkeep import OperationKind, Removal, RemovalOutcome, free_hidden_versions
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import removing
from xmode_transfer.transfer.context import INTERRUPTED, Context, Operation, held, opened
from xmode_transfer.transfer.removing import ExpiringPeriod, Removed, Remover, states_of
from xmode_transfer.transfer.sending import failure_of
from xmode_transfer.upkeep.expiring import Expiring, Planning
from xmode_transfer.upkeep.listing import check_scope
from xmode_transfer.upkeep.retention import DeliveryKey, Reason, Verdict, judge

CLEANED = "cleaned"
NOTHING = "nothing"
DRY_RUN = "dry_run"
UNCONFIRMED = "unconfirmed"
FAILED = "failed"
BLOCKED = "blocked"
ALREADY_RUNNING = "already_running"


@dataclass(slots=True)
class CleanupOutcome:
    """``outcome``: ``cleaned``; ``nothing`` (nothing expires); ``dry_run``; ``unconfirmed`` (a person has to
    confirm it first); ``interrupted``; ``failed`` (the next cleanup retries); ``blocked`` (the customer is
    responsible); ``already_running``. ``expiring`` is the plan, ``removed`` the part that was done. ``kept``
    counts the deliveries that stay. ``lifecycle_rule`` frees what is hidden behind delete markers. ``asks``
    is why the plan of a dry run needs a confirmation. ``superseded`` is of keys that no manifest lists."""

    customer: str
    outcome: str = NOTHING
    operation_id: str | None = None
    expiring: Expiring = field(default_factory=Expiring)
    removed: Removed = field(default_factory=Removed)
    kept: Counter[Reason] = field(default_factory=Counter)
    failure: Failure | None = None
    exit_code: int = ExitCode.DONE
    seconds: float = 0.0
    lifecycle_rule: dict[str, Any] | None = None
    asks: str | None = None
    superseded: Removed = field(default_factory=Removed)

    @property
    def periods(self) -> list[ExpiringPeriod]:
        """Oldest first."""
        return sorted(self.expiring.periods.values(), key=lambda item: (item.period, item.feed))

    @property
    def left(self) -> list[Removal]:
        """The first thousand expired keys that we did not delete."""
        return self.removed.left if self.removed.keys else self.expiring.left


def cleanup(
    context: Context,
    configuration: Configuration,
    name: str,
    *,
    by: str,
    feed: str | None = None,
    confirmed: bool = False,
    dry_run: bool = False,
) -> CleanupOutcome:
    """Deletes the expired objects of one customer, or of one of its feeds. ``by`` is the person, or
    ``daemon``. ``dry_run`` writes neither to the bucket nor to the ledger. Raises only ConfigError,
    VendorIdentityError, LedgerError and LeaseLost, which concern more than this cleanup."""
    customer = configuration.active_customer(name)
    started = context.clock.monotonic()
    result = CleanupOutcome(name)
    with telemetry.bind(customer=name):
        telemetry.log(Event.CLEANUP_STARTED, feed=feed, dry_run=dry_run, confirmed=confirmed, by=by)
        work = _Cleanup(context, configuration, customer, feed, confirmed, by, result)
        try:
            if dry_run:
                work.run(None)
            else:
                with held(context.ledger, f"cleanup/{name}", context.holder) as lease:
                    work.run(lease)
        except (ConfigError, VendorIdentityError, LedgerError, LeaseLost):
            raise
        except XmodeError as error:
            _failed(result, error)
        if not dry_run:
            result.superseded = removing.sweep(context, customer, feed, refused=True) or Removed()
        result.seconds = context.clock.monotonic() - started
        _log(result)
    return result


@dataclass(frozen=True, slots=True)
class _Cleanup:
    context: Context
    configuration: Configuration
    customer: Customer
    feed: str | None
    confirmed: bool
    by: str
    result: CleanupOutcome

    def run(self, lease: Lease | None) -> None:
        """Without a lease, it is a dry run."""
        ledger, name = self.context.ledger, self.customer.name
        deliveries = ledger.deliveries.find(name)
        check_scope(ledger, self.configuration, self.customer, self.feed, ())
        holdings = ledger.keys.holdings(name)
        verdicts = judge(self.customer, deliveries, holdings, self.context.clock.now())
        if self.feed is not None:
            verdicts = {key: verdict for key, verdict in verdicts.items() if key[0] == self.feed}
        self.result.kept.update(
            verdict.reason
            for verdict in verdicts.values()
            if not verdict.expires and verdict.reason is not Reason.EMPTY
        )
        operation = None
        if lease is not None:
            retention = self.customer.retention
            policy = retention.model_dump_json(exclude_defaults=True) if retention is not None else "none"
            reason = f"retention {policy}" + (", confirmed" if self.confirmed else "")
            kind = OperationKind.CLEANUP
            operation = Operation(self.context, lease, kind, name, person=self.by, reason=reason)
        feeds = {key[0] for key, verdict in verdicts.items() if verdict.expires}
        if operation is not None:
            feeds |= operation.inconclusive_feeds()
        if feeds:
            with opened(self.context, self.customer, Step.CLEANUP) as store:
                self._clean(store, operation, verdicts, deliveries, holdings, sorted(feeds))
        elif operation is not None:
            operation.close_died()
        else:
            self.result.outcome = DRY_RUN

    def _clean(
        self,
        store: ObjectStore,
        operation: Operation | None,
        verdicts: dict[DeliveryKey, Verdict],
        deliveries: Sequence[Delivery],
        holdings: Sequence[Holding],
        feeds: Sequence[str],
    ) -> None:
        result = self.result
        here = sum(item.objects for item in holdings if self.feed in (None, item.feed))
        before = self.context.ledger.operations.newest(self.customer.name, OperationKind.CLEANUP, None)
        first = not any(item.objects or item.outcome == CLEANED for item in before)
        most = 0
        if self.customer.retention is not None:
            caps = self.customer.retention.caps
            most = int(here * caps.max_fraction)
            if caps.max_objects is not None:
                most = min(most, caps.max_objects)
        periods: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            periods[delivery.feed, delivery.period].append(delivery)
        if operation is not None:
            operation.begin()
            result.operation_id = operation.id
        planning = Planning(
            context=self.context,
            customer=self.customer,
            store=store,
            verdicts=verdicts,
            states={period: states_of(some) for period, some in periods.items()},
            feeds=feeds,
            operation=operation,
            most_objects=None if self.confirmed else -1 if first else most,
        )
        try:
            plan = planning.plan()
            if not plan.listed:
                destination = self.customer.destination
                raise ListingEmpty(
                    f"the listing of s3://{destination.bucket}/{destination.prefix} shows nothing of "
                    f"{', '.join(feeds)}, although the ledger has objects there: nothing was deleted",
                    hint="confirm destination.bucket and destination.prefix with the customer. If the "
                    "customer deleted the objects, there is nothing to clean up",
                )
            result.expiring = plan
            if operation is not None:
                operation.close_died()  # the listing has settled what they had planned
            self._check_confirmed(first, most, here, dry_run=operation is None)
        except XmodeError as error:
            _failed(result, error)
            self._finish(operation)  # records that nothing was deleted, and why
            raise
        if operation is None:
            result.outcome = DRY_RUN
        elif not result.expiring.periods:
            self._finish(operation)
        else:
            self._apply(store, operation)

    def _apply(self, store: ObjectStore, operation: Operation) -> None:
        result, plan, progress = self.result, self.result.expiring, self.context.progress
        keys = plan.objects + plan.manifests + plan.doubtful
        progress.delivery_started(self.customer.name, self.feed or "all feeds", "cleanup", keys, plan.bytes)
        try:
            Remover(self.context, self.customer, store, operation, result.removed).remove(result.periods)
        except XmodeError as error:
            _failed(result, error)
            self._finish(operation, inconclusive=True)
            raise
        finally:
            progress.delivery_finished()
        self._conclude()
        self._finish(operation)

    def _finish(self, operation: Operation | None, *, inconclusive: bool = False) -> None:
        result, removed = self.result, self.result.removed
        if operation is not None:
            operation.finish(
                result.outcome,
                objects=removed.ours,
                size=removed.our_bytes,
                failed=removed.keys[RemovalOutcome.FAILED],
                failure=result.failure,
                inconclusive=inconclusive,
            )

    def _conclude(self) -> None:
        result, removed = self.result, self.result.removed
        result.outcome = CLEANED
        if removed.keys[RemovalOutcome.HIDDEN]:
            result.lifecycle_rule = free_hidden_versions(self.customer.destination.prefix)
            learnt = Capabilities(versioned=True, learned_at=self.context.clock.now())
            self.context.ledger.checks.learn(self.customer.name, learnt)
        failed, retained = removed.keys[RemovalOutcome.FAILED], removed.keys[RemovalOutcome.RETAINED]
        if removed.interrupted:
            hint = "clean up again: the next cleanup resumes from here"
            _failed(result, Interrupted("stopped on request", hint=hint))
        elif failed:
            result.outcome, result.exit_code = FAILED, ExitCode.WILL_RETRY
            what = f"{count(failed, 'expired object')} could not be deleted"
            hint = "see the log for S3's responses and --json for the keys. The next cleanup retries"
            result.failure = Failure("incomplete", "aws", what, hint, True)
        elif retained and not removed.ours:  # a policy of the role or the bucket forbids all deletes
            name, refusal = self.customer.name, removed.refusal
            planned = result.expiring.objects + result.expiring.manifests
            result.outcome, result.exit_code = BLOCKED, ExitCode.BLOCKED
            result.failure = Failure(
                AccessDenied.code,
                str(refusal.responsible if refusal is not None else Responsible.CUSTOMER),
                f"0 of {planned:,} expired keys of {name} were deleted: S3 refuses to delete"
                + (f" ({refusal.message})" if refusal is not None else ""),
                f"ask {name} to allow s3:DeleteObject under the prefix (`xmode-transfer check-access "
                f"--customer {name}` prints the statement). The next cleanup resumes from here",
                False,
                refusal.request_id if refusal is not None else None,
            )

    def _check_confirmed(self, first: bool, most: int, here: int, *, dry_run: bool) -> None:
        """Raise NeedsConfirmation if the plan needs a confirmation; a dry run notes it in ``asks``."""
        plan, name = self.result.expiring, self.customer.name
        if self.confirmed or not plan.periods or not (first or plan.objects > most):
            return
        why = f"this is the first cleanup of {name}"
        command = f"xmode-transfer cleanup --customer {name}"
        hint = f"review the plan (`{command} --dry-run`), then confirm it (`{command} --confirm`)"
        if not first:
            why = (
                f"{plan.objects:,} of the {here:,} objects of {name} expire; at most {most:,} are deleted "
                "without a confirmation (retention.caps)"
            )
            hint += f". If that many are always expected, raise retention.caps in customers/{name}.yaml"
        if not dry_run:
            raise NeedsConfirmation(f"{why}: nothing was deleted", hint=hint)
        self.result.asks = why


def _failed(result: CleanupOutcome, error: XmodeError) -> None:
    result.exit_code, result.failure = error.exit_code, failure_of(error)
    if isinstance(error, NeedsConfirmation):
        result.outcome = UNCONFIRMED
    elif isinstance(error, Interrupted):
        result.outcome = INTERRUPTED
    elif isinstance(error, AlreadyRunning):
        result.outcome = ALREADY_RUNNING
    else:
        result.outcome = BLOCKED if error.exit_code == ExitCode.BLOCKED else FAILED


def _log(result: CleanupOutcome) -> None:
    removed, failure = result.removed, result.failure
    fields: dict[str, object] = {
        "outcome": result.outcome,
        "act": result.operation_id,
        "expiring": result.expiring.objects,
        "expiring_bytes": result.expiring.bytes,
        **{str(outcome): count for outcome, count in removed.keys.items()},
        "freed_bytes": removed.bytes[RemovalOutcome.DELETED],
        "hidden_bytes": removed.bytes[RemovalOutcome.HIDDEN],
        "seconds": round(result.seconds, 3),
    }
    if failure is not None:
        fields |= {"cause": failure.cause, "responsible": failure.responsible, "message": failure.message}
    if result.outcome == UNCONFIRMED:
        telemetry.warn(Event.CLEANUP_UNCONFIRMED, **fields)
    else:
        telemetry.log(Event.CLEANUP_FINISHED, **fields)
