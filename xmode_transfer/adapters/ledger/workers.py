"""Workers, by their signs of life."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.rows import maybe_text_of, maybe_time_of, text_of, time_of
from xmode_transfer.adapters.ledger.tables import workers
from xmode_transfer.domain.fleet import SILENT_AFTER, WorkerRecord

_REMEMBERED = timedelta(hours=1)


def note(connection: Connection, database: Database, worker: WorkerRecord, now: datetime) -> None:
    """``now`` is when it was seen, by the one clock by which all are judged."""
    values = {
        "started_at": text_of(worker.started_at),
        "seen_at": text_of(now),
        "places": worker.places,
        "busy": worker.busy,
        "waiting": worker.waiting,
        "stopping": worker.stopping,
        "stopped_at": maybe_text_of(worker.stopped_at),
        "version": worker.version,
        "trouble": worker.trouble,
    }
    adding = database.insert(workers).values(holder=worker.holder, **values)
    connection.execute(adding.on_conflict_do_update(index_elements=["holder"], set_=values))


def forget(connection: Connection, now: datetime) -> None:
    """Those that nobody has to hear of any more."""
    connection.execute(delete(workers).where(workers.c.seen_at < text_of(now - _REMEMBERED)))


def count_alive(connection: Connection, now: datetime) -> int:
    query = select(func.count()).where(
        workers.c.stopped_at.is_(None), workers.c.seen_at >= text_of(now - SILENT_AFTER)
    )
    return connection.execute(query).scalar_one()


def newest(connection: Connection, now: datetime) -> list[WorkerRecord]:
    """Those that were seen in the last hour."""
    query = (
        select(workers)
        .where(workers.c.seen_at >= text_of(now - _REMEMBERED))
        .order_by(workers.c.seen_at.desc(), workers.c.holder)
    )
    return [_worker_of(row) for row in connection.execute(query)]


def _worker_of(row: Any) -> WorkerRecord:
    return WorkerRecord(
        holder=row.holder,
        started_at=time_of(row.started_at),
        seen_at=time_of(row.seen_at),
        places=row.places,
        busy=row.busy,
        waiting=row.waiting,
        stopping=bool(row.stopping),
        stopped_at=maybe_time_of(row.stopped_at),
        version=row.version,
        trouble=row.trouble,
    )
