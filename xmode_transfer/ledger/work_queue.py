"""A fleet's queue, in Procrastinate's tables in the ledger's database.

A customer's queued and running jobs are rows of ``procrastinate_jobs``, with the customer as ``lock`` and as
``queueing_lock``: at most one is queued and one runs. The functions of Procrastinate's schema write and take
them on the ledger's connection, so that a job, its customer's lease and its result are one transaction.
docs/scaling.md explains why Procrastinate's own worker is not used. The lease, which ``run`` claims too,
fences.

Rows are locked in one order: the job, the lease, ``queue_customers``. The clock's row is never waited for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Double, cast, delete, func, select, update

from xmode_transfer.config.times import Work
from xmode_transfer.ledger import leases, watching
from xmode_transfer.ledger import statements as sql
from xmode_transfer.ledger.database import Database, this_process
from xmode_transfer.ledger.rows import text_of
from xmode_transfer.ledger.tables import ENTRY, WORKER, queue_clock, queue_customers, workers
from xmode_transfer.ledger.writer import GroupCommit, LedgerPart
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost
from xmode_transfer.model.jobs import (
    BUSY_SECONDS,
    Job,
    JobRequest,
    JobResult,
    JobState,
    QueueEntry,
    customer_lease,
    merged,
)
from xmode_transfer.model.process import QUIET_AFTER, SILENT_AFTER, FleetStatus, WorkerRecord

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

REBASE_ABOVE = 1e6
"""A later virtual time is set back to 0, so that priorities fit into 32 bits."""
SETTLING_SECONDS = 20.0
"""The time for clients to renew their leases after a server was away."""
_REQUESTS_AT_A_TIME = 100
_TIDY_SECONDS = 3600.0
_WORKERS_KEPT = timedelta(hours=1)


class ProcrastinateQueue(LedgerPart):
    """Implements ``WorkQueue`` on PostgreSQL; ``service.cluster`` creates its tables."""

    def __init__(self, database: Database, writer: GroupCommit, clock: "Clock") -> None:
        super().__init__(database, writer)
        self._clock = clock
        self._leases = leases.Leases(database, writer, clock)
        self._alone = partial(writer.call, alone=True)
        self._life: str | None = None
        self._life_since = 0.0
        self._tidied: float | None = None

    def register(self, weights: Mapping[str, int], known: Iterable[QueueEntry] = ()) -> None:
        wanted = dict(weights)
        entries = {entry.customer: entry for entry in known}

        def action(connection: Connection) -> None:
            now = self._database.now(connection, self._clock)
            there = _weights(connection)
            if gone := sorted(there.keys() - wanted.keys()):
                connection.execute(sql.TAKE_OUT, {"customers": gone})
                connection.execute(sql.ABORT, {"customers": gone})
                connection.execute(delete(queue_customers).where(queue_customers.c.customer.in_(gone)))
            for name in sorted(name for name in there.keys() & wanted.keys() if there[name] != wanted[name]):
                connection.execute(update(queue_customers).where(_is(name)).values(weight=wanted[name]))
            starting = self._database.insert(queue_clock).on_conflict_do_nothing()
            connection.execute(starting, {"id": 1, "clock": 0.0})
            rows = []
            for name in sorted(wanted.keys() - there.keys()):
                entry = entries.get(name) or QueueEntry(name, JobState.RESTING, now)
                cost = {"weight": wanted[name], "spent": 0.0, "backfill": False}
                rows.append({"customer": name, **cost, **ENTRY.values(entry)})
            if rows:
                connection.execute(self._database.insert(queue_customers).on_conflict_do_nothing(), rows)

        if self._read(_weights) != wanted:
            self._alone(action)

    def enqueue(self, requests: Iterable[JobRequest]) -> None:
        wanted = list(merged(requests).values())
        for start in range(0, len(wanted), _REQUESTS_AT_A_TIME):
            self._alone(partial(self._enqueue, requests=wanted[start : start + _REQUESTS_AT_A_TIME]))

    def _enqueue(self, connection: Connection, requests: list[JobRequest]) -> None:
        connection.execute(
            sql.ENQUEUE,
            {
                "customers": [request.customer for request in requests],
                "skip_backoff": [request.skip_backoff for request in requests],
                "serving_at": [request.serving_at and text_of(request.serving_at) for request in requests],
                "live": [request.is_live for request in requests],
                "now": text_of(self._database.now(connection, self._clock)),
            },
        )

    def stop(self, customer: str) -> None:
        self._alone(lambda connection: connection.execute(sql.ABORT, {"customers": [customer]}))

    def snapshot(self) -> list[QueueEntry]:
        return [_entry_of(row) for row in self._read(lambda c: c.execute(sql.SNAPSHOT).all())]

    def reap(self) -> list[str]:
        mark, now = self._database.presence(this_process()), self._clock.monotonic()
        if mark != self._life:
            self._life, self._life_since = mark, now
        # The server was restarted or replaced, and other processes have yet to renew their leases.
        life = mark if now - self._life_since < SETTLING_SECONDS else None
        abandoned = self._read(lambda connection: self._abandoned(connection, life))
        taken = [row.customer for row in abandoned if self._alone(partial(self._take, found=row, life=life))]
        if self._tidied is None or now - self._tidied >= _TIDY_SECONDS:
            self._tidied = now
            self._alone(self._tidy)
        return taken

    def _abandoned(self, connection: Connection, life: str | None, number: int | None = None) -> list[Any]:
        """Return the running jobs, or the one of that number, with a claimable lease. In a new ``life`` of
        the server, leases of another one do not expire: their holders are about to renew them."""
        now = self._database.now(connection, self._clock)

        def had_time(row: Any) -> bool:
            if life is None or row.presence in (life, None):
                return True
            return self._database.is_dead(connection, row.holder, row.presence)

        return [
            row
            for row in connection.execute(sql.HELD, {"under": customer_lease(""), "id": number}).all()
            if leases.is_claimable(connection, self._database, row, now) and had_time(row)
        ]

    def _take(self, connection: Connection, found: Any, life: str | None) -> bool:
        """Take the job over if it has not changed."""
        running = connection.execute(sql.RUNNING, {"id": found.id, "generation": found.generation}).all()
        if not running or not self._abandoned(connection, life, found.id):
            return False
        leases.revoke(connection, customer_lease(found.customer), found.begun_by)
        leases.revoke(connection, f"delivery/{found.customer}/", found.begun_by)
        connection.execute(sql.FINISH, {"id": found.id, "how": "failed"})
        self._enqueue_anew(connection, found.customer, _request_of(found))
        return True

    def _enqueue_anew(self, connection: Connection, customer: str, request: JobRequest | None) -> None:
        """Queue the request, merged with those that came while the job ran, after it has ended."""
        for row in connection.execute(sql.TAKE_OUT, {"customers": [customer]}).all():
            request = _request_of(row).merged(request)
        if request is not None:
            self._enqueue(connection, [request])

    def _tidy(self, connection: Connection) -> None:
        now = self._database.now(connection, self._clock)
        connection.execute(delete(workers).where(workers.c.seen_at < now - _WORKERS_KEPT))
        if (connection.execute(select(queue_clock.c.clock)).scalar() or 0.0) > REBASE_ABOVE:
            for statement in sql.REBASE:
                connection.execute(statement)

    def workers(self) -> list[WorkerRecord]:
        def action(connection: Connection) -> list[WorkerRecord]:
            now = self._database.now(connection, self._clock)
            recent = select(workers).where(workers.c.seen_at >= now - _WORKERS_KEPT)
            found = []
            for row in connection.execute(recent.order_by(workers.c.seen_at.desc(), workers.c.holder)).all():
                is_quiet = row.stopped_at is None and now - row.seen_at >= QUIET_AFTER
                lease = f"worker/{row.holder}"
                gone = is_quiet and leases.is_orphaned(connection, self._database, lease)
                found.append(WORKER.record(row, holder=row.holder, gone=gone))
            return found

        return self._read(action)

    def next(self, holder: str, ttl_seconds: float, *, suspended: bool) -> Job | None:
        begun: list[Job] = []  # by attempts with an unknown outcome

        def action(connection: Connection) -> Job | None:
            for written in begun:
                if self._is_running(connection, written):
                    return written
            while (row := connection.execute(sql.FETCH, queue).one_or_none()) is not None:
                job = self._begin(connection, row, holder, presence, ttl_seconds)
                if job is not None:
                    begun.append(job)
                    return job
            return None

        queue = {"queue": sql.SUSPENDED if suspended else sql.REGULAR}
        presence = self._database.presence(holder)
        return self._alone(action)

    def _begin(
        self, connection: Connection, row: Any, holder: str, presence: str | None, ttl_seconds: float
    ) -> Job | None:
        try:
            lease = self._leases.claim_in(
                connection, customer_lease(row.customer), holder, presence, ttl_seconds
            )
        except AlreadyRunning:  # a `run` has it
            connection.execute(sql.PUT_BACK, {"id": row.id, "seconds": BUSY_SECONDS})
            return None
        cost = 1.0 / cast(queue_customers.c.weight, Double)
        known = connection.execute(
            update(queue_customers)
            .where(_is(row.customer))
            .values(spent=row.tag + cost)
            .returning(queue_customers.c.ended, queue_customers.c.serving_at, queue_customers.c.reread_at)
        ).one_or_none()
        if known is None:  # the customer was removed a moment ago
            leases.release(connection, lease)
            connection.execute(sql.FINISH, {"id": row.id, "how": "failed"})
            return None
        now = text_of(self._database.now(connection, self._clock))
        begun = {"id": row.id, "holder": holder, "generation": lease.generation, "now": now}
        connection.execute(sql.BEGUN, begun)
        if row.queue_name == sql.REGULAR:  # the cost of a suspended one is no measure for the others
            connection.execute(sql.MOVE_CLOCK, {"tag": row.tag})
        serving = [at for at in (row.serving_at, known.serving_at) if at is not None]
        serving_at = max(serving, default=None)
        return Job(row.customer, lease, row.skip_backoff, serving_at, known.ended, known.reread_at, row.id)

    def _is_running(self, connection: Connection, job: Job) -> bool:
        values = {"id": job.number, "generation": job.lease.generation}
        return connection.execute(sql.RUNNING, values).one_or_none() is not None

    def delivers(self, job: Job, feed: str, period: str) -> None:
        noting = update(queue_customers).where(_is(job.customer)).values(feed=feed, period=period)
        self._fenced(job.lease, lambda c: c.execute(noting))

    def done(self, job: Job, result: JobResult) -> None:
        written = False  # by an attempt with an unknown outcome

        def action(connection: Connection) -> None:
            nonlocal written
            if not self._is_running(connection, job):
                ended = connection.execute(select(queue_customers.c.ended).where(_is(job.customer))).scalar()
                if written and ended in (None, job.lease.generation):
                    return
                raise LeaseLost(
                    f"The job of {job.customer} is no longer ours.",
                    hint="Nothing was written. Another worker took it over, or the ledger was restored from "
                    "a backup while it ran; the customer's next job finds what was delivered.",
                )
            leases.check(connection, job.lease)
            written = True
            if result.looked and job.serving_at is not None:
                watching.serve(connection, self._database, job.customer, Work.DELIVER, job.serving_at)
            leases.release(connection, job.lease)
            connection.execute(sql.FINISH, {"id": job.number, "how": "succeeded"})
            entry = QueueEntry.after(job, result, self._database.now(connection, self._clock))
            values = ENTRY.values(entry) | {
                "backfill": result.backfill,
                "serving_at": None if result.looked else job.serving_at,
            }
            if result.reread_at is not None:
                values["reread_at"] = result.reread_at
            connection.execute(update(queue_customers).where(_is(job.customer)).values(values))
            again = JobRequest(job.customer) if result.again else None
            self._enqueue_anew(connection, job.customer, again)

        self._alone(action)

    def beat(self, worker: WorkerRecord) -> FleetStatus:
        def action(connection: Connection) -> FleetStatus:
            now = self._database.now(connection, self._clock)
            values = WORKER.values(replace(worker, seen_at=now))
            adding = self._database.insert(workers).values(holder=worker.holder, **values)
            connection.execute(adding.on_conflict_do_update(index_elements=["holder"], set_=values))
            alive = select(func.count()).where(
                workers.c.stopped_at.is_(None), workers.c.seen_at >= now - SILENT_AFTER
            )
            return FleetStatus(
                workers=connection.execute(alive).scalar_one(),
                queued=connection.execute(sql.QUEUED).scalar_one(),
                to_stop=frozenset(connection.execute(sql.TO_STOP, {"holder": worker.holder}).scalars()),
            )

        return self._alone(action)


def _weights(connection: Connection) -> dict[str, int]:
    query = select(queue_customers.c.customer, queue_customers.c.weight)
    return {row.customer: row.weight for row in connection.execute(query)}


def _is(customer: str) -> ColumnElement[bool]:
    return queue_customers.c.customer == customer


def _request_of(row: Any) -> JobRequest:
    return JobRequest(row.customer, row.skip_backoff, row.serving_at)


def _entry_of(row: Any) -> QueueEntry:
    state = JobState.SUSPENDED if row.reason else JobState.RESTING
    entry = ENTRY.record(row, customer=row.customer, state=state, holder=row.holder)
    if row.begun_at is not None:
        return replace(entry, state=JobState.RUNNING, since_at=row.begun_at)
    if row.queued_at is not None:
        return replace(entry, state=JobState.QUEUED, since_at=row.queued_at)
    return entry
