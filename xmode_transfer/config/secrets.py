"""Secrets and the ledger's URL: where they are kept, and reading them. No error repeats what was written or
read. Secrets that were read are masked in every log line from then on."""

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from xmode_transfer import telemetry
from xmode_transfer.config.base import did_you_mean
from xmode_transfer.model.errors import ConfigError

DIRECTORY = "directory"  # the key of the config directory in pydantic's validation context
SECRET_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"
MAX_BYTES = 64 * 1024  # larger than any secret: a file with more is the wrong one
SQLITE, POSTGRESQL = "sqlite", "postgresql"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCHEMES = {SQLITE: SQLITE, POSTGRESQL: POSTGRESQL, "postgres": POSTGRESQL}
_FORMS = (
    "sqlite:///var/ledger.db, postgresql://user@host/database, or where such a URL is kept: "
    "env:NAME or file:PATH"
)
_MEANT = {"pgsql": POSTGRESQL, "sqlite3": SQLITE, "file": SQLITE}
_MASK = "***"
_SECRET_PARAMETERS = frozenset({"password", "sslpassword"})  # of libpq, in a URL


class SecretKind(StrEnum):
    ENV = "env"
    FILE = "file"


class SecretRef(NamedTuple):
    """A reference to a secret. ``name`` is an environment variable, or a file's absolute path."""

    kind: SecretKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def secret_ref(text: str, directory: str) -> SecretRef:
    """Parse ``env:NAME`` or ``file:PATH``; the path may be relative to ``directory``. Raises ValueError."""
    kind, separator, name = text.strip().partition(":")
    if not separator or kind not in list(SecretKind):
        raise ValueError(
            "write where the secret is kept, env:NAME or file:PATH; the secret itself does not belong here"
        )
    if kind == SecretKind.ENV and _VARIABLE.fullmatch(name) is None:
        raise ValueError("after env: comes a variable's name, of letters, digits and underscores")
    if not name:
        raise ValueError("after file: comes a path")
    if kind == SecretKind.FILE and not name.startswith("/") and directory:
        name = f"{directory}/{name}"
    return SecretRef(SecretKind(kind), name)


def _parse_secret(value: object, info: ValidationInfo) -> object:
    if isinstance(value, SecretRef):
        return value
    if not isinstance(value, str):
        raise ValueError("write where the secret is kept: env:NAME or file:PATH")
    return secret_ref(value, (info.context or {}).get(DIRECTORY, ""))


Secret = Annotated[
    SecretRef,
    BeforeValidator(_parse_secret),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SECRET_PATTERN}),
]


def backend(url: str) -> str:
    """Return ``sqlite`` or ``postgresql`` for a valid URL."""
    return _SCHEMES.get(url.partition("://")[0], "")


def check_ledger_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"this is not the URL of a ledger; write {_FORMS}")
    if scheme not in _SCHEMES:
        plain = scheme.partition("+")[0].lower()
        near = _MEANT.get(plain)
        meant = f" (did you mean {near}://?)" if near else did_you_mean(plain, (SQLITE, POSTGRESQL))
        raise ValueError(f"the ledger must be in SQLite or PostgreSQL; write {_FORMS}{meant}")
    if scheme != SQLITE:
        _check_server(url)
    elif rest and not rest.startswith("/"):
        raise ValueError(f"sqlite takes three slashes before a path (did you mean sqlite:///{rest}?)")
    elif not rest.strip("/") or ":memory:" in rest:
        raise ValueError("a ledger in memory would forget what was delivered; name a file")
    return url


