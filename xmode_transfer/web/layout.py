"""What the pages show, and in which order: sorting, counting, grouping and headings. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from xmode_transfer.alerting.health_records import (
    GRAVITY,
    SOUND,
    CustomerHealth,
    Health,
    Issue,
    SubscriptionHealth,
    worst,
)
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import Alert, AlertState
from xmode_transfer.model.jobs import JobState, QueueEntry
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.web import states
from xmode_transfer.web.calendar import Cell, Mark, Sheet
from xmode_transfer.web.facts import Moment

CUSTOMERS_SHOWN = 100
ISSUES_SHOWN = 30
COMING_SHOWN = 6
RESOLVED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Grouped:
    """Issues of one customer with the same cause, message and hint."""

    first: Issue
    periods: Sequence[str]


def grouped(issues: Iterable[Issue]) -> list[Grouped]:
    found: dict[tuple[str, str, str], list[Issue]] = {}
    for issue in issues:
        found.setdefault((issue.cause, issue.message, issue.hint), []).append(issue)
    result = []
    for same in found.values():
        periods = []
        for issue in same:
            if issue.feed:
                period = issue.period if issue.period not in (None, "none") else ""
                periods.append(f"{issue.feed} {period}".rstrip())
        result.append(Grouped(min(same, key=attrgetter("since_at")), periods))
    return result


def overview(moment: Moment, chosen: Health | None, page: int) -> dict[str, Any]:
    assessment = moment.assessment
    customers = assessment.customers
    issues = sorted(
        (
            (item, issue)
            for item in customers
            for issue in grouped(item.warnings if item.health is Health.ATTENTION else item.issues)
        ),
        key=lambda pair: (tuple(Health).index(pair[0].health), pair[1].first.since_at, pair[0].customer),
    )
    wanted = [item for item in customers if chosen is None or item.health is chosen]
    page_count = max(1, -(-len(wanted) // CUSTOMERS_SHOWN))
    page = min(max(page, 1), page_count)
    counts = assessment.counts
    word = worst(item.health for item in customers if item.health not in (Health.PENDING, Health.RETIRED))
    return {
        "verdict": verdict(customers, assessment.warnings),
        "worst": Health.FAILING if assessment.warnings and word in SOUND else word,
        "customer_count": len(customers),
        "feed_count": len(moment.configuration.feeds),
        "notices": grouped(assessment.warnings),
        "counts": [(health, counts[health]) for health in Health if counts[health]],
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
    by_age = sorted(entries, key=attrgetter("since_at"))
    idle = (JobState.RESTING, JobState.SUSPENDED)
    coming = [entry for entry in entries if entry.state in idle and entry.next_at]
    return {
        "running": [entry for entry in by_age if entry.state is JobState.RUNNING],
        "queued": [entry for entry in by_age if entry.state is JobState.QUEUED],
        "coming": sorted(coming, key=attrgetter("next_at", "customer"))[:COMING_SHOWN],
    }


def verdict(customers: Sequence[CustomerHealth], warnings: Sequence[Issue]) -> str:
    """Summarize the health of all customers in one sentence."""
    hurt = [item for item in customers if item.health not in SOUND]
    waits = Counter(item.pressing.responsible if item.pressing else Responsible.VENDOR for item in hurt)
    vendor, customer, aws = waits[Responsible.VENDOR], waits[Responsible.CUSTOMER], waits[Responsible.AWS]
    parts = []
    if warnings:
        parts.append("the service needs attention")
    if vendor:
        parts.append(f"{states.count(vendor, 'customer')} {'needs' if vendor == 1 else 'need'} vendor action")
    if customer:
        parts.append(f"{states.count(customer, 'customer')} must act")
    if aws:
        parts.append(f"{states.count(aws, 'customer')} {'waits' if aws == 1 else 'wait'} for AWS")
    if parts:
        sentence = ", ".join(parts)
        return f"{sentence[:1].upper()}{sentence[1:]}"
    if not customers:
        return "No customers yet"
    if any(item.health is Health.DUE for item in customers):
        return "Healthy, deliveries pending"
    if all(item.health in (Health.PENDING, Health.RETIRED) for item in customers):
        return "No active customers"
    return "Everything delivered"


def of_feed(parts: Sequence[SubscriptionHealth]) -> dict[str, Any]:
    """Sort the feed's customers, the most severe first, and name what is quarantined once for all of them."""
    held = {
        issue.period: issue for part in parts for word, issue in part.issues if word is Health.QUARANTINED
    }
    return {
        "health": worst(part.health for part in parts),
        "issues": grouped(issue for _, issue in sorted(held.items()))[:ISSUES_SHOWN],
        "subscriptions": sorted(parts, key=lambda part: (GRAVITY.index(part.health), part.customer)),
    }


def alerts(known: Sequence[Alert]) -> dict[str, Any]:
    is_open = [alert for alert in known if alert.state is AlertState.OPEN]
    resolved = [alert for alert in known if alert.state is AlertState.RESOLVED]
    return {
        "open": sorted(is_open, key=lambda alert: (not alert.urgent, alert.opened_at, alert.fingerprint)),
        "resolved": sorted(resolved, key=attrgetter("resolved_at"), reverse=True)[:RESOLVED_SHOWN],
    }


def legend(sheets: Sequence[Sheet]) -> list[Mark]:
    there = {cell.mark for sheet in sheets for _, cells in sheet.rows for cell in cells}
    return [mark for mark in Mark if mark in there and mark is not Mark.NOTHING]


def label(cell: Cell) -> str:
    """For the cell's tooltip and for screen readers."""
    text = f"{cell.feed} {cell.period}: {cell.mark}"
    if cell.delivery is not None and cell.delivery.object_count:
        text += f", {states.count(cell.delivery.object_count, 'object')}"
    return f"{text}; {cell.note}" if cell.note else text


def heads(sheet: Sheet) -> list[tuple[str, int]]:
    """Return the headings above several periods, each with its number of columns."""
    form = {PeriodKind.DAY: "%B %Y", PeriodKind.WEEK: "%G"}.get(sheet.kind, "%Y")
    groups = groupby(sheet.periods, lambda period: period.start.strftime(form))
    return [(head, len(list(periods))) for head, periods in groups]


def heading(period: Period) -> str:
    if period.kind is PeriodKind.DAY:
        return str(period.start.day)
    return period.start.strftime("%V" if period.kind is PeriodKind.WEEK else "%b")


def by_day(sheet: Sheet, cells: Sequence[Cell]) -> Iterator[tuple[str, dict[int, Cell]]]:
    """Split a row of hours into one line per day: its heading, and the cells by hour."""
    pairs = zip(sheet.periods, cells, strict=True)
    for day, hours in groupby(pairs, lambda pair: pair[0].start.date()):
        yield f"{day:%a} {day.day} {day:%b}", {period.start.hour: cell for period, cell in hours}
