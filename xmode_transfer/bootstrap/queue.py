"""The queue of a fleet: Procrastinate's, in the database of the ledger.

A job says only that a customer is queued; whose turn it is stands in the ledger. Jobs are written and taken
on the ledger's own connection, by the functions that Procrastinate's schema brings: a job is taken in the
transaction in which its turn begins, so a worker that dies leaves none behind, and a worker needs no event
loop, no listener and no heartbeat beside its lease. Procrastinate's own worker was tried first; what it does
when a connection is lost or a machine is frozen is in docs/architecture.md.

Jobs have a ``queueing_lock``, so a customer has one that waits at most. That two turns of a customer never
run at once is the affair of the customer's lease, which ``run`` takes too.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TEXT

TASK = "turn"
TURNS = "turns"
"""The queue of those who get on."""
WAITING = "waiting"
"""The queue of those who are broken off, whose turns may hang."""
_LOCK = "turn/"

_PUT = text("""
    INSERT INTO procrastinate_jobs (queue_name, task_name, priority, queueing_lock, args)
    VALUES (:queue, :task, :priority, :lock,
            jsonb_build_object('customer', CAST(:customer AS text)))
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
""")
_TAKE = text("""
    SELECT id, args->>'customer' AS customer
    FROM procrastinate_fetch_job_v2(CAST(ARRAY[:queue] AS varchar[]), NULL) WHERE id IS NOT NULL
""")
_FINISH = text("""
    SELECT procrastinate_finish_job_v1(:job, CAST('succeeded' AS procrastinate_job_status), true)
""")
_TAKE_OUT = text("DELETE FROM procrastinate_jobs WHERE queueing_lock = :lock AND status = 'todo'")
_LOST = text("""
    SELECT customer FROM unnest(:customers) AS customer
    WHERE NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs AS job
        WHERE job.queueing_lock = :lock || customer AND job.status = 'todo'
    )
    ORDER BY customer
""").bindparams(bindparam("customers", type_=ARRAY(TEXT)))


class LedgerQueue:
    """Jobs of customers, written and taken in the caller's transaction. Holds nothing; thread-safe."""

    def put(self, connection: Connection, customer: str, *, priority: int, waiting: bool) -> None:
        """Nothing, when a job of the customer is queued already."""
        job = {"queue": WAITING if waiting else TURNS, "task": TASK, "priority": priority}
        connection.execute(_PUT, {**job, "lock": _LOCK + customer, "customer": customer})

    def take(self, connection: Connection, *, waiting: bool) -> str | None:
        """The customer of the most urgent job, which is taken out of the queue."""
        found = connection.execute(_TAKE, {"queue": WAITING if waiting else TURNS}).one_or_none()
        if found is None:
            return None
        connection.execute(_FINISH, {"job": found.id})
        customer: str = found.customer
        return customer

    def take_out(self, connection: Connection, customer: str) -> None:
        """Removes the customer's queued job."""
        connection.execute(_TAKE_OUT, {"lock": _LOCK + customer})

    def lost(self, connection: Connection, customers: Sequence[str]) -> list[str]:
        """Of these queued customers, those without a job."""
        if not customers:
            return []
        return list(connection.execute(_LOST, {"customers": list(customers), "lock": _LOCK}).scalars())
