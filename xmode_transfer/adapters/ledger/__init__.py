"""Our durable record in an SQL database (docs/ledger.md)."""

from xmode_transfer.adapters.ledger.ledger import Ledger, open_ledger
