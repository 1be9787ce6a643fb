"""Delivery of notices to customers' buckets: each is recorded, written once, and retried when refused."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta

from xmode_transfer import telemetry
from xmode_transfer.alerting import notices
from xmode_transfer.alerting.health_records import Assessment
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import ObjectStore, PutRequest
from xmode_transfer.config import Configuration, Customer
from xmode_transfer.model import errors
from xmode_transfer.model.health import Notice, NoticeKind, NoticeStatus
from xmode_transfer.model.keys import content_type
from xmode_transfer.model.recall import RecallProgress
from xmode_transfer.model.records import Lease
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, held, opened
from xmode_transfer.transfer.spooling import SpooledFile, prove

WORKERS = 4
PASS_SECONDS = 45.0  # then the next pass continues with the other customers
_LEASE = "notices"


class Notices:
    """Runs beside deliveries with its own threads, lease and role sessions. No error here affects them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notices")
        self._current: Future[None] | None = None

    def offer(self, configuration: Configuration, assessment: Assessment) -> None:
        """Start a pass, unless one is running. Returns at once."""
        with self._lock:
            if not self._stop.is_set() and (self._current is None or self._current.done()):
                self._current = self._thread.submit(self._carry_out, configuration, assessment)

    def close(self, seconds: float) -> bool:
        """Start nothing more and wait for requests in flight; return True if they ended."""
        with self._lock:
            self._stop.set()
        self._thread.shutdown(wait=False)
        return self._current is None or not wait([self._current], seconds).not_done

    def put_withdrawn(self, configuration: Configuration) -> None:
        """Record and put the notices of what recalls have withdrawn. A process that puts notices now, or the
        daemon's next pass, puts the others."""
        self._carry_out(configuration, None)

    def _carry_out(self, configuration: Configuration, assessment: Assessment | None) -> None:
        try:
            self.run_once(configuration, assessment)
        except (errors.AlreadyRunning, errors.LeaseLost):
            pass  # another process writes them
        except errors.XmodeError as error:
            telemetry.warn(Event.NOTICES_FAILED, **error.log_context())
        except Exception:  # noqa: BLE001 - a defect here must not stop notices for good
            telemetry.exception(Event.DEFECT)

    def run_once(self, configuration: Configuration, assessment: Assessment | None) -> None:
        """Record new notices and write recorded ones; without an assessment, only those of what was
        withdrawn. Raises LedgerError; AlreadyRunning and LeaseLost when another process does so."""
        ledger, now = self._context.ledger, self._context.clock.now()
        customers = notices.wanting(configuration)
        planned = ledger.notices.find(statuses=[NoticeStatus.PLANNED])
        recalls = [item for item in ledger.recalls.unnotified() if item.customer in configuration.customers]
        if not customers and not planned and not recalls:
            return
        if assessment is None:
            found, planned = [], [item for item in planned if item.mark.kind is NoticeKind.WITHDRAWN]
        else:
            corrections = ledger.deliveries.corrections(now - notices.CORRECTED_WITHIN)
            found = notices.happenings(customers, assessment, corrections)
        withdrawn = [happening for item in recalls for happening in self._withdrawals(item)]
        known = [
            item
            for name in sorted({item.mark.customer for item in (*found, *withdrawn)})
            for item in ledger.notices.find(name)
        ]
        # Readers continue after the last key that they have seen, so a customer's times never decrease,
        # whatever this machine's clock says.
        free_at = dict.fromkeys(configuration.customers, now)
        for notice in known:
            name = notice.mark.customer
            free_at[name] = max(free_at[name], notice.made_at + timedelta(microseconds=1))
        fresh = []
        for item in (
            *notices.unreported(found, known),
            *notices.unreported_withdrawals(withdrawn, known),
        ):
            name = item.mark.customer
            fresh.append(notices.notice(item, configuration.customers[name], free_at[name]))
            if item.removals:  # another recall's notice may be of the same feed and period
                free_at[name] += timedelta(microseconds=1)
        gone = notices.overtaken(planned, customers, found)
        open_ = [item for item in planned if item not in gone] + fresh
        if not open_ and not gone and not recalls:
            return
        with held(ledger, _LEASE, self._context.holder) as lease:
            ledger.notices.record(lease, [item.withdrawn() for item in gone] + fresh)
            for progress in recalls:
                ledger.recalls.note_notified(progress, now)
            if assessment is None or assessment.daemon is None or assessment.daemon.trouble is None:
                self._put_all(lease, configuration.customers, assessment, open_)

    def _withdrawals(self, progress: RecallProgress) -> list[notices.Happening]:
        ledger = self._context.ledger
        removals = ledger.operations.of_recall(progress.customer, progress.recall)
        feed = removals[0].feed if removals else None
        deliveries = ledger.deliveries.find(progress.customer, feed) if feed is not None else []
        return notices.withdrawals(progress.customer, progress.recall, removals, deliveries)

    def _put_all(
        self,
        lease: Lease,
        customers: Mapping[str, Customer],
        assessment: Assessment | None,
        planned: list[Notice],
    ) -> None:
        clock = self._context.clock
        ends = clock.monotonic() + PASS_SECONDS
        by_customer: dict[str, list[Notice]] = {}
        for item in sorted(planned, key=lambda item: (item.mark.customer, item.key)):
            by_customer.setdefault(item.mark.customer, []).append(item)

        def put(name: str) -> None:
            if clock.monotonic() < ends and not self._stop.is_set():
                self._put(lease, customers[name], by_customer[name])

        waiting = [
            name
            for name, items in by_customer.items()
            if name in customers
            and notices.ready(items, clock.now())
            and not (assessment is not None and notices.is_shut(assessment.customer(name)))
        ]
        waiting.sort(key=lambda name: by_customer[name][0].made_at)
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="notice") as threads:
            for done in [threads.submit(put, name) for name in waiting]:
                done.result()

    def _put(self, lease: Lease, customer: Customer, planned: Sequence[Notice]) -> None:
        """Oldest first, and stop at the first refusal: none may sort before a key that a reader has seen."""
        ledger, clock = self._context.ledger, self._context.clock
        item = planned[0]
        try:
            with opened(self._context, customer, Step.NOTICE) as store:
                for item in planned:
                    if self._stop.is_set():
                        return
                    self._put_one(store, item)
                    ledger.notices.record(lease, [item.put(clock.now())])
                    telemetry.log(Event.NOTICE_PUT, **_fields(item))
        except (errors.LedgerError, errors.LeaseLost, errors.VendorIdentityError):
            raise  # not this customer's
        except errors.XmodeError as error:
            refused = item.refused(error.message, clock.now())
            ledger.notices.record(lease, [refused])
            fields = {**_fields(item), **error.log_context(), "next_attempt_at": refused.next_attempt_at}
            telemetry.warn(Event.NOTICE_NOT_PUT, **fields)

    def _put_one(self, store: ObjectStore, item: Notice) -> None:
        """Finding the same notice there is success."""
        with SpooledFile([item.body.encode()]) as body:
            request = PutRequest(item.key, item.token, body.size, content_type(item.key))
            try:
                answer = store.put(request, body).result()
            except errors.ObjectExists:
                info = store.head(item.key)
                if info is None or info.token != item.token:
                    raise
            else:
                if not answer.proven:
                    prove(store, item.key, body.size)


def _fields(item: Notice) -> dict[str, object]:
    mark = item.mark
    return {
        "customer": mark.customer,
        "feed": mark.feed,
        "period": mark.period,
        "revision": mark.revision,
        "notice": str(mark.kind),
        "key": item.key,
    }
