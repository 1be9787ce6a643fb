"""Parse one file of the configuration, and describe its mistakes in sentences, with line and column.

YAML would read ``NO`` as a truth value, ``1:30`` as a number and ``012345670123`` as an octal one. Here every
scalar but null stays text, and the models decide on types.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from xmode_transfer.config.base import did_you_mean

MAX_BYTES = 256 * 1024
MAX_LINE = 4096  # also bounds the nesting without brackets, and so the parser's stack
MAX_DEPTH = 16
MAX_VALUES = 10_000  # with aliases expanded

KeyPath = tuple[str | int, ...]

_LONGEST, _SHORT = 500, 40
_CREDENTIAL = re.compile(r"access_?key|secret|password|token|credential|aws_profile", re.IGNORECASE)

_PREFIX = "tag:yaml.org,2002:"
_NULL, _MERGE = _PREFIX + "null", _PREFIX + "merge"
_SCALARS = frozenset(_PREFIX + name for name in ("str", "null", "bool", "int", "float", "timestamp", "value"))
_COLLECTIONS = (_PREFIX + "map", _PREFIX + "seq")
_TOO_DEEP = "nests deeper, or has more values, than any configuration; look at the aliases"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Keeps every plain scalar as text, except null and ``<<``."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads it from the class
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (_NULL, _MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# By a part of the parser's message.
_SYNTAX = {
    "mapping values are not allowed": (
        "a colon where no key is allowed; fix the indentation or put the value in quotes"
    ),
    "expected alphabetic or numeric": "* and & have a meaning in YAML; put a text that begins so in quotes",
    "undefined alias": "* begins an alias in YAML, and no anchor has this name; put the text in quotes",
    "unexpected end of stream": "the quotation mark that begins here is never closed",
    "expected ',' or ']'": "the list that begins here with [ lacks a comma or its ]",
    "expected ',' or '}'": "what begins here with { lacks a comma or its }",
    "expected node content": "a value is missing here, or a closing ] or }",
    "another document": "one file holds one document; remove this --- and what follows it",
    "expected key": "a key is missing here; fix the indentation",
    "expected '-' indicator": "a line of the list lacks its -, or its depth is wrong; fix the indentation",
    "expected <block end>": "this does not fit the lines above; fix the indentation",
    "expected ':'": "a line without a colon; every line here is written key: value",
}


class Mistake(NamedTuple):
    line: int
    column: int
    path: KeyPath
    message: str


class Unreadable(Exception):
    """The text is not YAML; ``mistake`` has the position and the reason."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.mistake = Mistake(line, column, (), message)


