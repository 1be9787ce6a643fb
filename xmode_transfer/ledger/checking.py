"""What checks before release found, and what people decided."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, select

from xmode_transfer.ledger.deliveries import IS_NEWEST
from xmode_transfer.ledger.tables import JUDGEMENT, RELEASE, deliveries, judgements, periods, releases
from xmode_transfer.ledger.writer import LedgerPart, only
from xmode_transfer.model.checks import Judgement, Release, Verdict
from xmode_transfer.model.records import Status


class Judgements(LedgerPart):
    def last(self, feed: str, period: str, name: str = "") -> Judgement | None:
        """Return the last verdict on a period, or on a file of a drop folder."""
        return self._first(JUDGEMENT, select(judgements).filter_by(feed=feed, period=period, name=name))

    def find(
        self, feed: str | None = None, period: str | None = None, verdicts: Iterable[Verdict] | None = None
    ) -> list[Judgement]:
        """Return the last verdicts, by feed, period and file."""
        in_order = select(judgements).order_by(judgements.c.feed, judgements.c.period, judgements.c.name)
        wanted = (
            (judgements.c.feed, feed),
            (judgements.c.period, period),
            (judgements.c.verdict, verdicts),
        )
        return self._records(JUDGEMENT, only(in_order, *wanted))

    def since(self, feed: str, period: str) -> list[Judgement]:
        """Return the last verdicts on the periods of a feed, from that label on; not those on files."""
        query = select(judgements).where(judgements.c.feed == feed, judgements.c.period >= period)
        return self._records(JUDGEMENT, query.where(judgements.c.name == ""))

    def record(self, judgement: Judgement) -> None:
        """Replace the last verdict. Idempotent."""
        recording = self._database.upsert(judgements).values(JUDGEMENT.values(judgement))
        self._write(lambda c: c.execute(recording))

    def forget(self, feed: str, period: str, names: Iterable[str]) -> None:
        """Delete the verdicts on files that are gone, or sound by now."""
        gone = list(names)
        which = (judgements.c.feed == feed, judgements.c.period == period, judgements.c.name.in_(gone))
        if gone:
            self._write(lambda c: c.execute(delete(judgements).where(*which)))

    def decide(self, decisions: Sequence[Release]) -> None:
        """Record decisions; a later one on the same fingerprint and customer replaces an earlier one."""
        rows = [RELEASE.values(decision) for decision in decisions]
        if rows:
            self._write(lambda c: c.execute(self._database.upsert(releases), rows))

    def decisions(self, feed: str, period: str, fingerprint: str | None = None) -> list[Release]:
        """Return the decisions, oldest first."""
        query = select(releases).filter_by(feed=feed, period=period).order_by(releases.c.decided_at)
        return self._records(RELEASE, only(query, (releases.c.fingerprint, fingerprint)))

    def history(self, feed: str, before: str, limit: int) -> list[tuple[str, int, int]]:
        """Return the period, the files and the bytes of the last periods before ``before`` that were
        delivered to any customer, newest first."""
        query = (
            select(periods.c.period, func.max(deliveries.c.object_count), func.max(deliveries.c.total_bytes))
            .join_from(deliveries, periods)
            .where(
                periods.c.feed == feed,
                periods.c.period < before,
                deliveries.c.status == Status.DELIVERED,
                IS_NEWEST,
            )
            .group_by(periods.c.period)
            .order_by(periods.c.period.desc())
            .limit(limit)
        )
        return [(period, int(files), int(size)) for period, files, size in self._rows(query)]
