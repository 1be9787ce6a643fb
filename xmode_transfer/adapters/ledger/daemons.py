"""Daemons, the visits that they have paid, and what they passed over."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.rows import (
    failure_of,
    failure_values,
    maybe_text_of,
    maybe_time_of,
    text_of,
    time_of,
)
from xmode_transfer.adapters.ledger.tables import daemons, visits
from xmode_transfer.adapters.ledger.tables import passed_over as passed
from xmode_transfer.domain.daemons import DaemonRecord

_REMEMBERED = timedelta(days=30)


def note(connection: Connection, database: Database, daemon: DaemonRecord) -> None:
    values = {
        "started_at": text_of(daemon.started_at),
        "ticked_at": text_of(daemon.ticked_at),
        "tick_seconds": daemon.tick_seconds,
        "workers": daemon.workers,
        "busy": daemon.busy,
        "configuration_loaded_at": maybe_text_of(daemon.configuration_loaded_at),
        "configuration_problems": "\n".join(daemon.configuration_problems),
        "stopping": daemon.stopping,
        "stopped_at": maybe_text_of(daemon.stopped_at),
        **failure_values(daemon.trouble),
    }
    adding = database.insert(daemons).values(holder=daemon.holder, **values)
    connection.execute(adding.on_conflict_do_update(index_elements=["holder"], set_=values))
    connection.execute(
        delete(daemons).where(
            daemons.c.ticked_at < text_of(daemon.ticked_at - _REMEMBERED), daemons.c.holder != daemon.holder
        )
    )


def newest(connection: Connection, limit: int) -> list[DaemonRecord]:
    query = select(daemons).order_by(daemons.c.ticked_at.desc(), daemons.c.started_at.desc()).limit(limit)
    return [_daemon_of(row) for row in connection.execute(query)]


def served(connection: Connection) -> dict[tuple[str, str], datetime]:
    return {(row.customer, row.work): time_of(row.served_at) for row in connection.execute(select(visits))}


def serve(connection: Connection, database: Database, customer: str, work: str, served_at: datetime) -> None:
    adding = database.insert(visits).values(customer=customer, work=work, served_at=text_of(served_at))
    connection.execute(
        adding.on_conflict_do_update(
            index_elements=["customer", "work"], set_={"served_at": adding.excluded.served_at}
        )
    )


def pass_over(
    connection: Connection,
    database: Database,
    customer: str,
    feed: str,
    markers: Mapping[str, str],
    passed_at: datetime,
) -> None:
    for period, marker in markers.items():
        adding = database.insert(passed).values(
            customer=customer, feed=feed, period=period, marker=marker, passed_at=text_of(passed_at)
        )
        connection.execute(
            adding.on_conflict_do_update(
                index_elements=["customer", "feed", "period"],
                set_={"marker": adding.excluded.marker, "passed_at": adding.excluded.passed_at},
            )
        )


def passed_over(connection: Connection, customer: str, feed: str) -> dict[str, str]:
    query = select(passed.c.period, passed.c.marker).filter_by(customer=customer, feed=feed)
    return {row.period: row.marker for row in connection.execute(query)}


def _daemon_of(row: Any) -> DaemonRecord:
    return DaemonRecord(
        holder=row.holder,
        started_at=time_of(row.started_at),
        ticked_at=time_of(row.ticked_at),
        tick_seconds=row.tick_seconds,
        workers=row.workers,
        busy=row.busy,
        configuration_loaded_at=maybe_time_of(row.configuration_loaded_at),
        configuration_problems=tuple(filter(None, row.configuration_problems.split("\n"))),
        trouble=failure_of(row),
        stopping=bool(row.stopping),
        stopped_at=maybe_time_of(row.stopped_at),
    )
