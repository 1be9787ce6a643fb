"""A ledger in a database on a PostgreSQL server, for any number of machines. Needs the extra ``cluster``."""
