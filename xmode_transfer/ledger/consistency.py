"""Whether a ledger says nothing that cannot be: the rules that hold between our tables, in SQL that SQLite
and PostgreSQL both understand. Reads everything; changes nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from xmode_transfer.model.records import Status

MOST_PROBLEMS = 100
"""How many rows are told for each rule that they break."""

Ask = Callable[[str], Iterable[Any]]
"""Asks a query without parameters and answers its rows: a method of a connection of either driver."""

_OF_DELIVERY = "periods.customer || '/' || periods.feed || '/' || periods.period || '/r' || d.revision"
_DELIVERIES = f"SELECT {_OF_DELIVERY} FROM deliveries d JOIN periods ON periods.id = d.period_id"
_RECEIPTS = "SELECT periods.customer || ' ' || r.key FROM receipts r JOIN periods ON periods.id = r.period_id"
_STATUSES = ", ".join(f"'{status}'" for status in Status)
_RULES = {
    "is delivered, and has no manifest or no time": f"{_DELIVERIES} WHERE d.status = 'delivered' AND "
    "(d.manifest_key IS NULL OR d.manifest_checksum IS NULL OR d.delivered_at IS NULL)",
    f"has a status that is none of {', '.join(Status)}": f"{_DELIVERIES} WHERE d.status NOT IN ({_STATUSES})",
    "is delivered, and an object of its plan has no receipt": f"{_DELIVERIES} WHERE d.status = 'delivered' "
    "AND EXISTS (SELECT 1 FROM objects o LEFT JOIN receipts r ON r.period_id = o.period_id "
    "AND r.revision = o.revision AND r.name = o.name "
    "WHERE o.period_id = d.period_id AND o.revision = d.revision AND r.name IS NULL)",
    "is delivered, and its counts are not those of its plan": f"{_DELIVERIES} WHERE d.status = 'delivered' "
    "AND (d.object_count, d.total_bytes) <> (SELECT count(*), coalesce(sum(o.size), 0) FROM objects o "
    "WHERE o.period_id = d.period_id AND o.revision = d.revision)",
    "has a receipt for another key than was planned": f"{_RECEIPTS} JOIN objects o "
    "ON o.period_id = r.period_id AND o.revision = r.revision AND o.name = r.name WHERE o.key <> r.key",
    "is the key of two source files": f"{_RECEIPTS} GROUP BY r.period_id, r.key, periods.customer "
    "HAVING count(DISTINCT r.name) > 1",
    "is a receipt without a checksum or a time": f"{_RECEIPTS} WHERE r.checksum = '' OR r.algorithm = '' "
    "OR r.delivered_at NOT LIKE '____-__-__T__:__:__.______Z'",
    "was removed by an act of another customer": "SELECT periods.customer || ' ' || m.key FROM removals m "
    "JOIN acts a ON a.id = m.act_id JOIN periods ON periods.id = m.period_id "
    "WHERE a.customer <> periods.customer",
}
"""What is reported of each row that breaks a rule, and the query that answers a label for such a row."""


class Contents(NamedTuple):
    """What a ledger holds. ``bytes`` are those of the receipts."""

    schema_version: str
    customers: int
    deliveries: int
    receipts: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """``damage`` is what the database finds wrong with itself, ``contradictions`` what our rules do;
    ``contents`` is None where a file is too damaged to count. ``older`` means that the next start migrates
    it: until then our rules are not tried."""

    where: str
    contents: Contents | None
    damage: tuple[str, ...]
    contradictions: tuple[str, ...]
    older: bool = False
    on_server: bool = False

    @property
    def is_sound(self) -> bool:
        return not self.damage and not self.contradictions


def contradictions(ask: Ask) -> Iterator[str]:
    """What our own rules find wrong, a line each. Only for a ledger of the schema that we know."""
    for says, query in _RULES.items():
        yield from (f"{label} {says}" for (label,) in ask(f"{query} LIMIT {MOST_PROBLEMS}"))


def contents(ask: Ask, version: str) -> Contents:
    """Counts, for a ledger of any ``version`` so far."""
    ((customers, deliveries, receipts, total),) = ask(
        "SELECT (SELECT count(DISTINCT customer) FROM periods), (SELECT count(*) FROM deliveries), "
        "(SELECT count(*) FROM receipts), (SELECT coalesce(sum(size), 0) FROM receipts)"
    )
    # PostgreSQL sums in decimal numbers
    return Contents(version, int(customers), int(deliveries), int(receipts), int(total))
