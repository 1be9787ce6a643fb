"""Deliver one period of one subscription: claim, plan, send, prove, publish, close. If the process dies at
any point, the next call resumes from the ledger. A manifest lists only existing objects."""

from dataclasses import dataclass, replace
from typing import Any

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer, Feed
from xmode_transfer.delivery import judging
from xmode_transfer.model.errors import (
    AlreadyRunning,
    Defect,
    ExitCode,
    Interrupted,
    LeaseLost,
    Quarantined,
    Rejected,
    RoleRefused,
    UnsafeRole,
    VendorIdentityError,
    XmodeError,
    worst,
)
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import (
    FINISHED,
    Delivery,
    DeliveryOutcome,
    Failure,
    Lease,
    Run,
    SourceProblem,
    Status,
)
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import publishing, removing, tables
from xmode_transfer.transfer.context import Context, admit, held, of_delivery, opened
from xmode_transfer.transfer.large import LargeObjects
from xmode_transfer.transfer.planning import Plan, Planner
from xmode_transfer.transfer.publishing import Incomplete, obstacle
from xmode_transfer.transfer.rechecking import Recheck, Rechecked
from xmode_transfer.transfer.sending import Sender, Sent, defect_of, failure_of, halts


def deliver(context: Context, customer: Customer, feed: Feed, state: PeriodState) -> DeliveryOutcome:
    """Deliver the period; return an outcome also for refusals, interruptions and defects. Raises errors that
    concern more than this delivery: the vendor's identity, the ledger, and a source that cannot be read."""
    period = state.period.label
    started = context.clock.monotonic()
    with telemetry.bind(customer=customer.name, feed=feed.name, period=period):
        try:
            with held(context.ledger, of_delivery(customer.name, feed.name, period), context.holder) as lease:
                source, screen = context.sources(feed), None
                if feed.period is PeriodKind.NONE:
                    screen = judging.Screen(context, customer, feed, source)
                planner = Planner(context, customer, feed, state, source, screen)
                work = _Work(context, customer, feed, planner, lease, started, screen)
                try:
                    outcome = work.run()
                except Exception as error:
                    if isinstance(error, XmodeError) and not isinstance(error, Defect):
                        raise
                    telemetry.exception(Event.DEFECT)
                    return work.broken(error if isinstance(error, Defect) else defect_of(error))
            if outcome.outcome == Status.DELIVERED:
                removing.sweep(context, customer, feed.name)
            return outcome
        except (AlreadyRunning, Interrupted) as error:  # interrupted while it is judged
            latest = context.ledger.deliveries.latest(customer.name, feed.name, period)
            revision, ends = latest.revision if latest else 1, isinstance(error, Interrupted)
            return failed(customer, feed, period, revision, error, outcome=error.code, ends_run=ends)


