"""Connections to a server: its address, retries during an outage, a watchdog, and the liveness of
processes."""

import hashlib
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode
from weakref import WeakSet

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, text

from xmode_transfer import telemetry
from xmode_transfer.ledger.postgres_errors import AWAY, PASSING, Away, Contended, final
from xmode_transfer.model.errors import ConfigError, XmodeError

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
LOCK_SECONDS = 30.0
_HINT = (
    "Write it as postgresql://user@host/database?sslmode=verify-full. In a password %, @, :, / and ? are "
    "written %25, %40, %3A, %2F and %3F; PGPASSWORD or PGPASSFILE are better."
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_DEFAULTS = {
    "connect_timeout": ("PGCONNECT_TIMEOUT", "10"),
    # With these a connection to a machine that vanished is given up after 25 seconds.
    "keepalives_idle": ("", "10"),
    "keepalives_interval": ("", "5"),
    "keepalives_count": ("", "3"),
    "tcp_user_timeout": ("", "20000"),  # milliseconds
}


@dataclass(frozen=True, slots=True)
class Address:
    """``conninfo`` may contain a password; ``where`` never does."""

    where: str
    conninfo: str = field(repr=False)
    patience_seconds: float
    lock_seconds: float


def parse(url: str) -> Address:
    """Raise ConfigError for a URL that libpq does not understand, without its message, which may quote the
    password (parameters: https://www.postgresql.org/docs/current/libpq-connect.html)."""
    base, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    ours = {name: value for name, value in pairs if name in ("patience", "timeout", "schema")}
    theirs = [(name, value) for name, value in pairs if name not in ours]
    try:
        given = conninfo_to_dict(f"{base}?{urlencode(theirs, quote_via=quote)}" if theirs else base)
    except psycopg.Error:
        raise ConfigError(
            "ledger: PostgreSQL's client library does not understand the URL, or one of its parameters "
            f"({', '.join(name for name, _ in theirs) or 'it has no parameters'}).",
            hint=_HINT,
        ) from None
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    ports = parameters.get("port", "").split(",")
    if "@" in parameters.get("dbname", "") or not all(port.isdigit() or not port for port in ports):
        # libpq takes what follows a / in a password for the database, and its beginning for the port.
        raise ConfigError(
            "ledger: the URL has no number for a port, or an @ in the name of the database.", hint=_HINT
        )
    if "schema" in ours:
        if not _NAME.fullmatch(ours["schema"]):
            raise ConfigError(
                f"ledger: schema={ours['schema']} is not the name of a schema.",
                hint="Write letters, digits and underscores, such as ?schema=xmode.",
            )
        path = f'-csearch_path="{ours["schema"]}"'
        parameters["options"] = f"{parameters.get('options', '')} {path}".strip()
    for name, (variable, value) in _DEFAULTS.items():
        if name not in parameters and not os.environ.get(variable):
            parameters[name] = value
    parameters.setdefault("fallback_application_name", "xmode-transfer")
    parameters["client_encoding"] = "utf8"
    return Address(
        _where(parameters),
        make_conninfo("", **parameters),
        _seconds("patience", ours.get("patience", PATIENCE_SECONDS)),
        _seconds("timeout", ours.get("timeout", LOCK_SECONDS)),
    )


def _where(parameters: dict[str, str]) -> str:
    def given(name: str, variable: str) -> str:
        return parameters.get(name) or os.environ.get(variable, "")

    hosts = (given("host", "PGHOST") or parameters.get("hostaddr", "")).split(",")
    ports = given("port", "PGPORT").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    query = ""
    if hosts[0].startswith("/"):  # a directory with a socket
        query = f"?host={hosts[0]}"
        hosts = [""]
    user, service = given("user", "PGUSER"), given("service", "PGSERVICE")
    if service:
        query += f"{'&' if query else '?'}service={service}"
    addresses = ",".join(
        f"{host}:{port}" if port and host else host for host, port in zip(hosts, ports, strict=False)
    )
    return f"postgresql://{user + '@' if user else ''}{addresses}/{given('dbname', 'PGDATABASE')}{query}"


def _seconds(name: str, value: str | float) -> float:
    try:
        seconds = float(value)
    except ValueError as error:
        raise ConfigError(f"ledger: {name}={value} is not a number of seconds.") from error
    if not 0 <= seconds <= 86_400:
        raise ConfigError(f"ledger: {name}={value} is not a number of seconds from 0 to 86400.")
    return seconds


_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_GONE_SECONDS = 15.0
"""After a failure, a process that ends makes no other attempt for so long."""
ANSWER_SECONDS = 5.0
"""The time for each answer once the process is to end."""
_WATCH_SECONDS = 0.5


class ReconnectPolicy:
    """Retries after passing errors (``PASSING``), for ``seconds`` since the first. Logs once for all threads
    when the server is away, and when it is back."""

    def __init__(self, where: str, seconds: float) -> None:
        self._where = where
        self._seconds = seconds
        self._over = threading.Event()
        self._door = threading.Lock()
        self._away_since: float | None = None
        self._gone_since = -math.inf

    def run(self, attempt: Callable[[], T]) -> T:
        """Return the attempt's result. Raises its errors, a passing one that lasted as a final one."""
        began: float | None = None
        pause = 0.0  # a connection that broke while it was unused is replaced at once, and not reported
        while True:
            if self._over.is_set() and time.monotonic() - self._gone_since < _GONE_SECONDS:
                raise final(AWAY.error(self._where, "it does not answer"))
            try:
                answer = attempt()
            except PASSING as error:
                now = time.monotonic()
                is_first = began is None
                began = now if began is None else began
                waited = now - began
                # Also before the end a connection that broke while it was unused is replaced.
                if waited >= self._seconds or (self._over.is_set() and not is_first):
                    if isinstance(error, Away):
                        self.gone()
                    raise final(error, waited) from error
                if pause:
                    self._report(error, began)
                self._over.wait(min(pause, self._seconds - waited))
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            else:
                if self._away_since is not None:
                    self._report_recovery()
                return answer

    def end(self) -> None:
        """Allow one last attempt for each call, and none while the server is known to be gone."""
        self._over.set()

    def gone(self) -> None:
        """Record that the server did not answer."""
        self._gone_since = time.monotonic()

    def _report(self, error: XmodeError, since: float) -> None:
        with self._door:
            if isinstance(error, Contended) or self._away_since is not None:
                return
            self._away_since = since
        telemetry.log(telemetry.Event.LEDGER_UNAVAILABLE, ledger=self._where, **error.log_context())

    def _report_recovery(self) -> None:
        with self._door:
            since, self._away_since = self._away_since, None
        if since is not None:
            seconds = round(time.monotonic() - since, 1)
            telemetry.log(telemetry.Event.LEDGER_RECOVERED, ledger=self._where, seconds=seconds)


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that records since when it has waited for an answer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door = threading.Lock()
        self._since: float | None = None

    def wait(self, gen: PQGen[T], *arguments: Any, **named: Any) -> T:
        self._since = time.monotonic()
        try:
            return super().wait(gen, *arguments, **named)
        finally:
            with self._door:
                self._since = None

    def give_up(self, seconds: float) -> bool:
        """Break the connection, from any thread, if it has waited for so long: the waiting thread gets the
        driver's error. Return True if it did."""
        with self._door:  # the socket stays open meanwhile, so that its number is not reused
            if self._since is None or time.monotonic() - self._since < seconds:
                return False
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
            return True


class Watchdog:
    """Breaks connections that get no answer, once the process is to end."""

    def __init__(self, given_up: Callable[[], None]) -> None:
        """``given_up`` is called, in the watchdog's thread, for each broken connection."""
        self._given_up = given_up
        self._open: WeakSet[WatchedConnection] = WeakSet()
        self._door = threading.Lock()
        self._hurried = False
        self._ended = threading.Event()

    def watch(self, connection: WatchedConnection) -> None:
        with self._door:
            self._open.add(connection)

    def hurry(self) -> None:
        """Idempotent."""
        with self._door:
            if self._hurried or self._ended.is_set():
                return
            self._hurried = True
        threading.Thread(target=self._run, name="ledger-answers", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_WATCH_SECONDS):
            with self._door:
                connections = list(self._open)
            for connection in connections:
                if connection.give_up(ANSWER_SECONDS):
                    self._given_up()


_LIFE = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text"
_HOLD = f"SELECT {_LIFE} FROM (SELECT pg_advisory_lock_shared(%s)) AS held"
_IS_GONE = text(
    f"SELECT {_LIFE} = :presence AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' "
    "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid = CAST(:high AS bigint)::oid AND objid = CAST(:low AS bigint)::oid AND objsubid = 1)"
)


class Liveness:
    """A connection with an advisory lock that ends with this process; opened at the first claim."""

    def __init__(self, holder: str, connect: Callable[[], "psycopg.Connection[Any]"]) -> None:
        self.holder = holder
        self._connect = connect
        self._door = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._mark = ""

    def mark(self) -> str:
        """Make sure that the lock is held; return the mark of the server's life. Raises psycopg.Error."""
        with self._door:
            if self._connection is not None:
                try:
                    self._connection.execute("SELECT 1")
                except psycopg.Error:
                    self._drop()
                else:
                    return self._mark
            connection = self._connection = self._connect()
            try:
                row = connection.execute(_HOLD, [_number(self.holder)]).fetchone()
            except BaseException:
                self._drop()
                raise
            assert row is not None
            self._mark = str(row[0])
            return self._mark

    def close(self) -> None:
        with self._door:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_gone(connection: Connection, holder: str, presence: str) -> bool:
    number = _number(holder) % 2**64
    values = {"presence": presence, "high": number >> 32, "low": number % 2**32}
    return bool(connection.execute(_IS_GONE, values).scalar_one())


def _number(holder: str) -> int:
    digest = hashlib.sha256(f"xmode-transfer holder {holder}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
