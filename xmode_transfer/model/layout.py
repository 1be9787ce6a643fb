"""Layouts: the template of a feed's object keys below the destination's prefix.

``{feed}/dt={period:%Y-%m-%d}/{path}`` gives ``us-daily/dt=2026-11-22/part-0.parquet``. A correction's key has
``_r2/`` before the part that names the file.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from xmode_transfer.model.keys import MAX_KEY_BYTES, IllegalName, check_name
from xmode_transfer.model.periods import Partition, Period, PeriodKind, check_directives, label_format

_FILE_FIELDS = ("path", "name", "stem", "suffix")
_FIELDS = ("feed", "customer", "period", *_FILE_FIELDS)
_PART = re.compile(r"(\{[^{}]*\})")
_FIELD = re.compile(r"\{(?P<field>[a-z]*)(?P<colon>:(?P<format>[^{}]*))?\}")
_COLUMN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_REVISION = re.compile(r"_r[0-9]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one subscription. ``head`` is a strftime template of the directories below the feed's own
    that are the same for all files of a period; ``tail`` the rest: texts, and file fields like ``{name}``.
    ``directory`` is the strftime template of the period's directory at the source."""

    prefix: str
    feed: str
    kind: PeriodKind
    head: str
    tail: tuple[str, ...]
    directory: str
    reserved: frozenset[str] = frozenset()

    @staticmethod
    def of(
        template: str | None,
        kind: PeriodKind,
        *,
        feed: str,
        partition: str | None,
        customer: str = "",
        prefix: str = "",
        reserved: Collection[str] = (),
    ) -> "Layout":
        """Parse a template; None keeps the directories of the source. ``reserved`` are directories of the
        feed that no file may be in. Raises ValueError with the fix."""
        where = (prefix, feed, kind)
        directory, taken = partition or "", frozenset(reserved)
        if template is None:
            return Layout(*where, directory, ("{path}",), directory, taken)
        head, tail = _parsed(template, kind, feed, customer)
        return Layout(*where, head, tail, directory, taken)

    @property
    def root(self) -> str:
        """The prefix of all keys of the feed."""
        return f"{self.prefix}{self.feed}/"

    @property
    def keeps_paths(self) -> bool:
        """True if names within a period sort as their keys do, so that no two of them have the same key."""
        return self.tail == ("{path}",)

    @property
    def columns(self) -> tuple[str, ...]:
        """The partition columns: the names of directories like ``dt=2026-11-22``, in order."""
        segments = "/".join((self.head, "".join(self.tail))).split("/")[:-1]
        return tuple(match[1] for match in map(_COLUMN.fullmatch, segments) if match)

    def period_prefix(self, period: Period) -> str:
        """Return the prefix of all keys of a period; of a drop folder, or where the period is named after
        the file, it has other periods' keys too."""
        return self.root + (f"{period.start.strftime(self.head)}/" if self.head else "")

    def directory_of(self, period: Period) -> str:
        """Return the directories that name a period in its keys, or ``period=2026-11-22`` if they do not;
        empty for a drop folder."""
        if self.kind is PeriodKind.NONE:
            return ""
        path = period.start.strftime(self.head)
        return path if self._names_period and self.period_of(path) == period else f"period={period.label}"

    @property
    def _names_period(self) -> bool:
        try:
            check_directives(re.findall(r"%(.)", self.head), self.kind)
        except ValueError:
            return False
        return True

    def period_of(self, path: str) -> Period | None:
        """Return the period that a path below the feed's directory is in, by this layout or else by the
        source's directories, as without a layout; None if the path does not tell."""
        if self.kind is PeriodKind.NONE:
            return Period.none()
        for template in filter(None, (self.head if self._names_period else "", self.directory)):
            text = "/".join(path.split("/")[: template.count("/") + 1])
            period = Partition(template, self.kind).period(text)
            if period is not None and period.start.strftime(template) == text and _is_whole(period):
                return period
        return None

    def path_of(self, name: str, period: Period) -> str:
        """Return the path of a source file below its period's directory."""
        return name.removeprefix(_dated(self.directory, period.start))

    def key(self, name: str, period: Period, revision: int = 1) -> str:
        """Return the key of a source file, named relative to the feed's root. Raises IllegalName."""
        check_name(name)
        head, tail = _dated(self.head, period.start), self.path_of(name, period)
        if not self.keeps_paths:
            tail = self._renamed(tail, period)
        if not self.keeps_paths or self.head != self.directory:
            check_name(f"{head}{tail}")
        if self.reserved:
            first = f"{head}{tail}".partition("/")[0]
            if first in self.reserved:
                what = f"{first}/ at the top of a feed is for what we put there; rename the directory"
                raise IllegalName(what)
        key = f"{self.root}{head}{f'_r{revision}/' if revision > 1 else ''}{tail}"
        length = len(key.encode())
        if length > MAX_KEY_BYTES:
            raise IllegalName(
                f"its key would have {length} bytes, S3 allows {MAX_KEY_BYTES}; shorten the path"
            )
        return key

    def _renamed(self, path: str, period: Period) -> str:
        file = path.rpartition("/")[2]
        dot = file.rfind(".")
        stem, suffix = (file[:dot], file[dot:]) if dot > 0 else (file, "")
        values = {"{path}": path, "{name}": file, "{stem}": stem, "{suffix}": suffix}
        return "".join(values.get(part) or _text(part, period) for part in self.tail)


