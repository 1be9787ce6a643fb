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
"""The job's one argument."""
HELP_TASK = "help"
HELP = "help"
"""The queue of those who would have help with a large delivery."""
DELIVERY = "delivery"
"""The one argument of such a job: the delivery's ID."""
_HELP_PRIORITY = -(2**31)  # behind all turns, should one worker fetch from both queues
_HELP_LOCK = "help/"
DEAD_AFTER_SECONDS = 20
"""A Procrastinate worker that has not been heard of for so long does nothing more with its jobs."""
_LOCK = "turn/"  # other kinds of jobs have locks of their own

_PUT = text("""
    INSERT INTO procrastinate_jobs (queue_name, task_name, priority, queueing_lock, args)
    VALUES (:queue, :task, :priority, :lock,
            jsonb_build_object(CAST(:argument AS text), CAST(:value AS text)))
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
""")
_TAKE_OUT = text("DELETE FROM procrastinate_jobs WHERE queueing_lock = :lock AND status = 'todo'")
_TAKE_HELP_OUT = text("""
    DELETE FROM procrastinate_jobs WHERE status = 'todo' AND starts_with(queueing_lock, :first)
""")
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
        connection.execute(_PUT, {**job, "lock": _LOCK + customer, "argument": CUSTOMER, "value": customer})

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

    def put_help(self, connection: Connection, delivery_id: str, customer: str, count: int) -> None:
        """So many jobs wait for helpers of the delivery afterwards, those that waited before among them."""
        job = {"queue": HELP, "task": HELP_TASK, "priority": _HELP_PRIORITY, "argument": DELIVERY}
        for number in range(count):
            lock = f"{_HELP_LOCK}{delivery_id}/{number}"
            connection.execute(_PUT, {**job, "lock": lock, "value": delivery_id})

    def take_help_out(self, connection: Connection, delivery_id: str) -> None:
        """Removes those that wait."""
        connection.execute(_TAKE_HELP_OUT, {"first": f"{_HELP_LOCK}{delivery_id}/"})

    def _bury(self, connection: Connection) -> None:
        connection.execute(_BURY, {"seconds": DEAD_AFTER_SECONDS})
