"""Reads the secrets that the configuration refers to. What was read is masked in every log line from then
on, and no error repeats it."""

import os
from pathlib import Path

from xmode_transfer import telemetry
from xmode_transfer.domain.config import SecretRef
from xmode_transfer.domain.config.secret import SecretKind
from xmode_transfer.domain.errors import ConfigError

MAX_BYTES = 64 * 1024
"""More than any secret has; a larger file is not one."""


def read_secret(reference: SecretRef, key: str) -> str:
    """The secret, without white space at its ends. ``key`` is the configuration's, such as ``receipts.key``.

    Raises ConfigError when the variable is not set, or the file cannot be read, is empty or is no text.
    """
    text = _from_variable(reference, key) if reference.kind is SecretKind.ENV else _from_file(reference, key)
    secret = text.strip()
    if not secret:
        raise ConfigError(f"{key}: {reference} is empty", hint="Put the secret there")
    telemetry.protect(secret, *(line.strip() for line in secret.splitlines()))
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
        raise ConfigError(f"{key}: {reference.name} is no text", hint="Name the right file") from None
