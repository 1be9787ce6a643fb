"""The tables of the ledger; docs/ledger.md says what each column means.

What is written here is the schema of ``SCHEMA_VERSION``; the migrations lead to it from the first release's
(a test compares the two). Times are text, ISO 8601 in UTC with microseconds and ``Z``: it sorts as time does,
reads well in a database shell, and becomes a datetime in a fifth of the time that a number takes. Text sorts
by code point in every database.
"""

from xmode_transfer.adapters.ledger.tables.base import SCHEMA_VERSION, Rows, metadata, text_of, time_of
from xmode_transfer.adapters.ledger.tables.delivering import (
    ACT,
    CAPABILITIES,
    CHECK,
    DELIVERY,
    FINDING,
    LEFTOVER,
    MISSING,
    OBJECT,
    PART,
    RECEIPT,
    REMOVAL,
    RUN,
    UPLOAD,
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
)
from xmode_transfer.adapters.ledger.tables.fleet import fleet, turns, workers
from xmode_transfer.adapters.ledger.tables.watching import (
    DAEMON,
    DISCREPANCY,
    LOOK,
    NOTICE,
    alerts,
    daemons,
    discrepancies,
    looks,
    notices,
    passed_over,
    visits,
)