def _check_server(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the URL cannot be read; write {_FORMS}") from None
    cut = parts.netloc.count("@") > 1 or "@" in parts.path or ("@" in parts.query and not parts.path)
    if parts.fragment or cut or any(letter.isspace() for letter in url):
        # A '#', '/' or '@' in a password ends it: another host would get half of the password.
        raise ValueError(
            "the URL cannot be read: it has no space in it, and in a user's name or a password each of "
            "@ / ? # % : is written as %40 %2F %3F %23 %25 %3A"
        )
    if "/" in parts.path.lstrip("/"):
        raise ValueError(
            "after the host comes one name, the database's; write postgresql://user@host/database"
        )


def passwords_of(url: str) -> tuple[str, ...]:
    """Return the passwords in the URL, as written."""
    if backend(url) == SQLITE:
        return ()
    pairs = (piece.partition("=") for piece in urlsplit(url).query.split("&"))
    of_query = [value for name, _, value in pairs if name.lower() in _SECRET_PARAMETERS]
    return tuple(password for password in (_userinfo(url)[1], *of_query) if password)


def shown(url: str) -> str:
    """Return the URL without passwords, for display; any text that is not a URL is masked completely."""
    if "://" not in url:
        return _MASK
    if backend(url) == SQLITE:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{POSTGRESQL}://{_MASK}"
    user, password = _userinfo(url)
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(
        piece for piece in parts.query.split("&") if piece.partition("=")[0].lower() not in _SECRET_PARAMETERS
    )
    netloc = f"{user}@{host}" if user or password else host
    safe = urlunsplit((parts.scheme, netloc, parts.path, query, ""))
    # urlunsplit drops the empty host of postgresql:///database
    return safe if "://" in safe else safe.replace(":", "://", 1)


def _userinfo(url: str) -> tuple[str, str]:
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return user, password


def ledger_location(text: str, directory: str) -> str | SecretRef:
    """Parse a ledger's URL, or a reference to one. Raises ValueError."""
    text = text.strip()
    if text.partition(":")[0] in list(SecretKind) and "://" not in text:
        return secret_ref(text, directory)
    return check_ledger_url(text)


def _parse_ledger(value: object, info: ValidationInfo) -> object:
    if isinstance(value, SecretRef):
        return value
    if not isinstance(value, str):
        raise ValueError(f"write {_FORMS}")
    location = ledger_location(value, (info.context or {}).get(DIRECTORY, ""))
    if isinstance(location, str) and passwords_of(location):
        raise ValueError(
            "the URL has a password in it, which does not belong here; write the URL into a file or a "
            "variable and name that (file:PATH, env:NAME), or leave the password to PGPASSFILE or PGPASSWORD"
        )
    return location


LedgerLocation = Annotated[
    str | SecretRef,
    BeforeValidator(_parse_ledger),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(sqlite:///|postgres(ql)?://|env:|file:).+$"}),
]


def read_secret(reference: SecretRef, key: str) -> str:
    """Read a secret and strip white space. ``key`` is like ``receipts.key``. Raises ConfigError."""
    secret = _read(reference, key)
    telemetry.protect(secret, *(line.strip() for line in secret.splitlines()))
    return secret


def ledger_url(location: str | SecretRef, key: str = "ledger") -> str:
    """Return the URL, read if it is a reference, and mask only its passwords. Raises ConfigError."""
    url = _read_url(location, key) if isinstance(location, SecretRef) else location
    for password in passwords_of(url):
        telemetry.protect(password, unquote(password))
    return url


def _read_url(reference: SecretRef, key: str) -> str:
    url = _read(reference, key)
    try:
        check_ledger_url(url)
    except ValueError as error:
        raise ConfigError(
            f"{key}: what {reference} holds cannot be used: {error}",
            hint="Put one line there: the URL, such as "
            "postgresql://xmode:PASSWORD@db.internal/xmode?sslmode=verify-full",
        ) from None
    if backend(url) == SQLITE and not url.startswith(f"{SQLITE}:////"):
        raise ConfigError(
            f"{key}: {reference} holds a relative path, and it is not known relative to what",
            hint="Write it with four slashes, from the root: sqlite:////var/lib/xmode-transfer/ledger.db",
        )
    return url


def _read(reference: SecretRef, key: str) -> str:
    if reference.kind is SecretKind.FILE:
        text = _read_file(reference.name, key)
    elif reference.name in os.environ:
        text = os.environ[reference.name]
    else:
        raise ConfigError(
            f"{key}: the environment variable {reference.name} is not set",
            hint="Set it for this process (systemd: EnvironmentFile=), or name a file with file:PATH",
        )
    secret = text.strip()
    if not secret:
        raise ConfigError(f"{key}: {reference} is empty", hint="Put the secret there")
    return secret


def _read_file(name: str, key: str) -> str:
    try:
        with Path(name).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{key}: {name} cannot be read: {error.strerror}",
            hint="The service's user must be able to read it, and no other user (chmod 400)",
        ) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{key}: {name} is too large to be a secret", hint="Name the right file")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {name} is not text", hint="Name the right file") from None
