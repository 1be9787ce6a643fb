"""The selection of a period's files: the patterns of ``include`` and ``exclude``.

A pattern without ``/`` matches a name in any directory; one with ``/`` matches the path relative to the
period's directory (``/totals.csv`` is the one at the top). ``include`` selects files. ``exclude`` removes
files, and directories with everything in them; it wins. An empty ``include`` selects everything. Patterns
are case-sensitive.

==========  ==========================================================================
``*``       any characters of one name, none included
``?``       one character of a name
``[abc]``   one of these; ``[!abc]`` one that is not; ``[a-z]`` a range
``**``      as a whole segment: any number of directories, none included
==========  ==========================================================================
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """Thread-safe."""

    _names: re.Pattern[str]
    _names_at_top: re.Pattern[str]
    _include_paths: re.Pattern[str] | None
    _exclude_names: re.Pattern[str] | None
    _exclude_paths: re.Pattern[str] | None
    _exclude_trees: re.Pattern[str] | None
    _marker: str | None

    @staticmethod
    def of(
        include: Iterable[str] = (), exclude: Iterable[str] = (), marker: str | None = None
    ) -> "Selection":
        """Compile the patterns. ``marker`` at the top of a period is never delivered. Raises ValueError."""
        includes = tuple(include) or ("*",)
        excludes = tuple(exclude)
        for pattern in (*includes, *excludes):
            check_pattern(pattern)
        of_names = _union(pattern for pattern in includes if "/" not in pattern) or _NOTHING
        not_of_names = _union(pattern for pattern in excludes if "/" not in pattern)
        trees = [pattern for pattern in excludes if pattern.endswith("/**") and pattern.strip("/*")]
        but_marker = "" if marker is None else rf"(?!{re.escape(marker)}\Z)"
        return Selection(
            _names=_compiled(_without(not_of_names) + of_names),
            _names_at_top=_compiled(but_marker + _without(not_of_names) + of_names),
            _include_paths=_maybe_compiled(_union(pattern for pattern in includes if "/" in pattern)),
            _exclude_names=_maybe_compiled(not_of_names),
            _exclude_paths=_maybe_compiled(_union(pattern for pattern in excludes if "/" in pattern)),
            _exclude_trees=_maybe_compiled(_union(pattern.removesuffix("/**") for pattern in trees)),
            _marker=marker,
        )

    def takes(self, path: str) -> bool:
        """Return whether to deliver a file; its path is relative to the period's directory."""
        directory, slash, name = path.rpartition("/")
        if slash and self.left_out_above(directory):
            return False
        return bool(self.chooser(directory + slash)(name))

    def chooser(self, directory: str) -> Callable[[str], object]:
        """Return ``takes`` for the names in a directory that is not excluded. It is relative to the period:
        empty, or with a ``/`` at its end."""
        names = self._names if directory else self._names_at_top
        if self._include_paths is None and self._exclude_paths is None:
            return names.fullmatch
        include, exclude = self._include_paths, self._exclude_paths

        def chosen(name: str) -> bool:
            path = directory + name
            if exclude is not None and exclude.fullmatch(path):
                return False
            if names.fullmatch(name):
                return True
            return (
                include is not None
                and include.fullmatch(path) is not None
                and (directory != "" or name != self._marker)
                and (self._exclude_names is None or not self._exclude_names.fullmatch(name))
            )

        return chosen

    def leaves_out(self, directory: str) -> bool:
        """Return whether a directory, relative to the period, is excluded if its parents are not."""
        path = directory.rstrip("/")
        name = path[path.rfind("/") + 1 :]
        if self._exclude_names is not None and self._exclude_names.fullmatch(name):
            return True
        if self._exclude_paths is not None and self._exclude_paths.fullmatch(path):
            return True
        return self._exclude_trees is not None and bool(self._exclude_trees.fullmatch(path))

    def left_out_above(self, directory: str) -> bool:
        """Return whether a directory or one of its parents is excluded."""
        end = directory.find("/")
        while end != -1:
            if self.leaves_out(directory[:end]):
                return True
            end = directory.find("/", end + 1)
        return self.leaves_out(directory)


def check_pattern(pattern: str) -> str:
    """Return the pattern. Raises ValueError if it could never match."""
    if not pattern:
        raise ValueError("an empty pattern matches nothing; remove it, or write * for every file")
    if pattern.endswith("/"):
        raise ValueError(f"{pattern!r} names a directory; write {pattern}** for everything below it")
    segments = pattern.removeprefix("/").split("/")
    if "" in segments or "." in segments or ".." in segments:
        raise ValueError(
            f"{pattern!r} can match nothing: empty, '.' and '..' segments are not part of a path"
        )
    return pattern


_NOTHING = "(?!)"


def _union(patterns: Iterable[str]) -> str | None:
    expressions = [_expression(pattern) for pattern in patterns]
    return f"(?:{'|'.join(expressions)})" if expressions else None


def _without(expression: str | None) -> str:
    return "" if expression is None else rf"(?!{expression}\Z)"


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL)


def _maybe_compiled(expression: str | None) -> re.Pattern[str] | None:
    return None if expression is None else _compiled(expression)


def _expression(pattern: str) -> str:
    if "/" not in pattern:
        return _segment(pattern, ".")  # names have no slash
    segments: list[str] = []
    for segment in pattern.removeprefix("/").split("/"):
        if segment != "**" or segments[-1:] != ["**"]:
            segments.append(segment)
    parts = []
    last = len(segments) - 1
    for position, segment in enumerate(segments):
        if segment == "**":
            parts.append(".+" if position == last else "(?:[^/]+/)*")
        else:
            parts.append(_segment(segment, "[^/]") + ("" if position == last else "/"))
    return "".join(parts)


_TOKEN = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*+\]|.", re.DOTALL)


def _segment(segment: str, one: str) -> str:
    """Return one segment as an expression with little backtracking, so that no pattern makes matching slow.
    ``one`` matches one character."""
    pieces = [""]
    for token in _TOKEN.findall(segment):
        if token[0] == "*":
            pieces.append("")
        elif token == "?":
            pieces[-1] += one
        elif token[0] == "[" and len(token) > 1:
            pieces[-1] += _class(token[1:-1])
        else:
            pieces[-1] += re.escape(token)
    head, *rest = pieces
    if not rest:
        return head
    *middle, tail = rest
    if not head and not middle:
        # `*.csv`, as most patterns: straight to the end, and one look back.
        return f"{one}*+(?<={tail})" if tail else f"{one}*+"
    # After a `*`, the first match of the next piece is as good as any later one: no backtracking.
    atomic = "".join(f"(?>{one}*?{piece})" for piece in middle if piece)
    return f"{head}{atomic}{one}*{tail}"


def _class(content: str) -> str:
    negated = content.startswith("!")
    content = content.removeprefix("!")
    members = []
    position = 0
    while position < len(content):
        first = content[position]
        if content[position + 1 : position + 2] == "-" and position + 2 < len(content):
            last = content[position + 2]
            if first <= last:
                members.append(f"{re.escape(first)}-{re.escape(last)}")
            position += 3
        else:
            members.append(re.escape(first))
            position += 1
    listed = "".join(members)
    if negated:
        return f"[^/{listed}]"
    return f"(?!/)[{listed}]" if listed else "(?!)"
