"""A ledger in an SQLite file on this machine."""
