"""Runs: the executions towards deliveries."""

from sqlalchemy import Connection, select, update

from xmode_transfer.adapters.ledger import deliveries as deliveries_
from xmode_transfer.adapters.ledger.subject import Subject, unknown
from xmode_transfer.adapters.ledger.tables import RUN, deliveries, periods, runs
from xmode_transfer.domain.records import Lease, Run


class Runs(Subject):
    """Which runs there were."""

    def start(self, lease: Lease, run: Run) -> None:
        """Adds it. Idempotent for the same ID."""
        adding = self._database.insert(runs).values(RUN.values(run)).on_conflict_do_nothing()

        def action(connection: Connection) -> None:
            deliveries_.known_place(connection, run.delivery_id)
            connection.execute(adding)

        self._fenced(lease, action)

    def finish(self, lease: Lease, run: Run) -> None:
        """Overwrites everything but its ID."""
        changing = update(runs).where(runs.c.id == run.id).values(RUN.values(run))

        def action(connection: Connection) -> None:
            if connection.execute(changing).rowcount == 0:
                raise unknown("run", run.id)

        self._fenced(lease, action)

    def newest(
        self, customer: str | None = None, limit: int = 20, delivery_id: str | None = None
    ) -> list[Run]:
        """Newest first."""
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        if customer is not None:
            query = (
                query.join(deliveries, deliveries.c.id == runs.c.delivery_id)
                .join(periods, periods.c.id == deliveries.c.period_id)
                .where(periods.c.customer == customer)
            )
        if delivery_id is not None:
            query = query.where(runs.c.delivery_id == delivery_id)
        return [RUN.record(row) for row in self._rows(query)]
