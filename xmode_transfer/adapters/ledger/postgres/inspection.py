"""What the server can say of the ledger's own state."""

from collections.abc import Iterator

from sqlalchemy import Connection, ForeignKeyConstraint, and_, exists, func, select, text

from xmode_transfer.adapters.ledger.tables.base import metadata

_MOST_PROBLEMS = 100
_USED = text(
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname = ANY(:names)"
)
_SCHEMA = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
_UNPROVEN = text(
    "SELECT conrelid::regclass::text || ': the constraint ' || conname || ' was never validated' "
    f"FROM pg_constraint WHERE NOT convalidated AND connamespace = {_SCHEMA} "
    "UNION ALL SELECT indrelid::regclass::text || ': the index ' || indexrelid::regclass::text "
    "|| ' is not valid' FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    f"WHERE NOT indisvalid AND relnamespace = {_SCHEMA}"
)


def used_bytes(connection: Connection) -> int:
    """Bytes on the server's disk, indexes included."""
    names = [table.name for table in metadata.sorted_tables]
    return int(connection.execute(_USED, {"names": names}).scalar_one())


def problems(connection: Connection) -> list[str]:
    """What the server was told not to look at, and what it should never have let happen. Reads every table
    that refers to another."""
    lines = [str(line) for line in connection.execute(_UNPROVEN).scalars()]
    for table in metadata.sorted_tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            lines += _orphans(connection, constraint)
    return lines


def _orphans(connection: Connection, constraint: ForeignKeyConstraint) -> Iterator[str]:
    table, parent = constraint.table, constraint.referred_table.alias("parent")
    pairs = [(element.parent, parent.c[element.column.name]) for element in constraint.elements]
    lost = (
        select(table.c[pairs[0][0].name])
        .where(
            and_(*(child.is_not(None) for child, _ in pairs)),
            ~exists().where(and_(*(child == column for child, column in pairs))),
        )
        .limit(_MOST_PROBLEMS)
        .subquery()
    )
    count = connection.execute(select(func.count()).select_from(lost)).scalar_one()
    for _ in range(count):
        yield f"{table.name}: a row refers to a row of {constraint.referred_table.name} that is not there"