def failed(
    customer: Customer,
    feed: Feed,
    period: str,
    revision: int,
    error: XmodeError,
    *,
    outcome: str | None = None,
    **fields: Any,
) -> DeliveryOutcome:
    """Return the outcome of a delivery that sent nothing because of the error."""
    return DeliveryOutcome(
        customer.name,
        feed.name,
        period,
        revision,
        outcome or str(_status(error)),
        failure=failure_of(error),
        exit_code=error.exit_code,
        **fields,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """One delivery under its lease."""

    context: Context
    customer: Customer
    feed: Feed
    planner: Planner
    lease: Lease
    started: float  # monotonic seconds
    screen: judging.Screen | None  # of a drop folder

    def run(self) -> DeliveryOutcome:
        earlier = self.planner.latest()
        cause = earlier.failure.cause if earlier is not None and earlier.failure is not None else None
        access_was_refused = cause in (RoleRefused.code, UnsafeRole.code)
        if earlier is not None and earlier.status is Status.BLOCKED and access_was_refused:
            refused = self._still_refused(earlier)
            if refused is not None:
                return refused
        plan = self.planner.record(self.lease)
        if plan.delivery is None:
            return self._with_held_files(self._nothing_to_do(plan))
        outcome = self._release(plan, plan.delivery, earlier)
        if outcome is None:
            # a key of this revision holds an object that must not be overwritten: use the next revision
            self.planner.supersede(self.lease, plan.delivery)
            plan = self.planner.record(self.lease)
            assert plan.delivery is not None
            outcome = self._release(plan, plan.delivery, None)
        if outcome is None:
            raise Defect(f"{self.lease.name}: stale twice", hint="report this with the log")
        return self._with_held_files(outcome)

    def _release(self, plan: Plan, delivery: Delivery, earlier: Delivery | None) -> DeliveryOutcome | None:
        """Send the revision unless the checks hold it back. Return None to supersede the revision."""
        gate = judging.gate(self.context, self.customer, self.feed, self.planner, plan, self.screen)
        if gate.error is None:
            outcome = self._execute(plan, delivery, earlier)
            return outcome and replace(outcome, checks=gate.failed)
        noted = self._noted(delivery, gate.error, earlier)
        return replace(self._without_a_run(noted, gate.error), checks=gate.failed)

    def _with_held_files(self, outcome: DeliveryOutcome) -> DeliveryOutcome:
        """Add the files of a drop folder that wait for a decision: the others are delivered meanwhile."""
        if self.screen is None:
            return outcome
        self.screen.finish()
        if not self.screen.failed:
            return outcome
        codes = (outcome.exit_code, ExitCode.WILL_RETRY)
        return replace(outcome, checks=self.screen.listed, exit_code=worst(codes))

    def _still_refused(self, earlier: Delivery) -> DeliveryOutcome | None:
        """Return None if the customer's role now allows access. Checked before the plan is made, which may
        have a million files. A refusal is recorded on the delivery, but does not count as a run."""
        try:
            admit(self.context, self.customer)
        except VendorIdentityError:
            raise
        except XmodeError as error:
            delivery = self._noted(earlier, error, earlier)
            telemetry.log(
                Event.DELIVERY_STILL_BLOCKED,
                revision=delivery.revision,
                attempts=delivery.attempts,
                next_attempt_at=delivery.next_attempt_at,
                **error.log_context(),
            )
            return self._without_a_run(delivery, error)
        return None

    def broken(self, defect: Defect) -> DeliveryOutcome:
        """Record a defect outside of a run, with the usual backoff."""
        latest = self.planner.latest()
        if latest is None:
            raise defect
        if latest.status not in FINISHED and not latest.is_superseded:
            self._noted(latest, defect, latest)
        return self._without_a_run(latest, defect)

    def _noted(self, current: Delivery, error: XmodeError, earlier: Delivery | None) -> Delivery:
        """Record the error. ``earlier`` is the delivery as it was recorded before this attempt."""
        now = self.context.clock.now()
        delivery = replace(
            current,
            status=_status(error),
            failure=failure_of(error),
            updated_at=now,
            attempts=current.attempts + 1,
            next_attempt_at=self.context.backoff.next_attempt_at(earlier, now),
        )
        self.context.ledger.deliveries.update(self.lease, delivery)
        return delivery

    def _without_a_run(self, delivery: Delivery, error: XmodeError) -> DeliveryOutcome:
        return failed(
            self.customer,
            self.feed,
            delivery.period,
            delivery.revision,
            error,
            seconds=self._seconds(),
            ends_run=_ends_run(error),
        )

    def _nothing_to_do(self, plan: Plan) -> DeliveryOutcome:
        latest = self.planner.latest()
        assert latest is not None
        return DeliveryOutcome(
            self.customer.name,
            self.feed.name,
            latest.period,
            latest.revision,
            "skipped",
            skipped=plan.skipped,
            seconds=self._seconds(),
            manifest_key=latest.manifest_key,
        )

    def _execute(self, plan: Plan, delivery: Delivery, earlier: Delivery | None) -> DeliveryOutcome | None:
        """Execute one run. ``earlier`` is the delivery before it. Return None to supersede the revision."""
        context = self.context
        now = context.clock.now()
        run = Run(
            # includes the attempt, so that a clock that was set back produces no duplicate
            id=f"{delivery.id[:12]}-{now:%Y%m%dT%H%M%S%f}-{delivery.attempts + 1}",
            delivery_id=delivery.id,
            started_at=now,
            holder=context.holder,
            engine=context.stores.info.name,
        )
        delivery = replace(delivery, status=Status.RUNNING, updated_at=now, attempts=delivery.attempts + 1)
        context.ledger.deliveries.update(self.lease, delivery)
        context.ledger.runs.start(self.lease, run)
        what = self.customer.name, self.feed.name, delivery.period
        context.progress.delivery_started(*what, plan.upload_count, plan.upload_bytes)
        telemetry.log(
            Event.DELIVERY_STARTED,
            revision=delivery.revision,
            run_id=run.id,
            objects=plan.upload_count,
            total_bytes=plan.upload_bytes,
            skipped=plan.skipped,
        )
        for problem in plan.problems:
            telemetry.warn(
                Event.SOURCE_PROBLEM, name=problem.name, cause=problem.code, message=problem.message
            )
        sent, rechecked = Sent(), Rechecked()
        error: XmodeError | None = None
        try:
            with opened(context, self.customer) as store:
                # If everything is to be sent, nothing can be gone.
                sends_all = plan.upload_count == delivery.object_count
                before = None if sends_all else context.ledger.objects.last_proof(delivery.id)
                tables.prepare(self.planner, store, delivery, self.lease)
                self._send(store, delivery, sent)
                error = obstacle(context, plan, sent)
                if error is None and not sent.stale and before is not None:
                    recheck = Recheck(context, self.planner, store, delivery, self.lease, before, rechecked)
                    sent.stale = recheck.run().stale
                    delivery = self.planner.counted(self.lease, delivery)
                    if rechecked.again and not sent.stale:
                        plan.upload_count += rechecked.again
                        context.progress.delivery_started(*what, rechecked.again, rechecked.again_bytes)
                        self._send(store, delivery, sent)
                        error = obstacle(context, plan, sent)
                    context.ledger.objects.spread_receipts(self.lease, delivery.id)
                if error is None and not sent.stale:
                    args = (context, self.customer, store, delivery, self.lease)
                    publishing.note_published(*args)
                    LargeObjects(*args).tidy()
                    formats = (self.customer.subscription(self.feed), self.customer.layout(self.feed))
                    published = publishing.publish(*args, *formats)
                    sent.stale = published is None
                    delivery = published or delivery
        except XmodeError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - recorded like errors of AWS and the source
            telemetry.exception(Event.DEFECT)
            error = defect_of(raised)
        finally:
            context.progress.delivery_finished()
        if sent.stale and error is None:
            self._finish(run, plan, sent, "superseded", None)
            return None
        plan.skipped -= rechecked.again + rechecked.missing.total()
        return self._close(run, plan, sent, rechecked, delivery, earlier, error)

    def _send(self, store: ObjectStore, delivery: Delivery, sent: Sent) -> None:
        sender = Sender(
            self.context, self.customer, self.feed, self.planner.source, store, delivery, self.lease, sent
        )
        sender.send(self.context.ledger.objects.pending(delivery.id))

    def _close(
        self,
        run: Run,
        plan: Plan,
        sent: Sent,
        rechecked: Rechecked,
        delivery: Delivery,
        earlier: Delivery | None,
        error: XmodeError | None,
    ) -> DeliveryOutcome:
        if isinstance(error, LeaseLost):
            telemetry.log(Event.LEASE_LOST, **error.log_context())
            raise error  # the ledger refuses further writes; the new holder of the lease continues
        status = _status(error)
        failure = failure_of(error) if error is not None else None
        interrupted = isinstance(error, Interrupted)
        word = "interrupted" if interrupted else str(status)
        now = self.context.clock.now()
        # An error of the vendor's identity is not the delivery's: no backoff once it is fixed.
        paused = error is not None and not isinstance(error, Interrupted | VendorIdentityError)
        delivery = replace(
            delivery,
            status=status,
            failure=None if interrupted else failure,
            updated_at=now,
            next_attempt_at=self.context.backoff.next_attempt_at(earlier, now) if paused else None,
        )
        self.context.ledger.deliveries.update(self.lease, delivery)
        run = self._finish(run, plan, sent, word, failure)
        fields = {name: getattr(failure, name) for name in ("cause", "responsible", "message") if failure}
        telemetry.log(
            Event.DELIVERY_FINISHED,
            run_id=run.id,
            revision=delivery.revision,
            outcome=word,
            uploaded=run.uploaded,
            adopted=sent.adopted,
            skipped=plan.skipped,
            failed=run.failed,
            sent_again=rechecked.again,
            missing=delivery.missing_count,
            sent_bytes=run.bytes,
            seconds=round(run.seconds, 3),
            manifest_key=delivery.manifest_key,
            **fields,
        )
        if isinstance(error, VendorIdentityError):
            raise error  # the same for every customer: the caller reports it once
        failures = sent.failures.items()
        problems = [*plan.problems, *(SourceProblem(name, its.cause, its.message) for name, its in failures)]
        return DeliveryOutcome(
            self.customer.name,
            self.feed.name,
            delivery.period,
            delivery.revision,
            word,
            uploaded=run.uploaded,
            skipped=run.skipped,
            failed=run.failed,
            bytes=run.bytes,
            seconds=run.seconds,
            manifest_key=delivery.manifest_key if status is Status.DELIVERED else None,
            failure=failure,
            problems=tuple(problems),
            exit_code=error.exit_code if error is not None else ExitCode.DONE,
            ends_run=error is not None and _ends_run(error),
            sent_again=rechecked.again,
            missing=delivery.missing_count,
        )

    def _finish(self, run: Run, plan: Plan, sent: Sent, outcome: str, failure: Failure | None) -> Run:
        run = replace(
            run,
            finished_at=self.context.clock.now(),
            outcome=outcome,
            uploaded=sent.uploaded,
            skipped=plan.skipped + sent.adopted,
            failed=sent.failed + len(plan.problems),
            bytes=sent.uploaded_bytes,
            seconds=self._seconds(),
            failure=failure,
        )
        self.context.ledger.runs.finish(self.lease, run)
        return run

    def _seconds(self) -> float:
        return self.context.clock.monotonic() - self.started


def _ends_run(error: XmodeError) -> bool:
    """Return True if the customer's other deliveries would fail too, or must not begin."""
    if isinstance(error, Incomplete | Defect):
        return False
    return isinstance(error, Interrupted) or halts(error)


def _status(error: XmodeError | None) -> Status:
    if error is None:
        return Status.DELIVERED
    if isinstance(error, Quarantined | Rejected):
        return Status.QUARANTINED if isinstance(error, Quarantined) else Status.SKIPPED
    if isinstance(error, Interrupted):
        return Status.PLANNED
    if error.exit_code == ExitCode.BLOCKED:
        return Status.BLOCKED
    return Status.FAILED
