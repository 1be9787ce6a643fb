"""The schema of the ledger as it was first released, for each database: what migrations begin with.

python -m tests.ledger_schema        writes it anew; only before the first release
"""

from pathlib import Path

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from xmode_transfer.ledger import files
from xmode_transfer.ledger.tables import metadata

GOLDEN = Path(__file__).parent / "golden" / "ledger"
BASELINE = "0001"
DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(),  # type: ignore[no-untyped-call]
    "postgresql": postgresql.dialect(),  # type: ignore[no-untyped-call]
}


def released(kind: str) -> list[str]:
    """The statements that make the tables of the first release."""
    text = (GOLDEN / f"{BASELINE}.{kind}.sql").read_text(encoding="utf-8")
    return [statement for statement in text.split(";\n") if statement.strip()]


def current(kind: str) -> list[str]:
    """Those that make the tables as they are now."""
    dialect = DIALECTS[kind]
    made: list[CreateTable | CreateIndex] = []
    for table in metadata.sorted_tables:
        indices = sorted(table.indexes, key=lambda index: str(index.name))
        made += [CreateTable(table), *(CreateIndex(index) for index in indices)]
    texts = (str(step.compile(dialect=dialect)).strip() for step in made)
    return ["\n".join(line.rstrip() for line in text.splitlines()) for text in texts]


def damage(url: str) -> tuple[str, ...]:
    """What `ledger check` finds wrong with the ledger."""
    found = files.check(url)
    return found.damage + found.contradictions


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for kind in DIALECTS:
        text = "".join(f"{statement};\n" for statement in current(kind))
        (GOLDEN / f"{BASELINE}.{kind}.sql").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
