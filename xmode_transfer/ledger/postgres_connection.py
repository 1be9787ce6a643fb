"""Where the server is, from the ledger's URL: what libpq understands goes to libpq, the rest is ours.

https://www.postgresql.org/docs/current/libpq-connect.html
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, text

from xmode_transfer.model.errors import ConfigError

PATIENCE_SECONDS = 60.0
LOCK_SECONDS = 30.0
_HINT = (
    "Write it as postgresql://user@host/database?sslmode=verify-full. In a password %, @, :, / and ? are "
    "written %25, %40, %3A, %2F and %3F; better is to leave it to PGPASSWORD or PGPASSFILE."
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_DEFAULTS = {
    "connect_timeout": ("PGCONNECT_TIMEOUT", "10"),
    # A machine that vanishes says nothing. With these a connection to it is given up after 25 seconds.
    "keepalives_idle": ("", "10"),
    "keepalives_interval": ("", "5"),
    "keepalives_count": ("", "3"),
    "tcp_user_timeout": ("", "20000"),  # milliseconds
}


@dataclass(frozen=True, slots=True)
class Address:
    """``conninfo`` may hold a password; ``where`` never does."""

    where: str
    conninfo: str = field(repr=False)
    patience_seconds: float = PATIENCE_SECONDS
    lock_seconds: float = LOCK_SECONDS


def parse(url: str) -> Address:
    """Raises ConfigError for a URL that libpq does not understand. What libpq says of it is not repeated: it
    quotes the URL, and with it the password."""
    base, _, query = url.partition("?")
    ours: dict[str, str] = {}
    theirs = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("patience", "timeout", "schema"):
            ours[name] = value
        else:
            theirs.append((name, value))
    try:
        given = conninfo_to_dict(f"{base}?{urlencode(theirs, quote_via=quote)}" if theirs else base)
    except psycopg.Error:
        raise ConfigError(
            "ledger: the URL is not one that PostgreSQL's client library understands, or it has a parameter "
            f"that is none ({', '.join(name for name, _ in theirs) or 'it has no parameters'}).",
            hint=_HINT,
        ) from None
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    ports = parameters.get("port", "").split(",")
    if "@" in parameters.get("dbname", "") or not all(port.isdigit() or not port for port in ports):
        # What follows a / in a password is taken for the database, and its beginning for the port.
        raise ConfigError(
            "ledger: the URL has no number for a port, or an @ in the name of the database.",
            hint=_HINT,
        )
    if "schema" in ours:
        path = f'-csearch_path="{_schema(ours["schema"])}"'
        parameters["options"] = f"{parameters.get('options', '')} {path}".strip()
    for name, (variable, value) in _DEFAULTS.items():
        if name not in parameters and not os.environ.get(variable):
            parameters[name] = value
    parameters.setdefault("fallback_application_name", "xmode-transfer")
    parameters["client_encoding"] = "utf8"
    return Address(
        _where(parameters),
        make_conninfo("", **parameters),
        _seconds(ours, "patience", PATIENCE_SECONDS),
        _seconds(ours, "timeout", LOCK_SECONDS),
    )


def _where(parameters: dict[str, str]) -> str:
    def told(name: str, variable: str) -> str:
        return parameters.get(name) or os.environ.get(variable, "")

    hosts = (told("host", "PGHOST") or parameters.get("hostaddr", "")).split(",")
    ports = told("port", "PGPORT").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    query = ""
    if hosts[0].startswith("/"):  # a directory with a socket
        query = f"?host={hosts[0]}"
        hosts = [""]
    user, service = told("user", "PGUSER"), told("service", "PGSERVICE")
    if service:
        query += f"{'&' if query else '?'}service={service}"
    places = ",".join(
        f"{host}:{port}" if port and host else host for host, port in zip(hosts, ports, strict=False)
    )
    return f"postgresql://{user + '@' if user else ''}{places}/{told('dbname', 'PGDATABASE')}{query}"


def _schema(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"ledger: schema={text} is not the name of a schema.",
            hint="Write letters, digits and underscores, such as ?schema=xmode.",
        )
    return text


def _seconds(ours: dict[str, str], name: str, otherwise: float) -> float:
    try:
        value = float(ours.get(name, otherwise))
    except ValueError as error:
        raise ConfigError(f"ledger: {name}={ours[name]} is not a number of seconds.") from error
    if not 0 <= value <= 86_400:
        raise ConfigError(f"ledger: {name}={ours[name]} is not a number of seconds from 0 to 86400.")
    return value


_LIFE = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text"
_HOLD = f"SELECT {_LIFE} FROM (SELECT pg_advisory_lock_shared(%s)) AS held"
_IS_GONE = text(
    f"SELECT {_LIFE} = :presence AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' "
    "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid = CAST(:high AS bigint)::oid AND objid = CAST(:low AS bigint)::oid AND objsubid = 1)"
)


class Presence:
    """The connection that lives as long as this process does; made at the first claim."""

    def __init__(self, holder: str, connect: Callable[[], "psycopg.Connection[Any]"]) -> None:
        self.holder = holder
        self._connect = connect
        self._door = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._mark = ""

    def mark(self) -> str:
        """Makes sure that the lock is held; answers the mark of the server's life. Raises psycopg.Error."""
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
    """Whether the process that left this mark has ended."""
    number = _number(holder) % 2**64
    values = {"presence": presence, "high": number >> 32, "low": number % 2**32}
    return bool(connection.execute(_IS_GONE, values).scalar_one())


def _number(holder: str) -> int:
    digest = hashlib.sha256(f"xmode-transfer holder {holder}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
