"""pydantic's errors as plain sentences: what is wrong at a key and what to write instead."""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from xmode_transfer.domain.config.base import did_you_mean

_LONGEST = 500
_CREDENTIAL = re.compile(r"access_?key|secret|password|token|credential|aws_profile", re.IGNORECASE)

KeyPath = Sequence[str | int]


def dotted(path: KeyPath) -> str:
    """``destination.prefix``, ``feeds[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One error of ``model``'s validation in words, without the key."""
    told = _told(error, model)
    return told if len(told) <= _LONGEST else told[:_LONGEST] + "…"


def _told(error: ErrorDetails, model: type[BaseModel]) -> str:
    path, given, limits = error["loc"], error.get("input"), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown(path, model)
        case "missing":
            return f"is missing; write it like {_example(path, model)}"
        case "value_error":
            return str(limits["error"])
        case _ if given is None:
            field = _field(path, model)
            required = field is not None and field.is_required()
            what = f"write it like {_example(path, model)}" if required else "write one or remove the key"
            return f"has no value; {what}"
        case "string_type":
            return f"write one text here, not {_shape(given)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = ", ".join(_fields(path, model)) or _example(path, model)
            return f"write keys below it ({keys}), not {_shape(given)}"
        case "tuple_type":
            meant = f" (did you mean {_inline([given])}?)" if isinstance(given, str) else ""
            return f"write a list, not {_shape(given)}{meant}"
        case "float_parsing" | "float_type":
            return f"{given!r} is no number"
        case "greater_than":
            return f"is {given}; it must be more than {limits['gt']:g}"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return f"{given!r} is no whole number" if isinstance(given, str) else "write a whole number"
        case "bool_parsing" | "bool_type":
            return "write true or false"
        case "enum":
            choices = _choices(path, model)
            meant = did_you_mean(given, choices) if isinstance(given, str) else ""
            return f"write one of {', '.join(choices)}{meant}"
        case "greater_than_equal":
            return f"is {given}; the least is {limits['ge']:,}"
        case "less_than_equal":
            return f"is {given}; the most is {limits['le']:,}"
        case "too_short":
            return f"is an empty list; write at least one, like {_example(path, model)}"
        case "string_too_long":
            return f"is too long; the most is {limits['max_length']:,} characters"
        case _:
            return error["msg"]


def _unknown(path: KeyPath, model: type[BaseModel]) -> str:
    key, siblings = str(path[-1]), _fields(path[:-1], model)
    if _CREDENTIAL.search(key):
        return "unknown key; credentials do not belong here: AWS's own variables and files hold them"
    # A key of that name at another depth is nearer than one of a similar name at this depth.
    owners = [name for name, field in siblings.items() if any(key in m.model_fields for m in _models(field))]
    if len(path) == 1 and owners:
        meant = f" (did you mean {owners[0]}.{key}?)"
    elif len(path) > 1 and key in _fields((), model):
        meant = f" (did you mean {key} at the left margin?)"
    else:
        meant = did_you_mean(key, siblings)
    return f"unknown key{meant}"


def _shape(given: object) -> str:
    if isinstance(given, dict):
        return "keys of their own"
    return "a list" if isinstance(given, list) else "a text"


def _choices(path: KeyPath, model: type[BaseModel]) -> list[str]:
    field = _field([part for part in path if isinstance(part, str)], model)
    kinds = _types(field.annotation) if field is not None else []
    return [str(choice.value) for kind in kinds if issubclass(kind, Enum) for choice in kind]


def _example(path: KeyPath, model: type[BaseModel]) -> str:
    """``cron: 30 6 * * *``, as it may stand in the file."""
    field, key = _field(path, model), str(path[-1])
    example = field.examples[0] if field is not None and field.examples else "..."
    return f"{key}: {_inline(example)}" if isinstance(example, list | dict) else _lines({key: example})


def _inline(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).strip()


def _lines(value: dict[str, object]) -> str:
    return str(yaml.safe_dump(value, default_flow_style=False, width=10_000)).strip()


def _fields(path: KeyPath, model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys that may stand below a path. A customer's and a feed's name is not one: it is the file's."""
    owners = [model]
    named_freely = False
    for part in path:
        if named_freely:  # a name that the operator chose, like a feed's: below it, the keys of each
            named_freely = False
        elif isinstance(part, str):  # what lies in a list has the keys of what the list is made of
            chosen = [field for owner in owners for name, field in _own(owner).items() if name == part]
            owners = [inner for field in chosen for inner in _models(field)]
            named_freely = any(get_origin(field.annotation) is dict for field in chosen)
    found = {name: field for owner in owners for name, field in _own(owner).items()}
    if not path:
        found.pop("name", None)
    return found


def _own(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Its fields, by the keys that stand for them in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _field(path: KeyPath, model: type[BaseModel]) -> FieldInfo | None:
    return _fields(path[:-1], model).get(str(path[-1])) if path else None


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    return [kind for kind in _types(field.annotation) if issubclass(kind, BaseModel)]


def _types(annotation: Any) -> list[type[Any]]:
    """The classes in an annotation, unions taken apart."""
    arguments = get_args(annotation)
    if arguments:
        return [kind for argument in arguments for kind in _types(argument)]
    return [annotation] if isinstance(annotation, type) else []
