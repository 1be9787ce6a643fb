"""One file of the configuration: read, made into a model, its mistakes told with their places."""

import errno
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from xmode_transfer.adapters.config_files.sentences import dotted, sentence
from xmode_transfer.adapters.config_files.yaml_tree import MAX_BYTES, KeyPath, Tree, Unreadable, parse
from xmode_transfer.domain.config import Problem
from xmode_transfer.domain.config.base import Model
from xmode_transfer.domain.config.secret import DIRECTORY
from xmode_transfer.domain.keys import readable

AnyModel = TypeVar("AnyModel", bound=Model)


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
        """Something at a key's value that is no mistake for certain."""
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
        "; let the user that this runs as read it"
        if isinstance(error, PermissionError)
        else "; check its disk"
    )
    return f"cannot be read: {error.strerror or error}{hint}"
