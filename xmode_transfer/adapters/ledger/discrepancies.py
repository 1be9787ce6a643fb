"""What verifications found that is not as it was delivered, by period."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select

from xmode_transfer.adapters.ledger.subject import Subject
from xmode_transfer.adapters.ledger.tables import DISCREPANCY, discrepancies
from xmode_transfer.domain.verification import Discrepancy, Scope


class Discrepancies(Subject):
    """What the last verification of each period found; the survey has it."""

    def record(self, customer: str, scope: Scope, found: Iterable[Discrepancy]) -> None:
        """What a verification of the scope found, in place of what was known of it. What was found before
        keeps since when."""
        items = list(found)

        def action(connection: Connection) -> None:
            rows = connection.execute(select(discrepancies).filter_by(customer=customer)).all()
            since = {
                (row.feed, row.period, row.flaw): row.since_at
                for row in rows
                if scope.covers(row.feed, row.period)
            }
            for feed, period in dict.fromkeys((feed, period) for feed, period, _ in since):
                connection.execute(
                    delete(discrepancies).filter_by(customer=customer, feed=feed, period=period)
                )
            values = [
                {
                    "customer": customer,
                    **DISCREPANCY.values(item),
                    "since_at": since.get((item.feed, item.period, item.flaw), item.since_at),
                }
                for item in items
            ]
            if values:
                connection.execute(insert(discrepancies), values)

        self._write(action)


def known(connection: Connection) -> dict[str, tuple[Discrepancy, ...]]:
    """By customer, in the order of feeds and periods."""
    columns = discrepancies.c
    query = select(discrepancies).order_by(columns.customer, columns.feed, columns.period, columns.flaw)
    found: dict[str, list[Discrepancy]] = {}
    for row in connection.execute(query):
        found.setdefault(row.customer, []).append(DISCREPANCY.record(row))
    return {customer: tuple(items) for customer, items in found.items()}
