"""What all tables share."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    Text,
)

SCHEMA_VERSION = "0016"

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


def failure_columns() -> list[Column[object]]:
    return [
        Column("failure_cause", TEXT),
        Column("failure_party", TEXT),
        Column("failure_message", TEXT),
        Column("failure_hint", TEXT),
        Column("failure_retryable", Boolean),
        Column("failure_request_id", TEXT),
    ]
