"""One file of the configuration: read, made into a model, its mistakes told with their places."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from xmode_transfer.adapters.config_files.sentences import dotted, sentence
from xmode_transfer.adapters.config_files.yaml_tree import KeyPath, Tree, Unreadable, parse
from xmode_transfer.domain.config import Problem
from xmode_transfer.domain.config.base import Model
from xmode_transfer.domain.config.secret import DIRECTORY

AnyModel = TypeVar("AnyModel", bound=Model)


class ConfigFile:
    """``name`` is relative to the config directory; ``data`` is None when the file cannot be read at all."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._directory = directory
        self.problems: list[Problem] = []
        self.data: dict[str, Any] | None = None
        self._tree: Tree | None = None
        self._raw = b""
        try:
            self._raw = (directory / name).read_bytes()
            self._tree = parse(self._raw)
        except OSError as error:
            self.problem((), f"cannot be read: {error.strerror}")
        except Unreadable as error:
            self._tell(*error.mistake)
        else:
            self.data = self._tree.data
            for mistake in self._tree.mistakes:
                self._tell(*mistake)

    def problem(self, path: KeyPath, message: str, *, of_key: bool = False) -> None:
        """Notes a problem at a key's value, or at the key itself."""
        if self._tree is None and self._raw:
            self._tree = parse(self._raw)
        place = self._tree.place(path, of_key=of_key) if self._tree is not None else (0, 0)
        self._tell(*place, path, message)

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
