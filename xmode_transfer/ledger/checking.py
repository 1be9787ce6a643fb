"""What checks before release found, and what people decided."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, exists, func, or_, select

from xmode_transfer.ledger.tables import JUDGEMENT, RELEASE, deliveries, judgements, periods, releases
from xmode_transfer.ledger.writer import LedgerPart, only
from xmode_transfer.model.checks import Decision, Judgement, Release, Verdict
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

    def references(self, feed: str, until: str, limit: int = 30) -> list[Judgement]:
        """Return the last verdicts up to ``until``, newest first, without what is quarantined."""
        let_out = select(releases).where(
            releases.c.feed == judgements.c.feed,
            releases.c.period == judgements.c.period,
            releases.c.fingerprint == judgements.c.fingerprint,
            releases.c.decision == Decision.RELEASED,
        )
        sound = judgements.c.verdict != Verdict.QUARANTINED
        query = select(judgements).where(
            judgements.c.feed == feed, judgements.c.period <= until, or_(sound, let_out.exists())
        )
        return self._records(JUDGEMENT, query.order_by(judgements.c.period.desc()).limit(limit))

    def has_delivered_files(self, feed: str) -> bool:
        """Return True if any period of the feed was delivered with a file to any customer."""
        query = select(deliveries.c.id).join_from(deliveries, periods)
        found = query.where(
            periods.c.feed == feed, deliveries.c.status == Status.DELIVERED, deliveries.c.object_count > 0
        )
        return bool(self._rows(found.limit(1)))

    def history(self, feed: str, before: str, limit: int) -> list[tuple[str, int, int]]:
        """Return the period, the files and the bytes of the last periods before ``before`` that were
        delivered to any customer, newest first; of a period, those of its last delivered revision."""
        later = deliveries.alias("later_delivered")
        is_last = ~exists().where(
            later.c.period_id == deliveries.c.period_id,
            later.c.revision > deliveries.c.revision,
            later.c.status == Status.DELIVERED,
        )
        query = (
            select(periods.c.period, func.max(deliveries.c.object_count), func.max(deliveries.c.total_bytes))
            .join_from(deliveries, periods)
            .where(
                periods.c.feed == feed,
                periods.c.period < before,
                deliveries.c.status == Status.DELIVERED,
                is_last,
            )
            .group_by(periods.c.period)
            .order_by(periods.c.period.desc())
            .limit(limit)
        )
        return [(period, int(files), int(size)) for period, files, size in self._rows(query)]
