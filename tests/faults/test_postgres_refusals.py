"""A database server that does not let us in, or holds what it should not: the error says what happened, who
must act and what to do, and never shows a password."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.postgres import PostgresServer
from xmode_transfer.ledger import Ledger, files, open_ledger, postgres_connection, postgres_errors
from xmode_transfer.ledger.postgres import PostgresDatabase
from xmode_transfer.ledger.schema import connect
from xmode_transfer.ledger.tables import SCHEMA_VERSION
from xmode_transfer.model.errors import (
    ConfigError,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerMissing,
    LedgerReadOnly,
    LedgerRefused,
    LedgerTooNew,
    LedgerUnreachable,
    XmodeError,
)
from xmode_transfer.telemetry import SystemClock

SECRET = "s3cr3t/p@ss"
QUOTED = "s3cr3t%2Fp%40ss"


def opened(url: str, **how: Any) -> Ledger:
    return open_ledger(url, SystemClock(), **how)


def refusal(url: str, kind: type[XmodeError], match: str, hint: str, **how: Any) -> XmodeError:
    """The error of opening that URL, which says so and does not show the password."""
    with pytest.raises(kind, match=match) as caught:
        opened(url, **how).close()
    error = caught.value
    assert type(error) is kind
    assert hint in error.hint
    chain: BaseException | None = error
    while chain is not None:
        assert SECRET not in str(chain)
        assert QUOTED not in str(chain)
        chain = chain.__cause__
    assert SECRET not in str(error.log_context())
    return error


# --- The URL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://xmode:{SECRET}@host/db",  # the slash ends the host
        f"postgresql://xmode:{QUOTED}@host:port/db",
        f"postgresql://xmode:{QUOTED}@host/db?sslmod=require",
        f"postgresql://[{QUOTED}/db",
    ],
)
def test_an_invalid_url_is_not_repeated(url: str) -> None:
    refusal(url, ConfigError, "the URL", "postgresql://user@host/database")


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("patience=long", "patience=long is not a number"),
        ("timeout=-1", "timeout=-1 is not a number"),
        ("patience=nan", "patience=nan is not a number"),
        ("schema=a;b", "schema=a;b is not the name"),
    ],
)
def test_our_own_parameters_are_checked(query: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        postgres_connection.parse(f"postgresql://host/db?{query}")


def test_the_location_has_no_password_and_defaults_override_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PGHOST", "PGUSER", "PGPORT", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    parsed = postgres_connection.parse(
        f"postgresql://xmode:{QUOTED}@db1:6000,db2:6001/ledger?sslmode=verify-full&connect_timeout=3&patience=5"
        f"&sslpassword={QUOTED}&target_session_attrs=read-write"
    )
    assert parsed.where == "postgresql://xmode@db1:6000,db2:6001/ledger"
    assert SECRET not in repr(parsed)
    assert parsed.patience_seconds == 5
    given = psycopg.conninfo.conninfo_to_dict(parsed.conninfo)
    assert given["password"] == SECRET
    assert (given["connect_timeout"], given["sslmode"]) == ("3", "verify-full")
    assert (given["tcp_user_timeout"], given["keepalives_idle"]) == ("20000", "10")
    assert "patience" not in parsed.conninfo
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout" not in psycopg.conninfo.conninfo_to_dict(
        postgres_connection.parse("postgresql:///x").conninfo
    )
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert postgres_connection.parse("postgresql:///x").where == "postgresql://elsewhere/x"


def test_a_schema_separates_ledgers(postgres_server: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.split("/")[3].split("?")[0]
    postgres_server.execute('CREATE SCHEMA "Xmode"', database)
    postgres_server.execute("CREATE TABLE public.somebodys (x int)", database)
    for query in ("&schema=Xmode", "&options=-csearch_path%3D%22Xmode%22"):
        ledger = opened(f"{postgres_url}{query}")
        ledger.prove_writable()
        assert files.check(f"{postgres_url}{query}").is_sound
        assert ledger.snapshot().used_bytes > 10_000
        ledger.close()
    names = postgres_server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'Xmode'", database)
    assert ("leases",) in names
    refusal(f"{postgres_url}&schema=missing", LedgerMissing, "has no schema", "CREATE SCHEMA")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("xmode_transfer.ledger.postgres"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        connect("postgresql://host/db", create=True)
    assert "pip install 'xmode-transfer[cluster]'" in caught.value.hint


# --- The server does not let us in --------------------------------------------------------------------


def test_passwords_users_and_addresses_that_are_refused(own_postgres: PostgresServer) -> None:
    own_postgres.execute(f"CREATE ROLE xmode LOGIN PASSWORD '{SECRET}'")
    own_postgres.execute("CREATE ROLE nologin NOLOGIN")
    own_postgres.allow(
        "local all postgres trust", "local xmode xmode scram-sha-256", "local all nologin,nobody trust"
    )
    own_postgres.execute("SELECT pg_reload_conf()")

    def url(user: str, database: str = "xmode") -> str:
        return own_postgres.url(database, user)

    wrong = url("xmode:wrong")
    error = refusal(wrong, LedgerRefused, "refuses access to .*password authentication", "PGPASSFILE")
    assert (error.code, error.responsible, error.retryable) == ("ledger_refused", "vendor", False)
    refusal(url("xmode"), LedgerRefused, "no password supplied", "PGPASSWORD")
    refusal(url("nobody"), LedgerRefused, 'role "nobody" does not exist', "the user in `ledger:`")
    refusal(url("nologin"), LedgerRefused, "not permitted to log in", "the user in `ledger:`")
    refusal(url(f"xmode:{QUOTED}", "other"), LedgerRefused, "no pg_hba.conf entry", "pg_hba.conf")
    refusal(own_postgres.url("other"), LedgerMissing, 'database "other" does not exist', "createdb")


def test_the_password_may_come_from_the_environment_or_a_file(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_postgres.execute(f"CREATE ROLE xmode LOGIN PASSWORD '{SECRET}'")
    own_postgres.execute("ALTER DATABASE xmode OWNER TO xmode")
    own_postgres.allow("local all postgres trust", "local xmode xmode scram-sha-256")
    own_postgres.execute("SELECT pg_reload_conf()")
    url = own_postgres.url("xmode", "xmode")
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", SECRET)
        opened(url).close()
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:xmode:{SECRET}\n", encoding="utf-8")
    passwords.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSFILE", str(passwords))
        opened(url).close()
    services = tmp_path / "services"
    services.write_text(
        f"[ledger]\nhost={own_postgres.directory}\nuser=xmode\ndbname=xmode\npassword={SECRET}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    ledger = opened("postgresql:///?service=ledger")
    assert "service=ledger" in ledger._database.where
    assert SECRET not in ledger._database.where
    ledger.close()


def test_hosts_that_are_unknown_or_refuse(loopback_only: list[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        url = f"postgresql://xmode:{QUOTED}@127.0.0.1:{port}/db"
        error = refusal(url, LedgerUnreachable, r"cannot be reached: .*refused", "pg_isready")
        assert error.retryable
    refusal(f"postgresql:///db?host={tmp_path}", LedgerUnreachable, "cannot be reached", "pg_isready")


@pytest.mark.parametrize(
    ("number", "said", "kind"),
    [
        (-2, "Name or service not known", LedgerMissing),  # the URL is wrong
        (-3, "Temporary failure in name resolution", LedgerUnreachable),  # the name service is away
    ],
)
def test_an_unknown_host(
    monkeypatch: pytest.MonkeyPatch, number: int, said: str, kind: type[XmodeError]
) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(number, said)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = f"postgresql://xmode:{QUOTED}@nowhere.invalid/db"
    refusal(url, kind, "host of the ledger .* is not known", "name service")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("SSL error: certificate verify failed", LedgerRefused),
        ("server does not support SSL, but SSL was required", LedgerRefused),
        ("SSL SYSCALL error: EOF detected", postgres_errors.Away),  # it ended while the connection was made
        ("SSL connection has been closed unexpectedly", postgres_errors.Away),
        ("server closed the connection unexpectedly", postgres_errors.Away),
    ],
)
def test_a_server_that_ends_is_away_also_with_tls(said: str, kind: type[XmodeError]) -> None:
    error = postgres_errors.from_connecting(
        psycopg.OperationalError(f"connection failed: {said}"), "postgresql://db"
    )
    assert type(error) is kind


# --- TLS ----------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the test's own, and what it has signed."""

    def __init__(self, directory: Path, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.directory = directory
        self.file = directory / f"{name}.crt"
        made = self._certificate(self.name, self.key, [], is_authority=True)
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def sign(self, *hosts: x509.GeneralName) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        file = self.directory / "server.pem"
        file.write_bytes(
            self._certificate(name, key, list(hosts), is_authority=False).public_bytes(
                serialization.Encoding.PEM
            )
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _certificate(
        self, name: x509.Name, key: Any, hosts: list[x509.GeneralName], *, is_authority: bool
    ) -> x509.Certificate:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3_650))
            .not_valid_after(now + timedelta(days=36_500))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@contextmanager
