"""What all tables share: types that give values back as they were, and columns that are a record's fields.

A record of the domain says once what is kept of a thing. Its table takes the columns from there, and its rows
become records again by the same rule: a field is a column of its name and type. A field that is a record
itself is as many columns as that one has fields.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
)
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeEngine

from xmode_transfer.model.health import Event, Notification
from xmode_transfer.model.records import Checksum, Failure

R = TypeVar("R")

SCHEMA_VERSION = "0001"

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}

metadata = MetaData(naming_convention=NAMING)

# SQLite compares text byte by byte by itself; PostgreSQL does so under the collation "C".
TEXT = Text(collation="C").with_variant(Text(), "sqlite")
# SQLite numbers rows by itself only in a column that is declared INTEGER.
ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")


# --- Types

time_of = datetime.fromisoformat


class NoTimeZone(ValueError, DontWrapMixin):
    """A time that is not to be stored: nobody could say when it was."""


def text_of(at: datetime) -> str:
    """A time as it is stored: ``2026-11-23T10:00:00.000000Z``. Raises ValueError for a time without a
    zone."""
    if at.tzinfo is not UTC:
        if at.tzinfo is None:
            raise NoTimeZone(f"{at} has no time zone")
        at = at.astimezone(UTC)
    return f"{at.isoformat(timespec='microseconds')[:26]}Z"


class Time(TypeDecorator[datetime]):
    """A time in UTC, as text that sorts as time does."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else text_of(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return None if value is None else time_of(value)


class Member(TypeDecorator[StrEnum]):
    """A member of an enumeration, as its text."""

    impl = TEXT
    cache_ok = True

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.of(value)


class Items(TypeDecorator[tuple[Any, ...]]):
    """A tuple of texts, or of tuples of texts, as a list in JSON."""

    impl = TEXT
    cache_ok = True

    def __init__(self, of: type) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[Any, ...] | None:
        if value is None:
            return None
        return tuple(self.of(*item) if isinstance(item, list) else item for item in json.loads(value))


class Notified(TypeDecorator[Mapping[str, Notification]]):
    """What each channel knows of an alert, as an object in JSON."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Notification] | None, dialect: Dialect) -> str | None:
        kept = {channel: asdict(item) for channel, item in (value or {}).items()}
        return json.dumps(kept, default=text_of)

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Notification]:
        found: dict[str, dict[str, Any]] = json.loads(value or "{}")
        for item in found.values():
            item["sent"] = item["sent"] and Event(item["sent"])
            for name in ("sent_at", "next_attempt_at"):
                item[name] = item[name] and time_of(item[name])
        return {channel: Notification(**item) for channel, item in found.items()}


_TYPES: dict[type, Callable[[], TypeEngine[Any]]] = {
    str: lambda: TEXT,
    int: BigInteger,
    float: Double,
    bool: Boolean,
    datetime: Time,
}


# --- Columns and rows


@dataclass(frozen=True, slots=True)
class _Field:
    """``columns`` are the field's, by the attribute that each one's value is of it; of a field that is no
    record there is one, without an attribute."""

    name: str
    kind: Any
    optional: bool
    columns: "tuple[tuple[str, str, _Field | None], ...]"


class Rows(Generic[R]):
    """How the records of one kind, a dataclass or a NamedTuple, lie in a table. Fields that lie ``elsewhere``
    are no columns of it: a query joins them, or ``record`` is handed them."""

    def __init__(self, record: type[R], *, elsewhere: Collection[str] = ()) -> None:
        self._record = record
        self._all = _fields_of(record, elsewhere)
        self._fields = [field for field in self._all if field.name not in elsewhere]

    def columns(self) -> Iterator[Column[Any]]:
        """In the order of the fields."""
        for field in self._fields:
            for name, _, part in field.columns:
                kind = (part or field).kind
                yield Column(name, _type_of(kind), nullable=field.optional or bool(part and part.optional))

    def record(self, row: Any, **elsewhere: Any) -> R:
        """The record of a row as SQLAlchemy answers it."""
        values = row._mapping
        return self._record(
            **{field.name: _value(field, values) for field in self._all if field.name not in elsewhere},
            **elsewhere,
        )

    def values(self, record: R) -> dict[str, Any]:
        """By column, as SQLAlchemy takes them."""
        found: dict[str, Any] = {}
        for field in self._fields:
            value = getattr(record, field.name)
            for name, attribute, part in field.columns:
                found[name] = value if part is None or value is None else getattr(value, attribute)
        return found


def _fields_of(record: type, elsewhere: Collection[str] = ()) -> list[_Field]:
    hints = get_type_hints(record)
    names = [field.name for field in fields(record)] if is_dataclass(record) else list(hints)
    found = []
    for name in names:
        optional = NoneType in get_args(hints[name])
        kind = hints[name]
        if optional:
            kind = next(kind for kind in get_args(hints[name]) if kind is not NoneType)
        columns = ((name, "", None),) if name in elsewhere else _columns_of(name, kind)
        found.append(_Field(name, kind, optional, columns))
    return found


def _columns_of(name: str, kind: Any) -> tuple[tuple[str, str, _Field | None], ...]:
    if not (is_dataclass(kind) or hasattr(kind, "_fields")):
        return ((name, "", None),)
    parts = _fields_of(kind)
    if kind is Failure:
        return tuple((f"failure_{part.name}", part.name, part) for part in parts)
    if kind is Checksum:
        return tuple(zip(("algorithm", "checksum"), ("algorithm", "value"), parts, strict=True))
    return tuple((part.name, part.name, part) for part in parts)


def _value(field: _Field, values: Any) -> Any:
    ((first, _, part), *_) = field.columns
    if part is None or (field.optional and values[first] is None):
        return values[first]
    return field.kind(**{attribute: values[name] for name, attribute, _ in field.columns})


def _type_of(kind: Any) -> TypeEngine[Any]:
    if get_origin(kind) is tuple:
        return Items(get_args(kind)[0])
    return Member(kind) if issubclass(kind, StrEnum) else _TYPES[kind]()
