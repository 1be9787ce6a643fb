"""What tells whether two tables hold the same: counts and sums by the databases themselves, and a checksum
over each row as we read it."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, Table, func, select

_BYTES = 16
_MODULUS = 1 << (8 * _BYTES)


class Figures(NamedTuple):
    """By the database's own count: ``sums`` has one for each column of whole numbers, by its name."""

    rows: int
    sums: tuple[tuple[str, int], ...]


class Checksum:
    """Over the values of rows in whatever order they come: databases answer them in their own."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            digest = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
            self._sum += int.from_bytes(digest)
            self.rows += 1
        self._sum %= _MODULUS

    @property
    def hex(self) -> str:
        return f"{self._sum:0{2 * _BYTES}x}"


def figures(connection: Connection, table: Table) -> Figures:
    # nanoseconds of a few rows already add up to more than 64 bits hold
    columns = [
        column
        for column in table.columns
        if isinstance(column.type, Integer) and not column.name.endswith("_ns")
    ]
    count, *sums = connection.execute(
        select(func.count(), *(func.coalesce(func.sum(column), 0) for column in columns)).select_from(table)
    ).one()
    return Figures(
        int(count), tuple((column.name, int(total)) for column, total in zip(columns, sums, strict=True))
    )
