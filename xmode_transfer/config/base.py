"""What all configuration models share."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", 1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?\s*([A-Za-z]*)")


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add the text below each field to its property in the JSON Schema. Pydantic's own way
    (``use_attribute_docstrings``) would parse the source of every model whenever a command starts."""
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
                    key = model.model_fields[name].alias or name
                    schema["properties"][key]["description"] = inspect.cleandoc(words)


class Model(BaseModel):
    """A piece of configuration: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_describe)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean prefix?)"`` if one of the choices is close to the word, else nothing."""
    import difflib

    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {by_folded[close[0]]}?)" if close else ""


def check_slug(name: str) -> str:
    """Check a name of a customer, feed or channel. Raises ValueError."""
    if re.fullmatch(SLUG_PATTERN, name) is None:
        raise ValueError(
            f"{name!r} cannot be a name: use 1 to 63 small letters, digits and hyphens, "
            "a letter or a digit first"
        )
    return name


def parse_size(value: object) -> object:
    """Parse ``50MB`` (powers of 1,000) or ``16MiB`` (powers of 1,024); leave other types to pydantic."""
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

Slug = Annotated[str, AfterValidator(check_slug), Field(json_schema_extra={"pattern": SLUG_PATTERN})]
