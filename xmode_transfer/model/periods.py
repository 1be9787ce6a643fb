"""Periods: the slices of a feed that one delivery covers, and how a partition path names them.

A period's label sorts as the period does: ``2026-11-22T05``, ``2026-11-22``, ``2026-W47``, ``2026-11``,
``none``.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache


class PeriodKind(StrEnum):
    """How long a period is; ``none`` is a drop folder, in which each new complete file is delivered once."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    NONE = "none"


_LABEL_FORMATS = {
    PeriodKind.HOUR: "%Y-%m-%dT%H",
    PeriodKind.DAY: "%Y-%m-%d",
    PeriodKind.WEEK: "%G-W%V",
    PeriodKind.MONTH: "%Y-%m",
}
# What a partition must name so that each period has a directory of its own.
_NEEDED = {
    PeriodKind.HOUR: ({"Y", "m", "d", "H"}, {"Y", "j", "H"}),
    PeriodKind.DAY: ({"Y", "m", "d"}, {"Y", "j"}),
    PeriodKind.WEEK: ({"G", "V"},),
    PeriodKind.MONTH: ({"Y", "m"},),
}
_MOST_SIGNIFICANT_FIRST = ("YmdH", "YjH", "GV")
_DIGITS = {"Y": 4, "G": 4, "m": 2, "d": 2, "H": 2, "V": 2, "j": 3}


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """One period; ``start`` is its first instant in the feed's own calendar (naive: a date on a path has no
    zone)."""

    start: datetime
    kind: PeriodKind

    @property
    def label(self) -> str:
        if self.kind is PeriodKind.NONE:
            return "none"
        return self.start.strftime(_LABEL_FORMATS[self.kind])

    def __str__(self) -> str:
        return self.label

    @property
    def end(self) -> datetime:
        """The first instant after it, naive like ``start``."""
        if self.kind is PeriodKind.NONE:
            return self.start + timedelta(days=1)
        return self.step(1).start

    def step(self, count: int) -> "Period":
        """The period so many after this one; before it, when negative. Raises ValueError for a drop folder,
        which has one period only."""
        match self.kind:
            case PeriodKind.HOUR:
                start = self.start + timedelta(hours=count)
            case PeriodKind.DAY:
                start = self.start + timedelta(days=count)
            case PeriodKind.WEEK:
                start = self.start + timedelta(weeks=count)
            case PeriodKind.MONTH:
                months = self.start.year * 12 + self.start.month - 1 + count
                start = self.start.replace(year=months // 12, month=months % 12 + 1)
            case _:
                raise ValueError("a drop folder has one period only")
        return Period(start, self.kind)

    @staticmethod
    def around(moment: datetime, kind: PeriodKind) -> "Period":
        """The period in which an aware moment lies, by the calendar in UTC."""
        if kind is PeriodKind.NONE:
            return Period.none()
        start = moment.astimezone(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
        if kind is not PeriodKind.HOUR:
            start = start.replace(hour=0)
        if kind is PeriodKind.WEEK:
            start -= timedelta(days=start.weekday())
        elif kind is PeriodKind.MONTH:
            start = start.replace(day=1)
        return Period(start, kind)

    @staticmethod
    def none() -> "Period":
        """The one period of a drop folder."""
        return Period(datetime.min, PeriodKind.NONE)  # noqa: DTZ901 - a period has no zone

    @staticmethod
    def parse(label: str, kind: PeriodKind) -> "Period":
        """The period of that label. Raises ValueError with an example of the right form."""
        if kind is PeriodKind.NONE:
            if label != "none":
                raise ValueError(f"{label!r} is no period of a drop folder; leave --period out")
            return Period.none()
        try:
            if kind is PeriodKind.WEEK:
                start = datetime.strptime(f"{label} 1", "%G-W%V %u")  # noqa: DTZ007
            else:
                start = datetime.strptime(label, _LABEL_FORMATS[kind])  # noqa: DTZ007
        except ValueError:
            example = Period.around(datetime(2026, 11, 22, 5, tzinfo=UTC), kind)
            raise ValueError(f"{label!r} is no period of a feed by {kind}; write it like {example}") from None
        period = Period(start, kind)
        if period.label != label:
            raise ValueError(f"{label!r} is not written as periods are; did you mean {period.label}?")
        return period


def period_labelled(label: str) -> Period | None:
    """The period of a label of whichever kind, or None: their forms differ, so no feed need be known."""
    for kind in PeriodKind:
        try:
            return Period.parse(label, kind)
        except ValueError:
            continue
    return None


def check_range(since: str | None, until: str | None) -> None:
    """Refuses a range in which no period can lie. Raises ValueError."""
    first, last = (period_labelled(label) if label else None for label in (since, until))
    if first is not None and last is not None and first.kind is last.kind and last < first:
        raise ValueError(
            f"--since {since} comes after --until {until}, and no period lies between them; swap the two"
        )


class PartitionError(ValueError):
    """A partition template that cannot name periods; the message says why and how to fix it."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition template, one strftime-like path segment at a time: ``%Y/%m/%d``, ``dt=%Y-%m-%d``,
    ``%G/W%V``."""

    template: str
    kind: PeriodKind

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.template.split("/"))

    @staticmethod
    def parse(template: str, kind: PeriodKind) -> "Partition":
        """Checks the template. Raises PartitionError."""
        if kind is PeriodKind.NONE:
            raise PartitionError("a drop folder (period: none) has no partition; remove it")
        if not template or template.startswith("/") or template.endswith("/"):
            raise PartitionError("write it as a relative path without a slash at either end, like %Y/%m/%d")
        if any(segment in ("", ".", "..") for segment in template.split("/")):
            raise PartitionError("empty, '.' and '..' segments are not allowed")
        used = re.findall(r"%(.?)", template)
        unknown = [directive for directive in used if directive not in _DIGITS]
        if unknown:
            raise PartitionError(
                f"%{unknown[0]} is not known; use {', '.join('%' + name for name in sorted(_DIGITS))}"
            )
        if not any(set(used) == needed for needed in _NEEDED[kind]):
            forms = " or ".join(
                " ".join("%" + n for n in sorted(needed, key="YGmVdjH".index)) for needed in _NEEDED[kind]
            )
            raise PartitionError(f"a feed by {kind} needs exactly {forms} in its partition")
        if len(set(used)) != len(used):
            raise PartitionError("each % directive may stand once only")
        return Partition(template, kind)

    def path(self, period: Period) -> str:
        """The period's directory, relative to the feed's root."""
        return period.start.strftime(self.template)

    def period(self, path: str) -> Period | None:
        """The period of a directory, or None when the path is not one of this partition's."""
        match = _pattern(self.template).fullmatch(path)
        if match is None:
            return None
        values = {name: int(value) for name, value in match.groupdict().items()}
        try:
            if "V" in values:
                start = datetime.fromisocalendar(values["G"], values["V"], 1)
            elif "j" in values:
                start = datetime(values["Y"], 1, 1) + timedelta(days=values["j"] - 1)  # noqa: DTZ001
            else:
                start = datetime(values["Y"], values["m"], values.get("d", 1))  # noqa: DTZ001
            start = start.replace(hour=values.get("H", 0))
        except ValueError:
            return None
        if start.year != values.get("Y", start.year):
            return None
        return Period(start, self.kind)

    def is_before(self, path: str, start: datetime) -> bool:
        """Whether every period at a path of as many segments as you like begins before ``start``. False where
        that cannot be told from the names."""
        period = self.period(path)
        if period is not None:
            return period.start < start
        segments = path.split("/")
        earliest = self.path(Period(start, self.kind)).split("/")[: len(segments)]
        return self._sorts_by_time and segments < earliest

    @property
    def _sorts_by_time(self) -> bool:
        directives = "".join(after[:1] for after in self.template.split("%")[1:])
        return any(order.startswith(directives) for order in _MOST_SIGNIFICANT_FIRST)

    def segment_matches(self, depth: int, name: str) -> bool:
        """Whether a directory of that name can stand at that depth: lets a walk leave out what cannot be a
        period."""
        return _pattern(self.segments[depth]).fullmatch(name) is not None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(%.)", template)
    return re.compile(
        "".join(
            f"(?P<{part[1]}>[0-9]{{{_DIGITS[part[1]]}}})" if part.startswith("%") else re.escape(part)
            for part in parts
            if part
        )
    )


def look_back_start(kind: PeriodKind, periods: int, now: datetime) -> datetime:
    """The start (naive, UTC calendar) of the oldest period inside a window of that many periods before
    ``now``."""
    if kind in (PeriodKind.HOUR, PeriodKind.MONTH):
        return Period.around(now, kind).step(-periods).start
    today = Period.around(now, PeriodKind.DAY).start
    return today - timedelta(days=periods * (7 if kind is PeriodKind.WEEK else 1))