def partition_values(key: str, columns: Collection[str]) -> dict[str, str | None]:
    """Return the values of partition columns from the directories of a key; None for one without."""
    matches = map(_COLUMN.fullmatch, key.split("/")[:-1])
    found = {match[1]: match[2] for match in matches if match}
    return {name: found.get(name) for name in columns}


def _is_whole(period: Period) -> bool:
    return Period.parse(period.label, period.kind) == period


def _text(part: str, period: Period) -> str:
    if part in ("{path}", "{name}", "{stem}", "{suffix}"):
        return ""  # a file without a suffix
    return period.start.strftime(part)


@lru_cache(maxsize=256)
def _dated(template: str, start: datetime) -> str:
    """Return directories with their closing slash; empty for an empty template."""
    return f"{start.strftime(template)}/" if template else ""


@lru_cache(maxsize=1024)
def _parsed(template: str, kind: PeriodKind, feed: str, customer: str) -> tuple[str, tuple[str, ...]]:
    parts: list[str] = []
    for part in filter(None, _PART.split(template)):
        match = _FIELD.fullmatch(part)
        if match is None:
            if "{" in part or "}" in part:
                raise ValueError("a brace has no partner; a field is written like {path}")
            if "%" in part or not part.isprintable():
                raise ValueError("a % directive belongs into a field, like {period:%Y-%m-%d}")
            parts.append(part)
            continue
        field, form = match["field"], match["format"]
        if field not in _FIELDS:
            raise ValueError(f"{part} is not known; use {', '.join('{' + name + '}' for name in _FIELDS)}")
        if field != "period" and match["colon"]:
            raise ValueError(f"only {{period}} has a format; write {{{field}}}")
        if field == "period":
            if kind is PeriodKind.NONE:
                raise ValueError("a drop folder (period: none) has no period to name; remove {period}")
            parts.append(label_format(kind) if form is None else form)
        else:
            parts.append({"feed": feed, "customer": customer}.get(field, part))
    if not template.startswith("{feed}/"):
        raise ValueError("it begins with {feed}/, so that each feed has a directory of its own")
    if not any(part in ("{path}", "{name}", "{stem}") for part in parts):
        raise ValueError("it must name the file: add {path}, {name} or {stem}")
    if kind is not PeriodKind.NONE:
        texts = "".join(part for part in parts if not part.startswith("{"))
        check_directives(re.findall(r"%(.?)", texts), kind)
    below = parts[1:]  # after the feed
    below[0] = below[0][1:]
    _check_segments("".join(below).split("/"))
    at = next(number for number, part in enumerate(below) if part.startswith("{"))
    head, _, begun = "".join(below[:at]).rpartition("/")
    return head, tuple(filter(None, (begun, *below[at:])))


def _check_segments(segments: list[str]) -> None:
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("empty, '.' and '..' directories are not allowed")
    if segments[0].startswith("_"):
        raise ValueError(f"{segments[0]}: directories with an underscore at the top of a feed are for ours")
    for segment in segments[:-1]:
        if _REVISION.fullmatch(segment):
            raise ValueError(f"a directory named like {segment} is for corrections")
    columns = [match[1].lower() for match in map(_COLUMN.fullmatch, segments[:-1]) if match]
    if len(set(columns)) != len(columns):
        raise ValueError("it names a partition column twice")
