"""Daemons, the visits that they have paid, and what they passed over."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.tables import DAEMON, daemons, visits
from xmode_transfer.adapters.ledger.tables import passed_over as passed
from xmode_transfer.domain.daemons import DaemonRecord

_REMEMBERED = timedelta(days=30)


def note(connection: Connection, database: Database, daemon: DaemonRecord) -> None:
    values = DAEMON.values(daemon)
    adding = database.insert(daemons).values(values)
    connection.execute(adding.on_conflict_do_update(index_elements=["holder"], set_=values))
    connection.execute(
        delete(daemons).where(
            daemons.c.ticked_at < daemon.ticked_at - _REMEMBERED, daemons.c.holder != daemon.holder
        )
    )


def newest(connection: Connection, limit: int) -> list[DaemonRecord]:
    query = select(daemons).order_by(daemons.c.ticked_at.desc(), daemons.c.started_at.desc()).limit(limit)
    return [DAEMON.record(row) for row in connection.execute(query)]


def served(connection: Connection) -> dict[tuple[str, str], datetime]:
    return {(row.customer, row.work): row.served_at for row in connection.execute(select(visits))}


def serve(connection: Connection, database: Database, customer: str, work: str, served_at: datetime) -> None:
    adding = database.insert(visits).values(customer=customer, work=work, served_at=served_at)
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
            customer=customer, feed=feed, period=period, marker=marker, passed_at=passed_at
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
