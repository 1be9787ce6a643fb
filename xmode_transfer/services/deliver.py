"""Delivering one period of one subscription: claim, plan, send, prove, publish, close.

All shells (``run``, the daemon, a worker) call this same function. Wherever the process dies, calling it
again goes on from the ledger, and ends with every source file as one object and a manifest that lists only
what is there.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Customer, Feed
from xmode_transfer.domain.errors import (
    AlreadyRunning,
    Defect,
    ExitCode,
    Interrupted,
    LeaseLost,
    Party,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.domain.records import (
    Delivery,
    DeliveryOutcome,
    Failure,
    Lease,
    Run,
    SourceProblem,
    Status,
)
from xmode_transfer.ports import PeriodState, Source
from xmode_transfer.services import leasing, publishing, sharing
from xmode_transfer.services.destination import Destination, was_not_let_in
from xmode_transfer.services.large import LargeObjects
from xmode_transfer.services.planning import Plan, Planner
from xmode_transfer.services.sending import Sent, failure_of, halts
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event


def deliver(bench: Workbench, customer: Customer, feed: Feed, state: PeriodState) -> DeliveryOutcome:
    """Delivers that period. Answers an outcome for everything that can happen to a delivery, refusals and
    interruptions included; raises only what concerns more than this delivery (our own identity, the ledger)
    and defects."""
    period = state.period.label
    started = bench.clock.monotonic()
    with telemetry.bind(customer=customer.name, feed=feed.name, period=period):
        try:
            with leasing.held(
                bench.ledger, leasing.of_delivery(customer.name, feed.name, period), bench.holder
            ) as lease:
                return _Work(bench, customer, feed, state, bench.sources(feed), lease, started).run()
        except AlreadyRunning as error:
            latest = bench.ledger.latest(customer.name, feed.name, period)
            return DeliveryOutcome(
                customer.name,
                feed.name,
                period,
                latest.revision if latest else 1,
                "already_running",
                failure=failure_of(error),
                exit_code=error.exit_code,
            )


@dataclass(frozen=True, slots=True)
class _Work:
    """One execution: what ``deliver`` knows once the lease is held."""

    bench: Workbench
    customer: Customer
    feed: Feed
    state: PeriodState
    source: Source
    lease: Lease
    started: float  # monotonic seconds

    def run(self) -> DeliveryOutcome:
        earlier = self.bench.ledger.latest(self.customer.name, self.feed.name, self.state.period.label)
        if earlier is not None and was_not_let_in(earlier):
            refusal = self._knock()
            if refusal is not None:
                return self._still_refused(earlier, refusal)
        planner = Planner(
            self.customer,
            self.feed,
            self.state,
            self.source,
            self.bench.ledger,
            self.bench.clock,
            self.bench.checksum_of,
        )
        plan = planner.record(self.lease)
        if plan.delivery is None:
            return self._nothing_to_do(plan)
        outcome = self._execute(plan, plan.delivery, earlier)
        if outcome is None:
            # an object of ours that was never committed holds older content: the next revision goes beside it
            planner.supersede(self.lease, plan.delivery)
            plan = planner.record(self.lease)
            assert plan.delivery is not None
            outcome = self._execute(plan, plan.delivery, None)
        if outcome is None:
            raise Defect(f"{self.lease.name}: stale twice", hint="report this with the log")
        return outcome

    def _knock(self) -> XmodeError | None:
        """Whether the customer lets us in by now: asked before the plan is made, since a customer who has not
        mended its role is asked again and again, and a plan may be a million files."""
        try:
            Destination(self.bench, self.customer).admit()
        except VendorIdentityError:
            raise
        except XmodeError as error:
            return error
        return None

    def _still_refused(self, earlier: Delivery, error: XmodeError) -> DeliveryOutcome:
        """Notes that it was asked in vain; that is no run."""
        now = self.bench.clock.now()
        delivery = replace(
            earlier,
            status=_status(error),
            failure=failure_of(error),
            updated_at=now,
            attempts=earlier.attempts + 1,
            next_attempt_at=self.bench.backoff.next_attempt_at(earlier, now),
        )
        self.bench.ledger.update_delivery(self.lease, delivery)
        telemetry.log(
            Event.DELIVERY_STILL_REFUSED,
            revision=delivery.revision,
            attempts=delivery.attempts,
            next_attempt_at=delivery.next_attempt_at,
            **error.log_context(),
        )
        return DeliveryOutcome(
            self.customer.name,
            self.feed.name,
            delivery.period,
            delivery.revision,
            str(delivery.status),
            seconds=self._seconds(),
            failure=delivery.failure,
            exit_code=error.exit_code,
            ends_run=halts(error),
        )

    def _nothing_to_do(self, plan: Plan) -> DeliveryOutcome:
        latest = self.bench.ledger.latest(self.customer.name, self.feed.name, self.state.period.label)
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
        """One run towards the delivery, which the ledger had as ``earlier`` before it. None when it has to be
        superseded."""
        bench = self.bench
        now = bench.clock.now()
        run = Run(
            # with the attempt, so that a clock that was set back gives no ID twice
            id=f"{delivery.id[:12]}-{now:%Y%m%dT%H%M%S%f}-{delivery.attempts + 1}",
            delivery_id=delivery.id,
            started_at=now,
            holder=bench.holder,
            engine=bench.stores.info.name,
        )
        delivery = replace(
            delivery,
            status=Status.RUNNING,
            updated_at=now,
            attempts=delivery.attempts + 1,
        )
        bench.ledger.update_delivery(self.lease, delivery)
        bench.ledger.start_run(self.lease, run)
        bench.progress.delivery_started(
            self.customer.name, self.feed.name, delivery.period, plan.upload_count, plan.upload_bytes
        )
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
        sent = Sent()
        error: XmodeError | None = None
        try:
            with Destination(bench, self.customer) as store:
                sent = sharing.send(
                    bench,
                    self.customer,
                    self.feed,
                    self.source,
                    store,
                    delivery,
                    self.lease,
                    plan.upload_count,
                    plan.upload_bytes,
                )
                error = self._obstacle(plan, sent)
                if error is None and not sent.stale:
                    LargeObjects(bench, self.customer, store, delivery, self.lease).tidy()
                    published = publishing.publish(bench, self.customer, store, delivery, self.lease)
                    sent.stale = published is None
                    delivery = published or delivery
        except XmodeError as raised:
            error = raised
        finally:
            bench.progress.delivery_finished()
        if sent.stale and error is None:
            self._finish(run, plan, sent, "superseded", None)
            return None
        return self._close(run, plan, sent, delivery, earlier, error)

    def _obstacle(self, plan: Plan, sent: Sent) -> XmodeError | None:
        """Why the delivery cannot be published now, if it cannot."""
        if sent.halted is not None:
            return sent.halted
        if self.bench.stop.is_set():
            return Interrupted(
                "stopped on request", hint="what was sent is recorded; the next run goes on from there"
            )
        count = sent.failed + len(plan.problems)
        if not count:
            return None
        if sent.passing is not None and not (sent.uploaded or sent.adopted or plan.problems):
            return sent.passing  # nothing got through: that is the destination's trouble, not these files'
        of_all = plan.skipped + plan.upload_count + len(plan.problems)
        failures = [failure.failure for failure in sent.failures]
        theirs = {item.party for item in failures} == {Party.CUSTOMER} and not plan.problems
        return (_TheirsToMend if theirs else _Incomplete)(
            f"{count} of {of_all} files could not be delivered",
            *failures,
            problems=plan.problems,
        )

    def _close(
        self,
        run: Run,
        plan: Plan,
        sent: Sent,
        delivery: Delivery,
        earlier: Delivery | None,
        error: XmodeError | None,
    ) -> DeliveryOutcome:
        if isinstance(error, LeaseLost):
            telemetry.log(Event.LEASE_LOST, **error.log_context())
            raise error  # the ledger takes nothing more from us; whoever holds the lease goes on
        status = _status(error)
        failure = failure_of(error) if error is not None else None
        word = "interrupted" if isinstance(error, Interrupted) else str(status)
        now = self.bench.clock.now()
        failed = error is not None and not isinstance(error, Interrupted)
        delivery = replace(
            delivery,
            status=status,
            failure=failure if failed else None,
            updated_at=now,
            next_attempt_at=self._next_attempt_at(earlier, now, error) if failed else None,
        )
        self.bench.ledger.update_delivery(self.lease, delivery)
        seconds = self._finish(run, plan, sent, word, failure)
        fields = failure and {"cause": failure.cause, "party": failure.party, "message": failure.message}
        telemetry.log(
            Event.DELIVERY_FINISHED,
            run_id=run.id,
            revision=delivery.revision,
            outcome=word,
            uploaded=sent.uploaded,
            adopted=sent.adopted,
            skipped=plan.skipped,
            failed=sent.failed + len(plan.problems),
            sent_bytes=sent.uploaded_bytes,
            seconds=round(seconds, 3),
            manifest_key=delivery.manifest_key,
            **(fields or {}),
        )
        if isinstance(error, VendorIdentityError):
            raise error  # ours, and the same for every customer: said once, by whoever called
        problems = [*plan.problems]
        problems += [SourceProblem(f.name, f.failure.cause, f.failure.message) for f in sent.failures]
        return DeliveryOutcome(
            self.customer.name,
            self.feed.name,
            delivery.period,
            delivery.revision,
            word,
            uploaded=sent.uploaded,
            skipped=plan.skipped + sent.adopted,
            failed=sent.failed + len(plan.problems),
            bytes=sent.uploaded_bytes,
            seconds=seconds,
            manifest_key=delivery.manifest_key if status is Status.DELIVERED else None,
            failure=failure,
            problems=tuple(problems),
            exit_code=error.exit_code if error is not None else ExitCode.DONE,
            ends_run=error is not None and (isinstance(error, Interrupted) or halts(error)),
        )

    def _next_attempt_at(
        self, earlier: Delivery | None, now: datetime, error: XmodeError | None
    ) -> datetime | None:
        """None for our own identity: that is no trouble of this delivery, and whoever mends it wants no
        pause."""
        if isinstance(error, VendorIdentityError):
            return None
        return self.bench.backoff.next_attempt_at(earlier, now)

    def _finish(self, run: Run, plan: Plan, sent: Sent, outcome: str, failure: Failure | None) -> float:
        seconds = self._seconds()
        self.bench.ledger.finish_run(
            self.lease,
            replace(
                run,
                finished_at=self.bench.clock.now(),
                outcome=outcome,
                uploaded=sent.uploaded,
                skipped=plan.skipped + sent.adopted,
                failed=sent.failed + len(plan.problems),
                bytes=sent.uploaded_bytes,
                seconds=seconds,
                failure=failure,
            ),
        )
        return seconds

    def _seconds(self) -> float:
        return self.bench.clock.monotonic() - self.started


class _Incomplete(XmodeError):
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


class _TheirsToMend(_Incomplete):
    """Whatever did not arrive, only the customer can let in."""

    party = Party.CUSTOMER


def _status(error: XmodeError | None) -> Status:
    if error is None:
        return Status.DELIVERED
    if isinstance(error, Interrupted):
        return Status.PLANNED
    if error.exit_code == ExitCode.BLOCKED:
        return Status.BLOCKED
    return Status.FAILED
