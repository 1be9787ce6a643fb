"""What all configuration models share: frozen, strict about keys, and words for mistakes."""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationInfo, WithJsonSchema

SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?\s*([A-Za-z]*)")


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Gives each property of a JSON Schema the text that stands below its field.

    Pydantic can do so by itself (``use_attribute_docstrings``), but then reads and parses the source of every
    model whenever a command starts, though only ``config schema`` wants to know.
    """
    for name, text in _texts_below_fields(model):
        field = model.model_fields[name]
        schema["properties"][field.alias or name]["description"] = text


def _texts_below_fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    import ast
    import inspect
    from itertools import pairwise
    from textwrap import dedent

    for above in reversed(model.__mro__):
        if not issubclass(above, BaseModel) or above is BaseModel:
            continue
        (found,) = ast.parse(dedent(inspect.getsource(above))).body
        assert isinstance(found, ast.ClassDef)
        for field, text in pairwise(found.body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ) if name in model.model_fields:
                    yield name, inspect.cleandoc(words)


class Model(BaseModel):
    """A piece of configuration: it cannot be changed, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_describe)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``" (did you mean prefix?)"`` when one of the choices is close to the word, else nothing."""
    import difflib

    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {by_folded[close[0]]}?)" if close else ""


def check_slug(name: str) -> str:
    """A customer's or a feed's name, which is its file's name. Raises ValueError with the rule."""
    if re.fullmatch(SLUG_PATTERN, name) is None:
        raise ValueError(
            f"{name!r} cannot be a name: use 1 to 63 small letters, digits and hyphens, "
            "a letter or a digit first"
        )
    return name


def parse_size(value: object) -> object:
    """Bytes from ``50MB`` (powers of 1,000) or ``16MiB`` (powers of 1,024); other types pass to pydantic."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write a number of bytes, or like 50MB or 16MiB")
    whole, fraction, unit = match[1], match[2] or "", match[3].lower()
    if unit not in _UNITS:
        raise ValueError(f"{match[3]!r} is not a unit; use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    scaled = int(whole + fraction) * _UNITS[unit]
    size, rest = divmod(scaled, 10 ** len(fraction))
    if rest:
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return size


ByteCount = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*([KkMmGgTt]?[Bb]|[KkMmGgTt][Ii][Bb])?$"},
            ]
        }
    ),
]


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
