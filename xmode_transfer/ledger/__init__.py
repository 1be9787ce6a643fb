"""Our durable record in an SQL database (docs/ledger.md)."""

from xmode_transfer.ledger.ledger import Ledger, open_ledger
