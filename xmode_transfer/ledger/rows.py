"""The mapping of records to rows: fields are columns, by name and type. A field that is a record itself is
one column for each of its fields."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeEngine

from xmode_transfer.model.records import Checksum, Failure

R = TypeVar("R")

# SQLite compares text byte by byte by default; PostgreSQL does so under the collation "C".
TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
# SQLite numbers rows only in a column that is declared INTEGER.
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

time_of = datetime.fromisoformat


class NoTimeZone(ValueError, DontWrapMixin):
    """A time that cannot be stored because it is ambiguous."""


def text_of(at: datetime) -> str:
    """Return a time as it is stored: ``2026-11-23T10:00:00.000000Z``. Raises ValueError without a zone."""
    if at.tzinfo is not UTC:
        if at.tzinfo is None:
            raise NoTimeZone(f"{at} has no time zone")
        at = at.astimezone(UTC)
    return f"{at.isoformat(timespec='microseconds')[:26]}Z"


class Time(sa.TypeDecorator[datetime]):
    """A time in UTC, as text that sorts by time."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else text_of(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else time_of(value)


class Member(sa.TypeDecorator[StrEnum]):
    """A member of an enumeration, as its text."""

    impl = TEXT
    cache_ok = True

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> StrEnum | None:
        return None if value is None else self.of(value)


class Json(sa.TypeDecorator[Any]):
    """A tuple, or a mapping by name, of texts or records, in JSON."""

    impl = TEXT
    cache_ok = True

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of
        self._adapter = TypeAdapter(of)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else self._adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return None if value is None else self._adapter.validate_json(value)


_TYPES: dict[type, Callable[[], TypeEngine[Any]]] = {
    str: lambda: TEXT,
    int: sa.BigInteger,
    float: sa.Double,
    bool: sa.Boolean,
    datetime: Time,
}


class _Column(NamedTuple):
    """A column with a field's value, or with an ``attribute`` of it."""

    name: str
    kind: Any
    nullable: bool
    attribute: str | None = None


class _Field(NamedTuple):
    kind: Any
    optional: bool
    columns: tuple[_Column, ...]


class Rows(Generic[R]):
    """The rows of one kind of record, a dataclass or a NamedTuple. The table has no columns for the fields in
    ``elsewhere``: a query joins them, or ``record`` takes them."""

    def __init__(self, record: type[R], *, elsewhere: Collection[str] = ()) -> None:
        self._record = record
        self._fields: dict[str, _Field] = {}
        for name, (kind, optional) in _kinds(record).items():
            plain = name in elsewhere or not (is_dataclass(kind) or hasattr(kind, "_fields"))
            columns = (_Column(name, kind, optional),) if plain else _columns_of(kind, optional)
            self._fields[name] = _Field(kind, optional, columns)
        self._stored = {name: field for name, field in self._fields.items() if name not in elsewhere}

    def columns(self) -> Iterator[sa.Column[Any]]:
        for field in self._stored.values():
            for column in field.columns:
                yield sa.Column(column.name, _type_of(column.kind), nullable=column.nullable)

    def record(self, row: Any, **elsewhere: Any) -> R:
        row = row._mapping
        found = {name: _value(field, row) for name, field in self._fields.items() if name not in elsewhere}
        return self._record(**found, **elsewhere)

    def values(self, record: R) -> dict[str, Any]:
        """Return the record's values by column."""
        found = {}
        for name, field in self._stored.items():
            value = getattr(record, name)
            for column in field.columns:
                part = column.attribute
                found[column.name] = value if value is None or part is None else getattr(value, part)
        return found


def _kinds(record: type) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field, without None, and True if it may be None."""
    found = {}
    for name, hint in get_type_hints(record).items():
        optional = NoneType in get_args(hint)
        kind = next(kind for kind in get_args(hint) if kind is not NoneType) if optional else hint
        found[name] = (kind, optional)
    return found


def _columns_of(kind: Any, optional: bool) -> tuple[_Column, ...]:
    prefix = "failure_" if kind is Failure else ""
    renamed = {"value": "checksum"} if kind is Checksum else {}
    return tuple(
        _Column(renamed.get(part, prefix + part), of_part, optional or may_be_null, part)
        for part, (of_part, may_be_null) in _kinds(kind).items()
    )


def _value(field: _Field, row: Mapping[str, Any]) -> Any:
    first = field.columns[0]
    if first.attribute is None or (field.optional and row[first.name] is None):
        return row[first.name]
    return field.kind(**{str(column.attribute): row[column.name] for column in field.columns})


def _type_of(kind: Any) -> TypeEngine[Any]:
    if get_origin(kind) is not None:
        return Json(kind)
    return Member(kind) if issubclass(kind, StrEnum) else _TYPES[kind]()