def tls_in_front(server: PostgresServer, context: ssl.SSLContext | None) -> Iterator[int]:
    """A port on 127.0.0.1 that speaks PostgreSQL's TLS, which the server of the tests was built without, and
    hands on to it. Without a context it answers that it has none."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError, ValueError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            if client.recv(8)[4:] != b"\x04\xd2\x16\x2f":  # SSLRequest
                return
            if context is None:
                client.sendall(b"N")
                return
            client.sendall(b"S")
            with (
                context.wrap_socket(client, server_side=True) as protected,
                socket.socket(socket.AF_UNIX) as behind,
            ):
                behind.connect(str(server.directory / f".s.PGSQL.{server.port}"))
                back = threading.Thread(target=pass_on, args=(behind, protected), daemon=True)
                back.start()
                pass_on(protected, behind)
                back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                thread = threading.Thread(target=serve, args=(client,), daemon=True)
                threads.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(120)
        for thread in threads:
            thread.join(120)


def test_tls_follows_the_url(postgres_server: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    database = postgres_url.split("/")[3].split("?")[0]
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    localhost = x509.DNSName("localhost")

    def url(port: int, mode: str, root: Path | None = None, host: str = "localhost") -> str:
        trusted = f"&sslrootcert={root}" if root else ""
        return f"postgresql://postgres:{QUOTED}@{host}:{port}/{database}?sslmode={mode}{trusted}&gssencmode=disable"

    with tls_in_front(postgres_server, ours.sign(localhost)) as port:
        ledger = opened(url(port, "verify-full", ours.file))
        ledger.prove_writable()
        with ledger._database.reading() as connection:
            raw: Any = connection.connection.dbapi_connection
            assert raw.pgconn.ssl_in_use
        ledger.close()
        hint = "sslrootcert"
        refusal(url(port, "verify-full", others.file), LedgerRefused, "certificate verify failed", hint)
        refusal(url(port, "verify-full", tmp_path / "none"), LedgerRefused, "root certificate file", hint)
        other_name = url(port, "verify-full", ours.file, "127.0.0.1")
        refusal(other_name, LedgerRefused, "does not match host name", hint)
        opened(url(port, "verify-ca", ours.file, "127.0.0.1")).close()
    with tls_in_front(postgres_server, None) as port:
        refusal(url(port, "require"), LedgerRefused, "server does not support SSL", "sslmode")


# --- What is there is not what is wanted --------------------------------------------------------------


def test_a_database_in_another_encoding(make_database: Callable[..., str]) -> None:
    url = make_database(encoding="LATIN1", lc_collate="C", lc_ctype="C")
    refusal(url, ConfigError, "encoding LATIN1", "--encoding=UTF8")


def test_a_server_that_is_too_old(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda self: 120_019))
    refusal(postgres_url, ConfigError, "PostgreSQL 12, which is too old", "PostgreSQL 13")


def test_other_tables_are_refused_but_not_the_queue(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = postgres_url.split("/")[3].split("?")[0]
    with pytest.raises(LedgerError, match="There is no ledger at"):
        files.check(postgres_url)
    postgres_server.execute("CREATE TABLE invoices (x int)", database)
    refusal(postgres_url, LedgerCorrupt, r"is no ledger: it holds other tables \(invoices\)", "?schema=")
    postgres_server.execute("ALTER TABLE invoices RENAME TO procrastinate_jobs", database)
    opened(postgres_url).close()
    opened(postgres_url).close()


def test_a_ledger_of_a_later_version(postgres_server: PostgresServer, postgres_ledger: str) -> None:
    database = postgres_ledger.split("/")[3].split("?")[0]
    later = f"{int(SCHEMA_VERSION) + 1:04}"
    postgres_server.execute(f"UPDATE alembic_version SET version_num = '{later}'", database)
    refusal(postgres_ledger, LedgerTooNew, f"schema version {later}", "later version")


def test_a_user_without_privileges(postgres_server: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.split("/")[3].split("?")[0]
    postgres_server.execute(f"CREATE ROLE guest_{database} LOGIN")
    guest = postgres_server.url(database, f"guest_{database}")
    refusal(guest, LedgerReadOnly, "lack a privilege .*permission denied for schema public", "OWNER TO")
    opened(postgres_url).close()
    postgres_server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest_{database}", database)
    ledger = opened(guest)
    assert ledger.deliveries.find() == []
    with pytest.raises(LedgerReadOnly, match="permission denied for table"):
        ledger.prove_writable()
    ledger.close()
    postgres_server.execute(f"DROP OWNED BY guest_{database}", database)
    postgres_server.execute(f"DROP ROLE guest_{database}")


def test_a_read_only_server(postgres_server: PostgresServer, postgres_ledger: str) -> None:
    database = postgres_ledger.split("/")[3].split("?")[0]
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    ledger = opened(f"{postgres_ledger}&patience=0")
    assert ledger.deliveries.find() == []
    with pytest.raises(LedgerReadOnly, match="cannot be written") as caught:
        ledger.prove_writable()
    assert "target_session_attrs=read-write" in caught.value.hint
    assert type(caught.value) is LedgerReadOnly
    ledger.close()
    refusal(
        f"{postgres_ledger}&patience=0&target_session_attrs=read-write",
        LedgerReadOnly,
        "session is read-only",
        "primary",
    )


def test_a_standby_that_becomes_the_primary_is_waited_for(
    postgres_server: PostgresServer, postgres_ledger: str
) -> None:
    database = postgres_ledger.split("/")[3].split("?")[0]
    ledger = opened(postgres_ledger)
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()",
        database,
    )
    promoted = threading.Timer(
        0.5, postgres_server.execute, [f"ALTER DATABASE {database} RESET default_transaction_read_only"]
    )
    promoted.start()
    ledger.prove_writable()
    promoted.join()
    ledger.close()


def test_a_full_disk_a_full_server_and_a_damaged_table(
    postgres_ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server says it: it is not filled here."""
    ledger = opened(f"{postgres_ledger}&patience=0")
    try:
        for state, kind, match in (
            ("53100", LedgerFull, "no room left"),
            ("53300", LedgerUnreachable, "cannot be reached|no connection left"),
            ("XX001", LedgerCorrupt, "damaged"),
            ("55P03", LedgerLocked, "locked by another"),
            ("57P01", LedgerUnreachable, "cannot be reached"),
            ("42P01", LedgerError, "removed or replaced"),
            ("22021", LedgerError, "cannot hold a value"),
            ("0A000", LedgerError, "refused an operation"),
        ):
            raised = f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$"
            with pytest.raises(kind, match=match) as caught:
                ledger._database.write(lambda connection, said=raised: connection.exec_driver_sql(said))
            assert type(caught.value) is kind
            assert "so it is" in caught.value.message
            assert caught.value.hint
        ledger.prove_writable()
    finally:
        ledger.close()


