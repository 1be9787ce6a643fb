"""Reads the secrets that the configuration refers to. What was read is masked in every log line from then
on, and no error repeats it."""

import os
from pathlib import Path
from urllib.parse import unquote

from xmode_transfer import telemetry
from xmode_transfer.config import SecretRef
from xmode_transfer.config.base import SecretKind
from xmode_transfer.config.ledger_url import SQLITE, backend, check_ledger_url, passwords_of
from xmode_transfer.model.errors import ConfigError

MAX_BYTES = 64 * 1024
"""More than any secret has; a larger file is not one."""
_EXAMPLE = "postgresql://xmode:PASSWORD@db.internal/xmode?sslmode=verify-full"


def read_secret(reference: SecretRef, key: str) -> str:
    """The secret, without white space at its ends. ``key`` is the configuration's, such as ``receipts.key``.

    Raises ConfigError when the variable is not set, or the file cannot be read, is empty or is no text.
    """
    secret = _read(reference, key)
    telemetry.protect(secret, *(line.strip() for line in secret.splitlines()))
    return secret


def ledger_url(place: str | SecretRef, key: str = "ledger") -> str:
    """The ledger's URL, read from where the configuration says it is kept. Of what was read only the password
    is masked from then on: the rest says where the ledger is.

    Raises ConfigError as ``read_secret`` does, and for what is no URL of a ledger.
    """
    url = _kept_url(place, key) if isinstance(place, SecretRef) else place
    for password in passwords_of(url):
        telemetry.protect(password, unquote(password))
    return url


def _kept_url(reference: SecretRef, key: str) -> str:
    url = _read(reference, key)
    try:
        check_ledger_url(url)
    except ValueError as error:
        raise ConfigError(
            f"{key}: what {reference} holds cannot be used: {error}",
            hint=f"Put one line there: the URL, such as {_EXAMPLE}",
        ) from None
    if backend(url) == SQLITE and not url.startswith(f"{SQLITE}:////"):
        raise ConfigError(
            f"{key}: {reference} holds a relative path, and nobody can say to what",
            hint="Write it with four slashes, from the root: sqlite:////var/lib/xmode-transfer/ledger.db",
        )
    return url


def _read(reference: SecretRef, key: str) -> str:
    text = _from_variable(reference, key) if reference.kind is SecretKind.ENV else _from_file(reference, key)
    secret = text.strip()
    if not secret:
        raise ConfigError(f"{key}: {reference} is empty", hint="Put the secret there")
    return secret


def _from_variable(reference: SecretRef, key: str) -> str:
    found = os.environ.get(reference.name)
    if found is None:
        raise ConfigError(
            f"{key}: the environment variable {reference.name} is not set",
            hint="Set it for this process (systemd: EnvironmentFile=), or name a file with file:PATH",
        )
    return found


def _from_file(reference: SecretRef, key: str) -> str:
    try:
        with Path(reference.name).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{key}: {reference.name} cannot be read: {error.strerror}",
            hint="The service's user must be able to read it; nobody else should (chmod 400)",
        ) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{key}: {reference.name} is too large to be a secret", hint="Name the right file")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {reference.name} is not text", hint="Name the right file") from None
