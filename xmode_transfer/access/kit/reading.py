"""READING.md of the kit: how the customer's tools read each of its feeds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from xmode_transfer.config import Customer, Feed, Subscription
from xmode_transfer.model.delta import TableFormat
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.native import NativeKind
from xmode_transfer.model.periods import PeriodKind, label_format, period_labelled

_ROLE = "XModeReader"
_EXAMPLES = {
    PeriodKind.HOUR: "2026-11-22T05",
    PeriodKind.DAY: "2026-11-22",
    PeriodKind.WEEK: "2026-W47",
    PeriodKind.MONTH: "2026-11",
    PeriodKind.NONE: "none",
}
_PATTERNS = {"Y": "yyyy", "m": "MM", "d": "dd", "H": "HH"}  # of Java, as Athena reads dates
_RANGES = {"Y": (4, "2020,2099"), "m": (2, "1,12"), "d": (2, "1,31"), "H": (2, "0,23"), "j": (3, "1,366")}
_UNITS = {PeriodKind.HOUR: "HOURS", PeriodKind.DAY: "DAYS", PeriodKind.MONTH: "MONTHS"}


@dataclass(frozen=True, slots=True)
class Projection:
    """Athena's partition projection: columns, each with its properties, and the directories as a template
    (Athena User Guide, "Supported types for partition projection")."""

    columns: Mapping[str, Mapping[str, str]]
    template: str


@dataclass(frozen=True, slots=True)
class FeedReading:
    """A feed as the page shows it. ``settings`` leaves nothing out; ``layout`` is None for a feed that is
    not configured."""

    name: str
    root: str
    format: str
    period: str
    settings: Subscription
    layout: Layout | None

    @property
    def table(self) -> str:
        """A name that needs no quotes in any SQL."""
        return f"xmode_{self.name.replace('-', '_')}"

    @property
    def is_table(self) -> bool:
        return self.settings.table is TableFormat.DELTA

    @property
    def has_redshift(self) -> bool:
        return NativeKind.REDSHIFT in (self.settings.manifests or ())

    @property
    def has_symlink(self) -> bool:
        return NativeKind.SYMLINK in (self.settings.manifests or ())

    @property
    def directories(self) -> Projection | None:
        """The projection of the data's own directories, if partition columns name them all."""
        if self.layout is None or not self.layout.columns:
            return None
        found = _projection(self.layout.head, self.layout.kind)
        return found if found is not None and tuple(found.columns) == self.layout.columns else None

    @property
    def symlinks(self) -> Projection | None:
        """The projection of the symlink files' directories."""
        if self.layout is None or (shown := period_labelled(self.period)) is None:
            return None
        if not self.layout.directory_of(shown).startswith("period="):
            return _projection(self.layout.head, self.layout.kind)
        return _projection(f"period={label_format(self.layout.kind)}", self.layout.kind)


def readings(customer: Customer, feeds: Mapping[str, Feed]) -> list[FeedReading]:
    """Return what the page says of each feed of the customer. ``feeds`` are those that are configured."""
    return [_reading(customer, name, feeds.get(name)) for name in customer.feeds]


def reader_role(customer: Customer) -> str:
    """Return the ARN of a role of the customer's own, with which its tools read."""
    return f"arn:{customer.partition}:iam::{customer.account_id}:role/{_ROLE}"


def _reading(customer: Customer, name: str, feed: Feed | None) -> FeedReading:
    root = f"{customer.destination.prefix}{name}/"
    if feed is None:
        own, day = customer.feeds[name], _EXAMPLES[PeriodKind.DAY]
        return FeedReading(name, root, "parquet", day, own, None)
    settings, layout = customer.subscription(feed), customer.layout(feed)
    form = "parquet" if settings.table is TableFormat.DELTA else _format(feed)
    return FeedReading(name, root, form, _EXAMPLES[feed.period], settings, layout)


def _format(feed: Feed) -> str:
    """Guess from the patterns of the feed's files."""
    patterns = " ".join(feed.include).lower()
    return next((form for form in ("parquet", "csv", "json") if form in patterns), "parquet")


def _projection(head: str, kind: PeriodKind) -> Projection | None:
    """Return None for directories that Athena cannot compute."""
    columns: dict[str, dict[str, str]] = {}
    if "=" not in head:  # one column for all of the directories
        return Projection({"period": _date(head, kind)}, "${period}/") if _is_date(head, kind) else None
    template = []
    for segment in head.split("/"):
        name, equals, form = segment.partition("=")
        if not equals:
            if "%" in segment:
                return None
            template.append(segment)
            continue
        directives = re.findall("%(.)", form)
        if not directives:
            columns[name] = {"type": "enum", "values": form}
        elif len(directives) == 1 and form == f"%{directives[0]}" and directives[0] in _RANGES:
            digits, span = _RANGES[directives[0]]
            columns[name] = {"type": "integer", "range": span, "digits": str(digits)}
        elif _is_date(form, kind):
            columns[name] = _date(form, kind)
        else:
            return None
        template.append(f"{name}=${{{name}}}")
    return Projection(columns, "".join(f"{segment}/" for segment in template))


def _is_date(form: str, kind: PeriodKind) -> bool:
    return kind in _UNITS and {"Y"} < set(re.findall("%(.)", form)) <= set(_PATTERNS)


def _date(form: str, kind: PeriodKind) -> dict[str, str]:
    pattern = re.sub(
        r"%(.)|([A-Za-z]+)", lambda match: _PATTERNS[match[1]] if match[1] else f"'{match[2]}'", form
    )
    first = form.replace("%Y", "2020").replace("%m", "01").replace("%d", "01").replace("%H", "00")
    found = {"type": "date", "format": pattern, "range": f"{first},NOW"}
    return {**found, "interval": "1", "interval.unit": _UNITS[kind]}