def test_a_server_with_no_connection_left(postgres_server: PostgresServer, postgres_ledger: str) -> None:
    database = postgres_ledger.split("/")[3].split("?")[0]
    postgres_server.execute(f"CREATE ROLE few_{database} LOGIN CONNECTION LIMIT 0")
    url = postgres_server.url(database, f"few_{database}", patience=0)
    refusal(url, LedgerUnreachable, "no connection left", "CONNECTION LIMIT")
    postgres_server.execute(f"DROP ROLE few_{database}")


def test_orphaned_rows_and_unvalidated_constraints_are_found(
    postgres_server: PostgresServer, postgres_ledger: str
) -> None:
    database = postgres_ledger.split("/")[3].split("?")[0]
    assert files.check(postgres_ledger).is_sound
    change = "ALTER TABLE upload_parts"
    postgres_server.execute(f"{change} DROP CONSTRAINT fk_upload_parts_uploads", database)
    postgres_server.execute("INSERT INTO upload_parts VALUES (7, 1, 5, 'etag', 'sum')", database)
    postgres_server.execute(
        f"{change} ADD CONSTRAINT fk_upload_parts_uploads FOREIGN KEY (upload) REFERENCES uploads NOT VALID",
        database,
    )
    assert files.check(postgres_ledger).damage == (
        "upload_parts: the constraint fk_upload_parts_uploads was never validated",
        "upload_parts: a row refers to a row of uploads that is not there",
    )


def test_a_closed_ledger_refuses_calls(postgres_ledger: str) -> None:
    ledger = opened(postgres_ledger)
    assert isinstance(ledger._database, PostgresDatabase)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.deliveries.find()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.prove_writable()
