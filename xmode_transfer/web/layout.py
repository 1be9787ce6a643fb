"""Arrange data on a page: sorting, counting and grouping. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from xmode_transfer.alerting.health_records import SOUND, CustomerHealth, Health, Issue, worst
from xmode_transfer.model.alerts import Alert, AlertState
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.jobs import JobState, QueueEntry
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Delivery
from xmode_transfer.web import looks
from xmode_transfer.web.calendar import Cell, Mark, Sheet
from xmode_transfer.web.facts import Moment

CUSTOMERS_SHOWN = 100
ISSUES_SHOWN = 30
COMING_SHOWN = 6
RESOLVED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Grouped:
    """Equal issues of several feeds of one customer: the same cause, message and hint."""

    first: Issue
    periods: Sequence[str]


def grouped(issues: Iterable[Issue]) -> list[Grouped]:
    """Group equal issues, in the order of their first occurrence."""
    found: dict[tuple[str, str, str], list[Issue]] = {}
    for issue in issues:
        found.setdefault((issue.cause, issue.message, issue.hint), []).append(issue)
    return [
        Grouped(min(same, key=attrgetter("since_at")), [_feed_and_period(item) for item in same if item.feed])
        for same in found.values()
    ]


def _feed_and_period(issue: Issue) -> str:
    period = issue.period if issue.period not in (None, "none") else ""
    return f"{issue.feed} {period}".rstrip()


@dataclass(frozen=True, slots=True)
class ShownCell:
    """A calendar cell with its label. ``day`` and ``hour`` are those of the period's start."""

    mark: Mark
    label: str
    delivery: Delivery | None
    day: str
    hour: int


@dataclass(frozen=True, slots=True)
class ShownSheet:
    """``heads`` are the names above ``names``, each with how many columns it spans."""

    kind: PeriodKind
    heads: Sequence[tuple[str, int]]
    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ShownCell]]]

    def by_day(self, cells: Sequence[ShownCell]) -> Iterator[tuple[str, dict[int, ShownCell]]]:
        """Split a row of hours into one line per day, oldest first."""
        for day, hours in groupby(cells, attrgetter("day")):
            yield day, {cell.hour: cell for cell in hours}


