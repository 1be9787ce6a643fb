"""The SQL of the fleet's queue: Procrastinate's jobs beside ``queue_customers``, and Procrastinate's own
functions."""

from sqlalchemy import BigInteger, Boolean, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TEXT

from xmode_transfer.ledger.tables import queue_customers
from xmode_transfer.ledger.tables.base import Time
from xmode_transfer.model.jobs import BACKFILL_HANDICAP, PRIORITY_STEPS

REGULAR = "regular"
SUSPENDED = "suspended"
"""The queue of customers that are suspended, whose jobs may hang."""

# ``tag`` is what the customer counts as having had when it is queued; it stays when that is asked for again.
ENQUEUE = text("""
    INSERT INTO procrastinate_jobs AS job (queue_name, task_name, priority, lock, queueing_lock, args)
    SELECT CASE WHEN reason = '' THEN :regular ELSE :suspended END, 'deliver',
        -floor((tag + CASE WHEN backfill AND NOT live THEN :handicap ELSE 0 END) * :steps)::integer,
        customer, customer, jsonb_build_object('tag', tag, 'live', live, 'skip_backoff', skip_backoff,
            'serving_at', asked.serving_at, 'queued_at', CAST(:now AS text))
    FROM unnest(:customers, :skip_backoff, :serving_at, :live)
        AS asked (customer, skip_backoff, serving_at, live)
    JOIN queue_customers USING (customer)
    CROSS JOIN LATERAL (SELECT greatest(spent, (SELECT clock FROM queue_clock)) AS tag) AS present
    ORDER BY customer
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO UPDATE SET
        priority = CASE WHEN (excluded.args->>'live')::boolean
            THEN -floor((job.args->>'tag')::double precision * :steps)::integer ELSE job.priority END,
        args = job.args || jsonb_build_object(
            'skip_backoff', (job.args->>'skip_backoff')::boolean OR (excluded.args->>'skip_backoff')::boolean,
            'serving_at', greatest(job.args->>'serving_at', excluded.args->>'serving_at'))
""").bindparams(
    bindparam("customers", type_=ARRAY(TEXT)),
    bindparam("skip_backoff", type_=ARRAY(Boolean)),
    bindparam("serving_at", type_=ARRAY(TEXT)),
    bindparam("live", type_=ARRAY(Boolean)),
    regular=REGULAR,
    suspended=SUSPENDED,
    handicap=BACKFILL_HANDICAP,
    steps=PRIORITY_STEPS,
)
_ID = bindparam("id", type_=BigInteger)
FETCH = text("""
    SELECT id, lock AS customer, queue_name, (args->>'tag')::double precision AS tag,
        (args->>'skip_backoff')::boolean AS skip_backoff, args->>'serving_at' AS serving_at
    FROM procrastinate_fetch_job_v2(CAST(ARRAY[:queue] AS varchar[]), NULL) WHERE id IS NOT NULL
""").columns(serving_at=Time())
PUT_BACK = text("""
    SELECT procrastinate_retry_job_v2(:id, now() + make_interval(secs => :seconds), NULL, NULL, NULL)
""").bindparams(_ID)
BEGUN = text("""
    UPDATE procrastinate_jobs SET args = args || jsonb_build_object(
        'holder', CAST(:holder AS text), 'generation', CAST(:generation AS bigint),
        'begun_at', CAST(:now AS text))
    WHERE id = :id
""").bindparams(_ID)
MOVE_CLOCK = text("""
    UPDATE queue_clock SET clock = :tag WHERE id = (
        SELECT id FROM queue_clock WHERE clock < :tag FOR NO KEY UPDATE SKIP LOCKED)
""")
RUNNING = text("""
    SELECT id FROM procrastinate_jobs
    WHERE id = :id AND status = 'doing' AND (args->>'generation')::bigint = :generation FOR UPDATE
""").bindparams(_ID)
FINISH = text(
    "SELECT procrastinate_finish_job_v1(:id, CAST(:how AS procrastinate_job_status), true)"
).bindparams(_ID)
TAKE_OUT = (
    text("""
    DELETE FROM procrastinate_jobs WHERE queueing_lock = ANY(:customers) AND status = 'todo'
    RETURNING lock AS customer, (args->>'skip_backoff')::boolean AS skip_backoff,
        args->>'serving_at' AS serving_at
""")
    .bindparams(bindparam("customers", type_=ARRAY(TEXT)))
    .columns(serving_at=Time())
)
ABORT = text("""
    SELECT procrastinate_cancel_job_v1(id, true, false) FROM procrastinate_jobs
    WHERE lock = ANY(:customers) AND status = 'doing'
""").bindparams(bindparam("customers", type_=ARRAY(TEXT)))
SNAPSHOT = text("""
    SELECT queue_customers.*, doing.args->>'begun_at' AS begun_at, doing.args->>'holder' AS holder,
        todo.args->>'queued_at' AS queued_at
    FROM queue_customers
    LEFT JOIN procrastinate_jobs AS doing ON doing.lock = customer AND doing.status = 'doing'
    LEFT JOIN procrastinate_jobs AS todo ON todo.queueing_lock = customer AND todo.status = 'todo'
    ORDER BY customer
""").columns(
    **{column.name: column.type for column in queue_customers.columns}, begun_at=Time(), queued_at=Time()
)
HELD = (
    text("""
    SELECT job.id, job.lock AS customer, job.args->>'holder' AS begun_by,
        (job.args->>'generation')::bigint AS generation, (job.args->>'skip_backoff')::boolean AS skip_backoff,
        job.args->>'serving_at' AS serving_at, lease.holder, lease.presence, lease.expires_at
    FROM procrastinate_jobs AS job LEFT JOIN leases AS lease
        ON lease.name = :under || job.lock AND lease.generation = (job.args->>'generation')::bigint
    WHERE job.status = 'doing' AND (CAST(:id AS bigint) IS NULL OR job.id = :id)
    ORDER BY job.lock
""")
    .bindparams(_ID)
    .columns(serving_at=Time())
)
QUEUED = text(f"""
    SELECT count(*) FROM procrastinate_jobs AS job
    WHERE job.status = 'todo' AND job.queue_name = '{REGULAR}' AND NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs AS other WHERE other.lock = job.lock AND other.status = 'doing')
""")
TO_STOP = text("""
    SELECT lock FROM procrastinate_jobs
    WHERE status = 'doing' AND abort_requested AND args->>'holder' = :holder
""")
REBASE = (
    text("LOCK TABLE procrastinate_jobs IN SHARE ROW EXCLUSIVE MODE"),
    text("""
        UPDATE procrastinate_jobs SET priority = least(0, priority + (clock * :steps)::integer),
            args = args || jsonb_build_object(
                'tag', greatest(0, (args->>'tag')::double precision - clock))
        FROM queue_clock WHERE status = 'todo'
    """).bindparams(steps=PRIORITY_STEPS),
    text("UPDATE queue_customers SET spent = greatest(0, spent - clock) FROM queue_clock"),
    text("UPDATE queue_clock SET clock = 0"),
)
