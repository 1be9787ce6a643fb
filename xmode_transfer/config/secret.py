"""Where a secret is kept. The configuration says where, and never what: ``env:NAME`` or ``file:PATH``.

A reference is no secret and may be shown; ``config/secrets.py`` reads what it leads to.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

DIRECTORY = "directory"
"""The name in pydantic's validation context of the config directory, to which a relative path is relative."""
SECRET_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SecretKind(StrEnum):
    """What holds it."""

    ENV = "env"
    FILE = "file"


class SecretRef(NamedTuple):
    """``name`` is an environment variable's name, or a file's absolute path."""

    kind: SecretKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def parse_secret(value: object, info: ValidationInfo) -> object:
    """Raises ValueError, which never repeats what was written: it may be the secret itself."""
    if isinstance(value, SecretRef):
        return value
    if not isinstance(value, str):
        raise ValueError("write where the secret is kept: env:NAME or file:PATH")
    return secret_ref(value, (info.context or {}).get(DIRECTORY, ""))


def secret_ref(text: str, directory: str) -> SecretRef:
    """The reference that is written like ``env:NAME`` or ``file:PATH``; a relative path is relative to
    ``directory``. Raises ValueError, as ``parse_secret`` does."""
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


def _written(value: Any) -> str:
    return str(value)


Secret = Annotated[
    SecretRef,
    BeforeValidator(parse_secret),
    PlainSerializer(_written, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SECRET_PATTERN}),
]
"""The type of a key that leads to a secret."""
