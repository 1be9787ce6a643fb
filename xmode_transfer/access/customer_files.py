"""Customers' files as they are added and turned on; each is replaced whole, never half."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from xmode_transfer.access.kit import customer_file
from xmode_transfer.config import Customer, CustomerState
from xmode_transfer.config.cross_check import Claim
from xmode_transfer.config.files import CUSTOMERS, claim_of, customer_names, survey
from xmode_transfer.config.files.file import ConfigFile
from xmode_transfer.model.errors import ConfigError


class CustomerFiles:
    """The customers/ directory of a configuration."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def claims(self) -> Sequence[Claim]:
        """What every customer claims: retired ones, and those whose files have mistakes, too."""
        files = ((name, self._file(name)) for name in customer_names(self._directory))
        return [claim_of(name, file.data) for name, file in files if file.data is not None]

    def illegible(self, text: str) -> str | None:
        """The name of a customer whose file is no YAML at all and has this text in it, whatever its capitals:
        nobody can tell what such a file claims."""
        for name in customer_names(self._directory):
            file = self._file(name)
            if file.data is None and text.casefold() in file.text.casefold():
                return name
        return None

    def add(self, customer: Customer) -> str:
        """Writes the customer's new file and reads the whole configuration anew. Answers the file's name.

        Raises ConfigError when there is such a file already, when it cannot be written, and when the
        configuration with it is not what was meant: then the file is gone again.
        """
        path = self._path(customer.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _partial(path, customer_file(customer)) as partial:
                os.link(partial, path)  # fails when the name is taken, unlike a rename
        except FileExistsError:
            raise ConfigError(
                f"there is a file {CUSTOMERS}/{customer.name}.yaml already; it is left as it is",
                hint="give the customer another name with --name",
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        configuration, _ = survey(self._directory)
        if configuration.customers.get(customer.name) != customer:
            problems = tuple(map(str, configuration.broken.get(customer.name, ())))
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{customer.name} does not fit into the configuration; its file was not kept",
                hint="somebody else may have changed the configuration meanwhile: try again",
                problems=problems,
            )
        return f"{CUSTOMERS}/{customer.name}.yaml"

    def set_state(self, customer: Customer, state: CustomerState) -> None:
        """Changes the one word behind ``state:`` in the customer's file; all else, comments too, stays.
        Raises ConfigError when the file does not allow that."""
        path = self._path(customer.name)
        file = self._file(customer.name)
        if file.data is None or file.data.get("state") != str(customer.state):
            raise ConfigError(
                f"{CUSTOMERS}/{customer.name}.yaml does not say `state: {customer.state}` (any more)",
                hint="somebody else may have changed it meanwhile: look at it, and try again",
            )
        line, column = file.place(("state",))
        before = path.read_bytes()
        lines = before.decode("utf-8-sig").splitlines(keepends=True)
        head, rest = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
        quote = rest[0] if rest[0] in "\"'" else ""
        written = f"{quote}{customer.state}{quote}"
        if not rest.startswith(written):
            raise ConfigError(
                f"the state of {customer.name} is written in a way that is not changed by itself",
                hint=f"write `state: {state}` into {CUSTOMERS}/{customer.name}.yaml by hand",
            )
        lines[line - 1] = f"{head}{quote}{state}{quote}{rest[len(written) :]}"
        mark = "\ufeff" if before.startswith(b"\xef\xbb\xbf") else ""
        mode = path.stat().st_mode & 0o7777
        try:
            with _partial(path, mark + "".join(lines), mode) as partial:
                partial.replace(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        configuration, _ = survey(self._directory)
        if configuration.customers.get(customer.name) != customer.model_copy(update={"state": state}):
            path.write_bytes(before)
            raise ConfigError(
                f"{CUSTOMERS}/{customer.name}.yaml was not as expected after the change; it was put back",
                hint=f"write `state: {state}` into it by hand",
                problems=tuple(map(str, configuration.broken.get(customer.name, ()))),
            )

    def _file(self, name: str) -> ConfigFile:
        return ConfigFile(self._directory, f"{CUSTOMERS}/{name}.yaml")

    def _path(self, name: str) -> Path:
        return self._directory / CUSTOMERS / f"{name}.yaml"


@contextlib.contextmanager
def _partial(path: Path, text: str, mode: int | None = None) -> Iterator[Path]:
    """A whole file beside ``path``, hidden from readers of the configuration; gone afterwards."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        yield partial
    finally:
        partial.unlink(missing_ok=True)
