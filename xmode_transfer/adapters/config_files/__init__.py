"""The configuration directory: YAML files in, frozen models out, every mistake with its file, line, column.

A mistake in a customer's file costs that customer only, one in a feed's file those who subscribe to it; only
a service.yaml with mistakes stops everything.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from xmode_transfer.adapters.config_files.sentences import dotted, sentence
from xmode_transfer.adapters.config_files.yaml_tree import Tree, Unreadable, parse
from xmode_transfer.domain.config import Configuration, Customer, Feed, Problem, Service
from xmode_transfer.domain.config.base import Model
from xmode_transfer.domain.config.cross_check import Claim, cross_check
from xmode_transfer.domain.config.schema import json_schemas
from xmode_transfer.domain.errors import ConfigError

SERVICE_FILE = "service.yaml"
FEEDS, CUSTOMERS = "feeds", "customers"
_SQLITE = "sqlite:///"

AnyModel = TypeVar("AnyModel", bound=Model)


def load(directory: Path) -> Configuration:
    """The configuration in ``directory``. Raises ConfigError, with every problem of every file, when there is
    no such directory or service.yaml cannot be used. Broken customers are in ``Configuration.broken``."""
    configuration, stopping = survey(directory)
    if stopping:
        count = len(configuration.problems)
        raise ConfigError(
            f"the configuration in {directory} cannot be used: {count} problem{'s' if count > 1 else ''}",
            hint="mend service.yaml, then run: xmode-transfer config check",
            problems=tuple(map(str, configuration.problems)),
        )
    return configuration


def survey(directory: Path) -> tuple[Configuration, tuple[Problem, ...]]:
    """Reads everything, whatever is wrong with it: the configuration, and those of its problems that stop all
    customers (then ``service`` has nothing but defaults). Raises ConfigError only without a directory."""
    if not directory.is_dir():
        raise ConfigError(
            f"there is no configuration directory {directory}",
            hint="give it with --config DIR or in XMODE_CONFIG",
        )
    return _Survey(directory.absolute()).result()


@dataclass(slots=True)
class _File:
    """One file of ours as far as it could be read; ``name`` is relative to the directory."""

    name: str
    tree: Tree | None = None
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: tuple[str | int, ...], message: str, *, of_key: bool = False) -> None:
        line, column = self.tree.place(path, of_key=of_key) if self.tree is not None else (0, 0)
        self.problems.append(Problem(self.name, line, column, dotted(path), message))


@dataclass(slots=True)
class _Survey:
    directory: Path
    strays: list[Problem] = field(default_factory=list)

    def result(self) -> tuple[Configuration, tuple[Problem, ...]]:
        service_file, service = self._service()
        feed_files, feeds = self._folder(FEEDS, Feed)
        customer_files, customers = self._folder(CUSTOMERS, Customer)
        unread = [
            _claim(name, file.tree.data)
            for name, file in customer_files.items()
            if name not in customers and file.tree is not None
        ]
        clashes = cross_check(
            customers,
            feeds,
            service.vendor if service is not None else None,
            broken_feeds=feed_files.keys() - feeds.keys(),
            broken_customers=unread,
        )
        for clash in clashes:
            customer_files[clash.customer].problem(clash.path, clash.message)
            customers.pop(clash.customer, None)
        everything = [
            *service_file.problems,
            *self.strays,
            *(
                problem
                for file in (*feed_files.values(), *customer_files.values())
                for problem in file.problems
            ),
        ]
        configuration = Configuration(
            service=service if service is not None else self._rooted(Service()),
            feeds=MappingProxyType(feeds),
            customers=MappingProxyType(customers),
            broken=MappingProxyType(
                {name: tuple(sorted(file.problems)) for name, file in customer_files.items() if file.problems}
            ),
            problems=tuple(sorted(everything)),
        )
        return configuration, tuple(sorted(service_file.problems))

    def _service(self) -> tuple[_File, Service | None]:
        if not (self.directory / SERVICE_FILE).exists():
            file = _File(SERVICE_FILE)
            file.problem((), "the file is missing; an empty one will do, since every key has a default")
            return file, None
        file = self._read(SERVICE_FILE)
        service = _model(file, Service, file.tree.data) if file.tree is not None else None
        return file, self._rooted(service) if service is not None else None

    def _rooted(self, service: Service) -> Service:
        """A relative ledger file is relative to the config directory."""
        path = service.ledger.removeprefix(_SQLITE)
        if path == service.ledger or path.startswith("/"):
            return service
        return service.model_copy(update={"ledger": f"{_SQLITE}{self._absolute(path)}"})

    def _absolute(self, path: str) -> str:
        # '..' is resolved by the system, not by its letters: the directory may be a symbolic link.
        whole = self.directory / path
        return str(whole.resolve() if ".." in whole.parts else whole)

    def _folder(self, folder: str, model: type[AnyModel]) -> tuple[dict[str, _File], dict[str, AnyModel]]:
        files: dict[str, _File] = {}
        models: dict[str, AnyModel] = {}
        for name in self._names(folder):
            file = files[name] = self._read(f"{folder}/{name}.yaml")
            if file.tree is None:
                continue
            data = {**file.tree.data, "name": name}
            source = data.get("source")
            if (
                model is Feed
                and isinstance(source, str)
                and source
                and source[0] not in "/~"
                and "://" not in source
            ):
                data["source"] = self._absolute(source)
            if "name" in file.tree.data:
                file.problem(("name",), "unknown key; the name is the file's own name", of_key=True)
            valid = _model(file, model, data)
            if valid is not None:
                models[name] = valid
        return files, models

    def _names(self, folder: str) -> Iterator[str]:
        """The stems of the folder's .yaml files. What was meant for us but is not read becomes a problem."""
        try:
            entries = sorted(os.scandir(self.directory / folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._stray(folder, f"cannot be read: {error.strerror}")
            return
        for entry in entries:
            stem, _, suffix = entry.name.rpartition(".")
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                self._stray(f"{folder}/{entry.name}", f"is a directory; files lie directly in {folder}/")
            elif suffix == "yaml":
                if entry.is_file():
                    yield stem
                else:
                    self._stray(f"{folder}/{entry.name}", "is no file, or a link that leads nowhere")
            elif suffix.lower() in ("yml", "yaml"):
                self._stray(f"{folder}/{entry.name}", f"is not read; name it {stem}.yaml")

    def _stray(self, name: str, message: str) -> None:
        self.strays.append(Problem(name, 0, 0, "", message))

    def _read(self, name: str) -> _File:
        file = _File(name)
        try:
            file.tree = parse((self.directory / name).read_bytes())
        except OSError as error:
            file.problem((), f"cannot be read: {error.strerror}")
        except Unreadable as error:
            mistake = error.mistake
            file.problems.append(Problem(name, mistake.line, mistake.column, "", mistake.message))
        else:
            file.problems += [
                Problem(name, line, column, dotted(path), message)
                for line, column, path, message in file.tree.mistakes
            ]
        return file


def _model(file: _File, model: type[AnyModel], data: dict[str, Any]) -> AnyModel | None:
    """The model, or None with the file's problems told."""
    try:
        valid = model.model_validate(data)
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            path, kind = error["loc"], error["type"]
            if path == ("name",):
                file.problems.append(Problem(file.name, 0, 0, "", sentence(error, model)))
            else:
                file.problem(path, sentence(error, model), of_key=kind == "extra_forbidden")
        return None
    return None if file.problems else valid


def _claim(name: str, data: dict[str, Any]) -> Claim:
    """What can be read of a file with mistakes: a typing error in it must not free what it claims."""

    def text(value: object) -> str | None:
        return value if isinstance(value, str) and value else None

    destination = data.get("destination")
    place = destination if isinstance(destination, dict) else {}
    prefix = (text(place.get("prefix")) or "").strip("/")
    return Claim(
        name,
        data.get("state") == "retired",
        text(data.get("external_id")),
        text(data.get("role_arn")),
        text(place.get("bucket")),
        f"{prefix}/" if prefix else "",
    )


def schema_files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Where each JSON Schema belongs and what must stand in it."""
    for kind, schema in json_schemas().items():
        yield (
            directory / "schema" / f"{kind}.json",
            json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        )
