"""Periods, the slices of a feed that one delivery covers, and partitions, their directories at the source.
Labels sort as periods do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache


class PeriodKind(StrEnum):
    """The length of a period; ``none`` is a drop folder: each new complete file is delivered once."""

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
# The directives with which each period has its own directory.
_NEEDED = {
    PeriodKind.HOUR: ({"Y", "m", "d", "H"}, {"Y", "j", "H"}),
    PeriodKind.DAY: ({"Y", "m", "d"}, {"Y", "j"}),
    PeriodKind.WEEK: ({"G", "V"},),
    PeriodKind.MONTH: ({"Y", "m"},),
}
_LENGTHS = {
    PeriodKind.HOUR: timedelta(hours=1),
    PeriodKind.DAY: timedelta(days=1),
    PeriodKind.WEEK: timedelta(weeks=1),
}
_DIGITS = {"Y": 4, "G": 4, "m": 2, "d": 2, "H": 2, "V": 2, "j": 3}


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """One period. ``start`` is naive, because a date in a path has no time zone."""

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
        """The start of the time after it, naive."""
        if self.kind is PeriodKind.NONE:
            return self.start + timedelta(days=1)
        return self.step(1).start

    def step(self, count: int) -> "Period":
        """Return the period ``count`` later. Raises ValueError for a drop folder."""
        if self.kind is PeriodKind.NONE:
            raise ValueError("a drop folder has one period only")
        if self.kind is PeriodKind.MONTH:
            months = self.start.year * 12 + self.start.month - 1 + count
            return Period(self.start.replace(year=months // 12, month=months % 12 + 1), self.kind)
        return Period(self.start + count * _LENGTHS[self.kind], self.kind)

    @staticmethod
    def around(moment: datetime, kind: PeriodKind) -> "Period":
        """Return the period that contains an aware moment, in UTC."""
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
        return Period(datetime.min, PeriodKind.NONE)  # noqa: DTZ901 - a period has no zone

    @staticmethod
    def parse(label: str, kind: PeriodKind) -> "Period":
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
    for kind in PeriodKind:
        try:
            return Period.parse(label, kind)
        except ValueError:
            continue
    return None


def check_range(since: str | None, until: str | None) -> None:
    """Raise ValueError for a range without any period."""
    first, last = (period_labelled(label) if label else None for label in (since, until))
    if first is not None and last is not None and first.kind is last.kind and last < first:
        raise ValueError(
            f"--since {since} comes after --until {until}, and no period is between them; swap the two"
        )


def label_format(kind: PeriodKind) -> str:
    """Return the strftime template of a period's label. Raises KeyError for a drop folder."""
    return _LABEL_FORMATS[kind]


def check_directives(used: Sequence[str], kind: PeriodKind, *, exactly: bool = False) -> None:
    """Raise ValueError for an unknown directive, or if they do not tell each period from all others."""
    unknown = [directive for directive in used if directive not in _DIGITS]
    if unknown:
        raise ValueError(
            f"%{unknown[0]} is not known; use {', '.join('%' + name for name in sorted(_DIGITS))}"
        )
    forms = " or ".join(
        " ".join("%" + name for name in sorted(needed, key="YGmVdjH".index)) for needed in _NEEDED[kind]
    )
    if exactly and set(used) not in _NEEDED[kind]:
        raise ValueError(f"a feed by {kind} needs exactly {forms} in its partition")
    if not any(needed <= set(used) for needed in _NEEDED[kind]):
        raise ValueError(f"a feed by {kind} needs {forms}, so that each period has keys of its own")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition template: ``%Y/%m/%d``, ``dt=%Y-%m-%d``, ``%G/W%V``."""

    template: str
    kind: PeriodKind

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.template.split("/"))

    @staticmethod
    def parse(template: str, kind: PeriodKind) -> "Partition":
        if kind is PeriodKind.NONE:
            raise ValueError("a drop folder (period: none) has no partition; remove it")
        if not template or template.startswith("/") or template.endswith("/"):
            raise ValueError("write it as a relative path without a slash at either end, like %Y/%m/%d")
        if any(segment in ("", ".", "..") for segment in template.split("/")):
            raise ValueError("empty, '.' and '..' segments are not allowed")
        used = re.findall(r"%(.?)", template)
        check_directives(used, kind, exactly=True)
        if len(set(used)) != len(used):
            raise ValueError("each % directive may occur only once")
        return Partition(template, kind)

    def path(self, period: Period) -> str:
        """Return the period's directory, relative to the feed's root."""
        return period.start.strftime(self.template)

    def period(self, path: str) -> Period | None:
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
        """Return whether the names show that every period at or below a path begins before ``start``."""
        period = self.period(path)
        if period is not None:
            return period.start < start
        segments = path.split("/")
        earliest = self.path(Period(start, self.kind)).split("/")[: len(segments)]
        directives = "".join(after[:1] for after in self.template.split("%")[1:])
        sorts_by_time = any(order.startswith(directives) for order in ("YmdH", "YjH", "GV"))
        return sorts_by_time and segments < earliest

    def segment_matches(self, depth: int, name: str) -> bool:
        return _pattern(self.segments[depth]).fullmatch(name) is not None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    seen: set[str] = set()
    pattern = ""
    for part in filter(None, re.split(r"(%.)", template)):
        name = part[1:]
        if not part.startswith("%"):
            pattern += re.escape(part)
        elif name in seen:
            pattern += f"(?P={name})"
        else:
            seen.add(name)
            pattern += f"(?P<{name}>[0-9]{{{_DIGITS[name]}}})"
    return re.compile(pattern)


def look_back_start(kind: PeriodKind, periods: int, now: datetime) -> datetime:
    """Return the start (naive, UTC) of the oldest of that many periods before ``now``."""
    if kind in (PeriodKind.HOUR, PeriodKind.MONTH):
        return Period.around(now, kind).step(-periods).start
    today = Period.around(now, PeriodKind.DAY).start
    return today - timedelta(days=periods * (7 if kind is PeriodKind.WEEK else 1))
