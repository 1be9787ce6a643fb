"""Our durable record in an SQL database (docs/ledger.md)."""

from xmode_transfer.adapters.ledger.ledger import SqlLedger, open_ledger

__all__ = ["SqlLedger", "open_ledger"]
