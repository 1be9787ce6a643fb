"""Decide which checks before release fail: values in, failed checks with both figures out."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from xmode_transfer.config import Checks, EmptyPeriod, OnFailure, SchemaRule
from xmode_transfer.model.checks import Check, FailedCheck, Verdict
from xmode_transfer.model.keys import count
from xmode_transfer.model.periods import Period, PeriodKind

LEAST_HISTORY = 3  # fewer periods are no comparison
_MOST_KEPT = 50
_MOST_NAMED = 5
_SATURDAY = 5
# Periods to look at for each one of the same kind of day: of seven days two are a weekend's.
_LOOKED_AT = {PeriodKind.DAY: 4, PeriodKind.HOUR: 4 * 24}


class Totals(NamedTuple):
    """What a period has at the source; ``problems`` are files that cannot be delivered as they are."""

    files: int
    bytes: int
    problems: int = 0


def needed_history(kind: PeriodKind, against: int) -> int:
    return against * _LOOKED_AT.get(kind, 1)


def of_same_kind(
    period: Period, history: Iterable[tuple[str, int, int]], against: int
) -> list[tuple[str, int, int]]:
    """Return the last periods of the same kind of day, of hours also of the same hour."""
    found = []
    for label, files, size in history:
        try:
            other = Period.parse(label, period.kind)
        except ValueError:  # the feed's periods were others then
            continue
        if _kind_of_day(other) == _kind_of_day(period):
            found.append((label, files, size))
    return found[:against]


def _kind_of_day(period: Period) -> tuple[bool, int]:
    if period.kind not in (PeriodKind.DAY, PeriodKind.HOUR):
        return (False, 0)
    return (period.start.weekday() >= _SATURDAY, period.start.hour)


def of_period(
    rules: Checks, totals: Totals, history: Sequence[tuple[str, int, int]], *, had_files: bool
) -> Iterator[FailedCheck]:
    """Judge a period as a whole. ``history`` has the periods to compare with; ``had_files``: the feed has
    delivered files before."""
    if not totals.files and not totals.problems:
        if rules.empty_period is EmptyPeriod.DELIVER:
            return
        if had_files:
            message = "0 files, although the period is complete; at least 1 is expected (empty_period)"
            yield FailedCheck(Check.EMPTY_PERIOD, message)
            return
    for check, found, least, noun in (
        (Check.MIN_FILES, totals.files, rules.min_files, "file"),
        (Check.MIN_BYTES, totals.bytes, rules.min_bytes, "byte"),
    ):
        if least is not None and found < least:
            yield FailedCheck(check, f"{count(found, noun)}; at least {least:,} are expected ({check})")
    if rules.change is None or len(history) < LEAST_HISTORY:
        return
    for check, found, allowed, noun, earlier in (
        (Check.CHANGE_FILES, totals.files, rules.change.files, "file", [files for _, files, _ in history]),
        (Check.CHANGE_BYTES, totals.bytes, rules.change.bytes, "byte", [size for _, _, size in history]),
    ):
        usual = median(earlier)
        difference = abs(found - usual)
        if allowed is not None and usual and difference * 100 > allowed * usual:
            percent = 100 * difference / usual
            shown = round(percent) if round(percent) > allowed else math.ceil(percent * 100) / 100
            yield FailedCheck(
                check,
                f"{count(found, noun)}; the median of the last {len(earlier)} periods is "
                f"{f'{usual:,.1f}'.removesuffix('.0')}: {shown:,} % {'less' if found < usual else 'more'}, "
                f"{allowed:g} % are allowed ({check})",
            )


@dataclass(slots=True)
class Shapes:
    """Compares the schema and first line of each file with those of the last sound period, or of the first
    file. ``found`` is what the next period is compared with, by format."""

    rules: Checks
    known: Mapping[str, tuple[str, str]]  # with the label of the period that had it
    found: dict[str, str] = field(default_factory=dict)
    _narrowest: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, kind: str, shape: str) -> FailedCheck | None:
        known = self.found.get(kind)
        if known is None or (shape != known and self._extends(kind, shape, known)):
            self.found[kind], self._narrowest[kind] = shape, name  # other files may only add to it
        expected, where = self.found[kind], self._narrowest[kind]
        if kind in self.known:
            expected, label = self.known[kind]
            where = f"period {label}"
        if self._extends(kind, expected, shape):
            return None
        if kind == "parquet":
            return FailedCheck(Check.SCHEMA, _columns_differ(expected, shape, where), name)
        message = f"its first line is {_shortened(shape)}; that of {where} is {_shortened(expected)}"
        return FailedCheck(Check.HEADER, message, name)

    def _extends(self, kind: str, expected: str, shape: str) -> bool:
        """Return True if a file with this shape may come where the other is expected."""
        if expected == shape or kind != "parquet" or self.rules.parquet is None:
            return expected == shape
        if self.rules.parquet.schema_ is SchemaRule.SAME:
            return False
        before, now = json.loads(expected), json.loads(shape)
        names = {column[0] for column in before}
        added = [column for column in now if column[0] not in names]
        return [column for column in now if column[0] in names] == before and all(null for *_, null in added)


def _columns_differ(expected: str, shape: str, where: str) -> str:
    before, now = (
        {path: (kind, null) for path, kind, null in json.loads(text)} for text in (expected, shape)
    )
    changes = [f"added {_column(path, now[path])}" for path in now if path not in before]
    changes += [f"without {_column(path, before[path])}" for path in before if path not in now]
    changes += [
        f"{_column(path, now[path])} was {_column('', before[path])}"
        for path in now
        if path in before and now[path] != before[path]
    ]
    more = f" and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
    listed = ", ".join(changes[:_MOST_NAMED]) or "in another order"
    return f"{count(len(now), 'column')}; {where} has {len(before)}: {listed}{more}"


def _column(path: str, column: tuple[str, bool]) -> str:
    kind, null = column
    return f"{path} {kind}{'' if null else ' not null'}".strip()


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}...")


class Failures:
    """Failed checks, those with the same message as one: its first file, and the number of the others."""

    def __init__(self) -> None:
        self._first: dict[tuple[Check, str], str] = {}
        self._counts: Counter[tuple[Check, str]] = Counter()

    def add(self, failed: FailedCheck) -> None:
        key = (failed.check, failed.message)
        if key not in self._first and len(self._first) >= _MOST_KEPT:
            key = (failed.check, "as many fail that not all are listed")
        self._first.setdefault(key, failed.file)
        self._counts[key] += 1

    def listed(self) -> tuple[FailedCheck, ...]:
        alike = {
            key: f"; {count(n - 1, 'other file')} too" if n > 1 else "" for key, n in self._counts.items()
        }
        return tuple(FailedCheck(key[0], key[1] + alike[key], file) for key, file in self._first.items())


def verdict(rules: Checks, failed: Sequence[FailedCheck]) -> Verdict:
    if not failed:
        return Verdict.SOUND
    return Verdict.WARNED if rules.on_failure is OnFailure.WARN else Verdict.QUARANTINED


def summary(failed: Sequence[FailedCheck]) -> str:
    """Return the first failed check as one sentence, and the number of the others."""
    first = failed[0]
    more = f" (and {count(len(failed) - 1, 'more failed check')})" if len(failed) > 1 else ""
    return f"{first.file}: {first.message}{more}" if first.file else f"{first.message}{more}"
