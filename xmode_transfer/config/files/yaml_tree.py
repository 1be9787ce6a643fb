"""One YAML file as plain data in which every scalar stays text, with the place of each value for messages.

YAML would make ``NO`` a truth value, ``1:30`` a number and ``012345670123`` an octal one; here they stay what
was written, and the models decide on types. Only null (an empty value, ``~`` or ``null``) is told apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

MAX_BYTES = 256 * 1024
MAX_LINE = 4096  # also bounds how deep one file can nest without brackets, and with that the parser's stack
MAX_DEPTH = 16
MAX_VALUES = 10_000  # aliases written out

KeyPath = tuple[str | int, ...]

_PREFIX = "tag:yaml.org,2002:"
_NULL, _MERGE = _PREFIX + "null", _PREFIX + "merge"
_SCALARS = frozenset(_PREFIX + name for name in ("str", "null", "bool", "int", "float", "timestamp", "value"))
_TOO_DEEP = "nests deeper, or has more values, than any configuration; look at the aliases"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes every plain scalar for text, except null and ``<<``."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads it from the class
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (_NULL, _MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# A part of the parser's words, and ours.
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
    """Something that cannot stand in one of our files; line and column count from 1."""

    line: int
    column: int
    path: KeyPath
    message: str


class Unreadable(Exception):
    """The text is no YAML at all; ``mistake`` says where and why."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.mistake = Mistake(line, column, (), message)


@dataclass(slots=True)
class Tree:
    """A parsed file. ``data`` has dicts, lists, texts and None."""

    root: Any
    data: dict[str, Any] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: Sequence[str | int], *, of_key: bool = False) -> tuple[int, int]:
        """Line and column of the value at that path, or of its key; of what is above when it is not there."""
        node, mark = self.root, getattr(self.root, "start_mark", None)
        for depth, part in enumerate(path):
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == part), None)
                if found is None:
                    break
                key, node = found
                # Keys in lines of their own begin a line after the key that they belong to.
                block = isinstance(node, yaml.CollectionNode) and not node.flow_style
                mark = key.start_mark if block or (of_key and depth == len(path) - 1) else node.start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
            else:
                break
        return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def parse(raw: bytes) -> Tree:
    """Reads one file. Raises Unreadable when it is no YAML; lesser mistakes are collected in the tree."""
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
    """Refuses what would end the whole process: libyaml nests in C, and its stack has an end. Without
    brackets a file as small as ours cannot nest that deep."""
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
    told, mark = str(error.problem), error.problem_mark
    lines = text.split("\n")
    message = f"this is not YAML: {told}"
    found = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
    if found == "\t":
        message = "a tab; YAML is indented with spaces"
    elif "cannot start any token" in told:
        message = f"{found} has a meaning in YAML; put the value in quotes"
    else:
        for part, ours in _SYNTAX.items():
            if part in told:
                message = ours
                if "begins here" in ours and error.context_mark is not None:
                    mark = error.context_mark
                break
    return Unreadable(mark.line + 1, mark.column + 1, message) if mark else Unreadable(1, 1, message)


class _Reader:
    """Makes plain data of nodes and notes what cannot stand in our files."""

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
                    key_node,
                    (*path, key),
                    f"this key is already in line {first[key]}; remove one of them",
                )
            else:
                first[key] = key_node.start_mark.line + 1
                data[key] = self._value(value_node, (*path, key))
        return data

    def _value(self, node: Any, path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(path) > MAX_DEPTH:
            # An alias inside its own anchor ends here too.
            raise Unreadable(*_position(node), _TOO_DEEP)
        if isinstance(node, yaml.ScalarNode):
            if node.tag not in _SCALARS:
                self._note(
                    node, path, f"the tag {node.tag.removeprefix(_PREFIX)} is not used here; remove it"
                )
            return None if node.tag == _NULL else node.value
        if node.tag not in (_PREFIX + "map", _PREFIX + "seq"):
            self._note(node, path, f"the tag {node.tag.removeprefix(_PREFIX)} is not used here; remove it")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, position)) for position, item in enumerate(node.value)]
        return self.mapping(node, path)
