"""One file of the configuration: read, made into a model, its mistakes told with their places."""

import errno
import os
import re
import stat
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from xmode_transfer.config import Problem
from xmode_transfer.config.base import DIRECTORY, Model, did_you_mean
from xmode_transfer.config.files.yaml_tree import MAX_BYTES, KeyPath, Tree, Unreadable, parse
from xmode_transfer.model.keys import readable

AnyModel = TypeVar("AnyModel", bound=Model)

_LONGEST, _SHORT = 500, 40
_CREDENTIAL = re.compile(r"access_?key|secret|password|token|credential|aws_profile", re.IGNORECASE)


class ConfigFile:
    """``name`` is relative to the config directory; ``data`` is None when the file cannot be read at all."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = readable(name)
        self._directory = directory
        self.problems: list[Problem] = []
        self.data: dict[str, Any] | None = None
        self._tree: Tree | None = None
        self._raw = b""
        try:
            self._raw = _content(directory / name)
            self._tree = parse(self._raw)
        except OSError as error:
            self.problem((), _why(directory / name, error))
        except Unreadable as error:
            self._tell(*error.mistake)
        else:
            self.data = self._tree.data
            for mistake in self._tree.mistakes:
                self._tell(*mistake)

    @property
    def text(self) -> str:
        """What stands in it, as far as it can be read."""
        return self._raw.decode("utf-8", "replace")

    def problem(self, path: KeyPath, message: str, *, of_key: bool = False) -> None:
        """Notes a problem at a key's value, or at the key itself."""
        if self._tree is None and self._raw:
            self._tree = parse(self._raw)
        place = self._tree.place(path, of_key=of_key) if self._tree is not None else (0, 0)
        self._tell(*place, path, message)

    def hint(self, path: KeyPath, message: str) -> Problem:
        """A hint at a key's value, which may be correct."""
        return Problem(self.name, *self.place(path), dotted(path), message)

    def place(self, path: KeyPath) -> tuple[int, int]:
        """Line and column, from 1, of the value at a key's path."""
        if self._tree is None:
            self._tree = parse(self._raw)
        return self._tree.place(path)

    def model(self, model: type[AnyModel], **extra: str) -> AnyModel | None:
        """The file as a model, with ``extra`` beside what it says; None, with its problems told, if wrong."""
        try:
            valid = model.model_validate(
                {**(self.data or {}), **extra}, context={DIRECTORY: str(self._directory)}
            )
        except ValidationError as errors:
            for error in errors.errors(include_url=False):
                if error["type"] == "too_short" and error["input"]:
                    continue  # what is in the list is wrong, which is told already
                told = sentence(error, model)
                if "name" in extra and error["loc"] == ("name",):  # the file's own name has no place in it
                    self._tell(0, 0, (), told)
                else:
                    self.problem(error["loc"], told, of_key=error["type"] == "extra_forbidden")
            return None
        if self.problems:
            return None
        # Thousands of files are in order; their trees would only keep memory. A late problem parses again.
        self._tree = None
        self.data = {}
        return valid

    def _tell(self, line: int, column: int, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(self.name, line, column, dotted(path), message))


class _NoFile(OSError):
    """Something else has the name of a file."""


def _content(path: Path) -> bytes:
    """What stands in a file, or a little more than a file of ours may have. What is no file is never opened:
    a pipe would keep us waiting. Raises OSError."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        # Without O_NONBLOCK a pipe that takes the file's place between the two looks would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                return file.read(MAX_BYTES + 1)
    kind = (
        "a directory" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a socket or a device"
    )
    raise _NoFile(f"is {kind}, not a file; remove it, or put a file in its place")


def _why(path: Path, error: OSError) -> str:
    """Why a file cannot be read, and what to do."""
    if isinstance(error, _NoFile):
        return str(error)
    if error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself; remove it, or put the file in its place"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if path.is_symlink():
            return "is a symbolic link that leads nowhere; remove it, or restore the file that it leads to"
        return "was there a moment ago, and is gone"
    hint = (
        "; give the user that this runs as read access"
        if isinstance(error, PermissionError)
        else "; check its disk"
    )
    return f"cannot be read: {error.strerror or error}{hint}"


# --- pydantic's errors as plain sentences: what is wrong at a key and what to write instead


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
        case "enum":
            choices = _choices(path, model)
            meant = did_you_mean(given, choices) if isinstance(given, str) else ""
            return f"write one of {', '.join(choices)}{meant}"
        case "too_short":
            field = _field(path, model)
            remove = "" if field is None or field.is_required() else ", or remove the key"
            return f"is an empty list; write at least one, like {_example(path, model)}{remove}"
        case _:
            told = error["msg"].removeprefix("Input ")
            return f"{told}, not {given!r}" if len(str(given)) < _SHORT else told


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
    field = _field(tuple(part for part in path if isinstance(part, str)), model)
    kinds = _types(field.annotation) if field is not None else []
    return [str(choice.value) for kind in kinds if issubclass(kind, Enum) for choice in kind]


def _example(path: KeyPath, model: type[BaseModel]) -> str:
    """``cron: 30 6 * * *``, as written in the file."""
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