@dataclass(slots=True)
class Tree:
    """A parsed file. ``data`` has dicts, lists, texts and None."""

    root: Any
    data: dict[str, Any] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def position(self, path: KeyPath, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at that path, or of its key; without one, of its parent."""
        node, mark = self.root, getattr(self.root, "start_mark", None)
        for depth, part in enumerate(path):
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == part), None)
                if found is None:
                    break
                key, node = found
                # A block of keys begins a line after its own key.
                block = isinstance(node, yaml.CollectionNode) and not node.flow_style
                mark = key.start_mark if block or (of_key and depth == len(path) - 1) else node.start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
            else:
                break
        return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)

    def named(self, path: KeyPath) -> KeyPath:
        """Return the path with keys instead of positions in mappings."""
        data: Any = self.data
        named: list[str | int] = []
        for part in path:
            named.append(list(data)[part] if isinstance(data, dict) and isinstance(part, int) else part)
            data = data.get(named[-1]) if isinstance(data, dict) else None
        return tuple(named)


def parse(raw: bytes) -> Tree:
    """Parse one file; the tree has its mistakes. Raises Unreadable if it is not YAML."""
    text = _text(raw)
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _unreadable(error, text) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable(1, 1, f"this is not YAML: {error}") from None
    tree = Tree(root)
    if root is None or root.tag == _NULL:
        tree.root = None
    elif not isinstance(root, yaml.MappingNode):
        raise Unreadable(*_position(root), "the file has no keys; it is written in lines of key: value")
    else:
        tree.data = _Reader(tree.mistakes).mapping(root, ())
    return tree


def _check_depth(text: str) -> None:
    """Refuse nesting that would overflow libyaml's stack, which needs brackets in a file of this size."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH + 1:
                raise Unreadable(*_position(event), _TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _text(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise Unreadable(1, 1, f"the file is too large; one of ours has {MAX_BYTES:,} bytes at most")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        raise Unreadable(
            *_end_of(before), f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None
    bad = _UNPRINTABLE.search(text)
    if bad:
        raise Unreadable(
            *_end_of(text[: bad.start()]), f"a control character (U+{ord(bad[0]):04X}); remove it"
        )
    if len(text) > MAX_LINE:
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > MAX_LINE:
                raise Unreadable(number, MAX_LINE, f"the line is longer than {MAX_LINE:,} characters")
    return text


def _end_of(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _position(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _unreadable(error: yaml.MarkedYAMLError, text: str) -> Unreadable:
    problem, mark = str(error.problem), error.problem_mark
    lines = text.split("\n")
    message = f"this is not YAML: {problem}"
    found = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
    if found == "\t":
        message = "a tab; YAML is indented with spaces"
    elif "cannot start any token" in problem:
        message = f"{found} has a meaning in YAML; put the value in quotes"
    else:
        for part, ours in _SYNTAX.items():
            if part in problem:
                message = ours
                if "begins here" in ours and error.context_mark is not None:
                    mark = error.context_mark
                break
    return Unreadable(mark.line + 1, mark.column + 1, message) if mark else Unreadable(1, 1, message)


class _Reader:
    """Converts nodes to plain data and collects mistakes."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self._mistakes = mistakes
        self._values = 0

    def _note(self, node: Any, path: KeyPath, message: str) -> None:
        self._mistakes.append(Mistake(*_position(node), path, message))

    def mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(key_node, path, "a key is one word, not a list or keys of its own")
            elif key_node.tag == _MERGE:
                self._note(key_node, path, "<< (merging) is not used here; write the keys out")
            elif key in data:
                self._note(
                    key_node, (*path, key), f"this key is already in line {first[key]}; remove one of them"
                )
            else:
                first[key] = key_node.start_mark.line + 1
                data[key] = self._value(value_node, (*path, key))
        return data

    def _value(self, node: Any, path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(path) > MAX_DEPTH:
            # Also stops an alias inside its own anchor.
            raise Unreadable(*_position(node), _TOO_DEEP)
        is_scalar = isinstance(node, yaml.ScalarNode)
        if node.tag not in (_SCALARS if is_scalar else _COLLECTIONS):
            self._note(node, path, f"the tag {node.tag.removeprefix(_PREFIX)} is not used here; remove it")
        if is_scalar:
            return None if node.tag == _NULL else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, position)) for position, item in enumerate(node.value)]
        return self.mapping(node, path)


def dotted(path: KeyPath) -> str:
    """Return ``destination.prefix`` or ``feeds[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return one error of ``model``'s validation as a sentence without the key."""
    text = _sentence(error, model)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
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
            field = _field(tuple(part for part in path if isinstance(part, str)), model)
            kinds = _types(field.annotation) if field is not None else []
            choices = [str(choice.value) for kind in kinds if issubclass(kind, Enum) for choice in kind]
            meant = did_you_mean(given, choices) if isinstance(given, str) else ""
            return f"write one of {', '.join(choices)}{meant}"
        case "too_short":
            field = _field(path, model)
            remove = "" if field is None or field.is_required() else ", or remove the key"
            return f"is an empty list; write at least one, like {_example(path, model)}{remove}"
        case _:
            text = error["msg"].removeprefix("Input ")
            return f"{text}, not {given!r}" if len(str(given)) < _SHORT else text


def _unknown(path: KeyPath, model: type[BaseModel]) -> str:
    key, siblings = str(path[-1]), _fields(path[:-1], model)
    if _CREDENTIAL.search(key):
        return "unknown key; credentials do not belong here: AWS's own variables and files hold them"
    # The same name at another depth is a better suggestion than a similar name at this one.
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


def _example(path: KeyPath, model: type[BaseModel]) -> str:
    """Return ``cron: 30 6 * * *``, as written in the file."""
    field, key = _field(path, model), str(path[-1])
    example = field.examples[0] if field is not None and field.examples else "..."
    if isinstance(example, list | dict):
        return f"{key}: {_inline(example)}"
    return _inline({key: example}, flow=False)


def _inline(value: object, *, flow: bool = True) -> str:
    return str(yaml.safe_dump(value, default_flow_style=flow, width=10_000)).strip()


def _fields(path: KeyPath, model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the keys that are allowed below a path. The name of a customer or feed is its file's."""
    owners = [model]
    named_freely = False
    for part in path:
        if named_freely:  # the part is a name that the operator chose, such as a feed's
            named_freely = False
        elif isinstance(part, str):  # the index of a list does not change the keys
            chosen = [field for owner in owners for name, field in _own(owner).items() if name == part]
            owners = [inner for field in chosen for inner in _models(field)]
            named_freely = any(get_origin(field.annotation) is dict for field in chosen)
    found = {name: field for owner in owners for name, field in _own(owner).items()}
    if not path:
        found.pop("name", None)
    return found


def _own(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by their keys in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _field(path: KeyPath, model: type[BaseModel]) -> FieldInfo | None:
    return _fields(path[:-1], model).get(str(path[-1])) if path else None


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    return [kind for kind in _types(field.annotation) if issubclass(kind, BaseModel)]


def _types(annotation: Any) -> list[type[Any]]:
    arguments = get_args(annotation)
    if arguments:
        return [kind for argument in arguments for kind in _types(argument)]
    return [annotation] if isinstance(annotation, type) else []