def overview(moment: Moment, chosen: Health | None, page: int) -> dict[str, Any]:
    """Return the values of the overview: issues first, then all customers, or those of one state."""
    assessment = moment.assessment
    everybody = assessment.customers
    issues = sorted(
        (
            (item, issue)
            for item in everybody
            for issue in grouped(item.warnings if item.health is Health.ATTENTION else item.issues)
        ),
        key=lambda pair: (tuple(Health).index(pair[0].health), pair[1].first.since_at, pair[0].customer),
    )
    wanted = [item for item in everybody if chosen is None or item.health is chosen]
    page_count = max(1, -(-len(wanted) // CUSTOMERS_SHOWN))
    page = min(max(page, 1), page_count)
    counts = assessment.counts
    return {
        "verdict": verdict(everybody, assessment.warnings),
        "worst": _worst(everybody, assessment.warnings),
        "customer_count": len(everybody),
        "feed_count": len(moment.configuration.feeds),
        "notices": grouped(assessment.warnings),
        "counts": [(word, counts[word]) for word in Health if counts[word]],
        "chosen": chosen or "",
        "issues": issues[:ISSUES_SHOWN],
        "issue_count": len(issues),
        "by_cause": Counter(issue.first.cause for _, issue in issues).most_common(8),
        "customers": wanted[(page - 1) * CUSTOMERS_SHOWN : page * CUSTOMERS_SHOWN],
        "shown_count": len(wanted),
        "page": page,
        "page_count": page_count,
        "jobs": moment.jobs,
        "status": moment.status,
        **_now(list(moment.jobs.values())),
    }


def _now(entries: Sequence[QueueEntry]) -> dict[str, Any]:
    def of(*states: JobState) -> list[QueueEntry]:
        return [entry for entry in entries if entry.state in states]

    running = sorted(of(JobState.RUNNING), key=lambda entry: entry.since_at)
    queued = sorted(of(JobState.QUEUED), key=lambda entry: entry.since_at)
    coming = [(entry.next_at, entry) for entry in of(JobState.RESTING, JobState.SUSPENDED) if entry.next_at]
    coming.sort(key=lambda pair: (pair[0], pair[1].customer))
    return {"running": running, "queued": queued, "coming": [entry for _, entry in coming[:COMING_SHOWN]]}


def _worst(everybody: Sequence[CustomerHealth], warnings: Sequence[Issue]) -> Health:
    word = worst(item.health for item in everybody if item.health not in (Health.PENDING, Health.RETIRED))
    return Health.FAILING if warnings and word in SOUND else word


def verdict(everybody: Sequence[CustomerHealth], warnings: Sequence[Issue]) -> str:
    """Summarize the health of all customers in one sentence."""
    hurt = [item for item in everybody if item.health not in SOUND]
    waits = Counter(item.pressing.responsible if item.pressing else Responsible.VENDOR for item in hurt)
    ours, waiting, aws = waits[Responsible.VENDOR], waits[Responsible.CUSTOMER], waits[Responsible.AWS]
    parts = []
    if warnings:
        parts.append("the service needs attention")
    if ours:
        parts.append(f"{looks.count(ours, 'customer')} {'needs' if ours == 1 else 'need'} vendor action")
    if waiting:
        parts.append(f"{looks.count(waiting, 'customer')} must act")
    if aws:
        parts.append(f"{looks.count(aws, 'customer')} {'waits' if aws == 1 else 'wait'} for AWS")
    if parts:
        sentence = ", ".join(parts)
        return f"{sentence[:1].upper()}{sentence[1:]}"
    if not everybody:
        return "No customers yet"
    if any(item.health is Health.DUE for item in everybody):
        return "Healthy, deliveries pending"
    if all(item.health in (Health.PENDING, Health.RETIRED) for item in everybody):
        return "No active customers"
    return "Everything delivered"


def alerts(everything: Sequence[Alert]) -> dict[str, Any]:
    """Return open alerts, urgent first, then the latest resolved ones."""

    def of(state: AlertState) -> list[Alert]:
        return [alert for alert in everything if alert.state is state]

    return {
        "open": sorted(
            of(AlertState.OPEN),
            key=lambda alert: (not alert.urgent, alert.opened_at, alert.fingerprint),
        ),
        "resolved": sorted(of(AlertState.RESOLVED), key=attrgetter("resolved_at"), reverse=True)[
            :RESOLVED_SHOWN
        ],
    }


def calendar(sheets: Sequence[Sheet]) -> Iterator[ShownSheet]:
    """Add headings and labels to the sheets."""
    for sheet in sheets:
        heads = [(head, len(list(group))) for head, group in groupby(sheet.periods, _head)]
        rows = [
            (feed, [_shown(cell, period) for cell, period in zip(cells, sheet.periods, strict=True)])
            for feed, cells in sheet.rows
        ]
        yield ShownSheet(sheet.kind, heads, [_name(period) for period in sheet.periods], rows)


def legend(sheets: Sequence[Sheet]) -> list[Mark]:
    """Return the marks in use, in the order of the legend."""
    there = {cell.mark for sheet in sheets for _, cells in sheet.rows for cell in cells}
    return [mark for mark in Mark if mark in there and mark is not Mark.NOTHING]


def _shown(cell: Cell, period: Period) -> ShownCell:
    label = f"{cell.feed} {cell.period}: {cell.mark}"
    if cell.delivery is not None and cell.delivery.object_count:
        label += f", {looks.count(cell.delivery.object_count, 'object')}"
    if cell.note:
        label += f"; {cell.note}"
    day = f"{period.start:%a} {period.start.day} {period.start:%b}"
    return ShownCell(cell.mark, label, cell.delivery, day, period.start.hour)


def _head(period: Period) -> str:
    """Return the heading above several periods."""
    formats = {PeriodKind.HOUR: "%Y-%m-%d", PeriodKind.DAY: "%B %Y", PeriodKind.WEEK: "%G"}
    return period.start.strftime(formats.get(period.kind, "%Y"))


def _name(period: Period) -> str:
    """Return the heading above one period."""
    if period.kind is PeriodKind.DAY:
        return str(period.start.day)
    return period.start.strftime({PeriodKind.HOUR: "%H", PeriodKind.WEEK: "%V"}.get(period.kind, "%b"))
