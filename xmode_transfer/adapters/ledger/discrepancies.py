"""What verifications found that is not as it was delivered, by period."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from xmode_transfer.adapters.ledger.rows import text_of, time_of
from xmode_transfer.adapters.ledger.tables import discrepancies
from xmode_transfer.domain.verification import Discrepancy, Flaw, Scope


def replace(connection: Connection, customer: str, scope: Scope, found: Sequence[Discrepancy]) -> None:
    """Takes the place of what was known of the scope. What is found again keeps since when."""
    rows = connection.execute(select(discrepancies).filter_by(customer=customer)).all()
    since = {
        (row.feed, row.period, row.flaw): row.since_at for row in rows if scope.covers(row.feed, row.period)
    }
    for feed, period in dict.fromkeys((feed, period) for feed, period, _ in since):
        connection.execute(delete(discrepancies).filter_by(customer=customer, feed=feed, period=period))
    values = [
        {
            "customer": customer,
            "feed": item.feed,
            "period": item.period,
            "flaw": str(item.flaw),
            "keys": item.keys,
            "first_key": item.first_key,
            "since_at": since.get((item.feed, item.period, str(item.flaw)), text_of(item.since_at)),
        }
        for item in found
    ]
    if values:
        connection.execute(insert(discrepancies), values)


def known(connection: Connection) -> dict[str, tuple[Discrepancy, ...]]:
    """By customer, in the order of feeds and periods."""
    columns = discrepancies.c
    query = select(discrepancies).order_by(columns.customer, columns.feed, columns.period, columns.flaw)
    found: dict[str, list[Discrepancy]] = {}
    for row in connection.execute(query):
        item = Discrepancy(
            row.feed, row.period, Flaw(row.flaw), row._mapping["keys"], row.first_key, time_of(row.since_at)
        )
        found.setdefault(row.customer, []).append(item)
    return {customer: tuple(items) for customer, items in found.items()}
