"""The queue that wakes the workers: Procrastinate's, in the database of the ledger.

A job says only that a customer is queued; whose turn it is stands in the ledger. It is written by SQL of our
own on the ledger's connection, since Procrastinate has no call that takes part in a transaction and leaves it
whole when a job is there already.

Jobs have a ``queueing_lock``, so a customer has one that waits at most, and no ``lock``: that two turns of a
customer never run at once is the ledger's affair. With a ``lock``, the job of a dead worker would stand in
the way of the customer's next one, which would also lie there for a poll's time after each turn, and every
fetch would look through all the locks there are.
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
CUSTOMER = "customer"
"""The job's one argument, as ``_PUT`` writes it."""
DEAD_AFTER_SECONDS = 20
"""A Procrastinate worker that has not been heard of for so long does nothing more with its jobs."""
_LOCK = "turn/"

_PUT = text("""
    INSERT INTO procrastinate_jobs (queue_name, task_name, priority, queueing_lock, args)
    VALUES (:queue, :task, :priority, :lock,
            jsonb_build_object('customer', CAST(:customer AS text)))
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
""")
_TAKE_OUT = text("DELETE FROM procrastinate_jobs WHERE queueing_lock = :lock AND status = 'todo'")
_BURY = text("""
    DELETE FROM procrastinate_jobs AS job
    WHERE job.status = 'doing' AND NOT EXISTS (
        SELECT 1 FROM procrastinate_workers AS worker
        WHERE worker.id = job.worker_id
        AND worker.last_heartbeat > clock_timestamp() - make_interval(secs => :seconds)
    )
""")
_LOST = text("""
    SELECT customer FROM unnest(:customers) AS customer
    WHERE NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs AS job
        WHERE job.queueing_lock = :lock || customer AND job.status = 'todo'
    ) AND NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs AS job
        WHERE job.queueing_lock = :lock || customer AND job.status = 'doing'
    )
    ORDER BY customer
""").bindparams(bindparam("customers", type_=ARRAY(TEXT)))


class LedgerQueue:
    """Jobs of customers, written and removed in the caller's transaction. Holds nothing; thread-safe."""

    def put(self, connection: Connection, customer: str, *, priority: int, waiting: bool) -> None:
        """Nothing, when a job of the customer is queued already."""
        job = {"queue": WAITING if waiting else TURNS, "task": TASK, "priority": priority}
        connection.execute(_PUT, {**job, "lock": _LOCK + customer, "customer": customer})

    def take_out(self, connection: Connection, customer: str) -> None:
        """Removes the customer's queued job, and what dead workers had begun."""
        connection.execute(_TAKE_OUT, {"lock": _LOCK + customer})
        self._bury(connection)

    def lost(self, connection: Connection, customers: Sequence[str]) -> list[str]:
        """Of these queued customers, those without a job that is queued or in the hands of a live worker.
        What dead workers, of any customer, had begun is removed."""
        self._bury(connection)
        if not customers:
            return []
        return list(connection.execute(_LOST, {"customers": list(customers), "lock": _LOCK}).scalars())

    def _bury(self, connection: Connection) -> None:
        connection.execute(_BURY, {"seconds": DEAD_AFTER_SECONDS})
