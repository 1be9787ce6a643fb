"""The tables of the ledger; docs/ledger.md says what each column means.

What is written here is the schema of ``SCHEMA_VERSION``; the migrations lead up to it (a test compares the
two). Times are text, ISO 8601 in UTC with microseconds and ``Z``: it sorts as time does, reads well in a
database shell, and becomes a datetime in a fifth of the time that a number takes. Text sorts by code point in
every database.
"""

from xmode_transfer.adapters.ledger.tables.base import SCHEMA_VERSION, metadata
from xmode_transfer.adapters.ledger.tables.delivering import (
    access_checks,
    access_findings,
    access_leftovers,
    acts,
    capabilities,
    deliveries,
    leases,
    missing,
    objects,
    periods,
    receipts,
    removals,
    runs,
    staged_objects,
    upload_parts,
    uploads,
    writers,
)
from xmode_transfer.adapters.ledger.tables.fleet import fleet, turns, workers
from xmode_transfer.adapters.ledger.tables.watching import (
    alerts,
    daemons,
    discrepancies,
    looks,
    notices,
    passed_over,
    visits,
)

__all__ = [
    "SCHEMA_VERSION",
    "access_checks",
    "access_findings",
    "access_leftovers",
    "acts",
    "alerts",
    "capabilities",
    "daemons",
    "deliveries",
    "discrepancies",
    "fleet",
    "leases",
    "looks",
    "metadata",
    "missing",
    "notices",
    "objects",
    "passed_over",
    "periods",
    "receipts",
    "removals",
    "runs",
    "staged_objects",
    "turns",
    "upload_parts",
    "uploads",
    "visits",
    "workers",
    "writers",
]
