"""The ledger's location: a URL, or a reference to one, because a URL may hold a password."""

from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from xmode_transfer.config.base import DIRECTORY, SecretKind, SecretRef, did_you_mean, secret_ref

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_SCHEMES = {SQLITE: SQLITE, POSTGRESQL: POSTGRESQL, "postgres": POSTGRESQL}
_FORMS = (
    "sqlite:///var/ledger.db, postgresql://user@host/database, or where such a URL is kept: "
    "env:NAME or file:PATH"
)
_MEANT = {"pgsql": POSTGRESQL, "sqlite3": SQLITE, "file": SQLITE}
_MASK = "***"
_SECRET_PARAMETERS = frozenset({"password", "sslpassword"})
"""Of libpq's parameters in a URL, those that are secrets."""


def backend(url: str) -> str:
    """``sqlite`` or ``postgresql``, of a URL that is in order."""
    return _SCHEMES.get(url.partition("://")[0], "")


def check_ledger_url(url: str) -> str:
    """The URL, if it names a ledger. Raises ValueError, which never repeats what was written: there may be a
    password in it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"this is not the URL of a ledger; write {_FORMS}")
    if scheme not in _SCHEMES:
        plain = scheme.partition("+")[0].lower()
        near = _MEANT.get(plain)
        meant = f" (did you mean {near}://?)" if near else did_you_mean(plain, (SQLITE, POSTGRESQL))
        raise ValueError(f"the ledger must be in SQLite or PostgreSQL; write {_FORMS}{meant}")
    if scheme == SQLITE:
        _check_file(rest)
    else:
        _check_server(url)
    return url


def _check_file(rest: str) -> None:
    if rest and not rest.startswith("/"):
        raise ValueError(f"sqlite takes three slashes before a path (did you mean sqlite:///{rest}?)")
    if not rest.strip("/") or ":memory:" in rest:
        raise ValueError("a ledger in memory would forget what was delivered; name a file")


def _check_server(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the URL cannot be read; write {_FORMS}") from None
    cut = parts.netloc.count("@") > 1 or "@" in parts.path or ("@" in parts.query and not parts.path)
    if parts.fragment or cut or any(letter.isspace() for letter in url):
        # '#', '/' and '@' of a password would end it: another host would be asked, with half of the password.
        raise ValueError(
            "the URL cannot be read: it has no space in it, and in a user's name or a password each of "
            "@ / ? # % : is written as %40 %2F %3F %23 %25 %3A"
        )
    if "/" in parts.path.lstrip("/"):
        raise ValueError(
            "after the host comes one name, the database's; write postgresql://user@host/database"
        )


def passwords_of(url: str) -> tuple[str, ...]:
    """The passwords in the URL, as they are written there."""
    if backend(url) == SQLITE:
        return ()
    pairs = (piece.partition("=") for piece in urlsplit(url).query.split("&"))
    of_query = [value for name, _, value in pairs if name.lower() in _SECRET_PARAMETERS]
    return tuple(password for password in (_userinfo(url)[1], *of_query) if password)


def shown(url: str) -> str:
    """The URL without passwords, for display. Works for any text: what is not a URL is masked completely."""
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
    told = urlunsplit((parts.scheme, netloc, parts.path, query, ""))
    # urlunsplit drops the empty host of postgresql:///database
    return told if "://" in told else told.replace(":", "://", 1)


def _userinfo(url: str) -> tuple[str, str]:
    userinfo, separator, _ = urlsplit(url).netloc.rpartition("@")
    if not separator:
        return "", ""
    user, _, password = userinfo.partition(":")
    return user, password


def ledger_place(text: str, directory: str) -> str | SecretRef:
    """What is written where a ledger is named: a URL, or a reference of which a relative path is relative to
    ``directory``. Raises ValueError, which never repeats what was written."""
    text = text.strip()
    if text.partition(":")[0] in list(SecretKind) and "://" not in text:
        return secret_ref(text, directory)
    return check_ledger_url(text)


def parse_ledger(value: object, info: ValidationInfo) -> object:
    """Raises ValueError for what names no ledger, and for a URL with a password: a secret does not stand in
    a file of the configuration."""
    if isinstance(value, SecretRef):
        return value
    if not isinstance(value, str):
        raise ValueError(f"write {_FORMS}")
    place = ledger_place(value, (info.context or {}).get(DIRECTORY, ""))
    if isinstance(place, str) and passwords_of(place):
        raise ValueError(
            "the URL has a password in it, which does not belong here; write the URL into a file or a "
            "variable and name that (file:PATH, env:NAME), or leave the password to PGPASSFILE or PGPASSWORD"
        )
    return place


def _written(value: Any) -> str:
    return str(value)


LedgerPlace = Annotated[
    str | SecretRef,
    BeforeValidator(parse_ledger),
    PlainSerializer(_written, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(sqlite:///|postgres(ql)?://|env:|file:).+$"}),
]
"""The type of the key that says where the ledger lies: a URL without a password, or a reference to a URL."""
