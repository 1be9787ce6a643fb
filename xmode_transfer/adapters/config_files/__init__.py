"""The configuration directory: YAML files in, frozen models out, every mistake with its file, line, column.

A mistake in a customer's file costs that customer only, one in a feed's file those who subscribe to it; only
a service.yaml with mistakes stops everything.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xmode_transfer.adapters.config_files.file import AnyModel, ConfigFile
from xmode_transfer.domain.config import Configuration, Customer, Feed, Problem, SecretRef, Service
from xmode_transfer.domain.config.cross_check import Claim, cross_check
from xmode_transfer.domain.config.schema import json_schemas
from xmode_transfer.domain.errors import ConfigError

SERVICE_FILE = "service.yaml"
FEEDS, CUSTOMERS = "feeds", "customers"
_SQLITE = "sqlite:///"
_NO_SERVICE_FILE = Problem(
    SERVICE_FILE, 0, 0, "", "the file is missing; an empty one will do, since every key has a default"
)


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
class _Survey:
    directory: Path
    strays: list[Problem] = field(default_factory=list)

    def result(self) -> tuple[Configuration, tuple[Problem, ...]]:
        service_file, service = self._service()
        feed_files, feeds = self._folder(FEEDS, Feed)
        customer_files, customers = self._folder(CUSTOMERS, Customer)
        clashes = cross_check(
            customers,
            feeds,
            service.vendor if service is not None else None,
            broken_feeds=feed_files.keys() - feeds.keys(),
            broken_customers=[
                claim_of(name, file.data)
                for name, file in customer_files.items()
                if name not in customers and file.data is not None
            ],
        )
        for clash in clashes:
            customer_files[clash.customer].problem(clash.path, clash.message)
            customers.pop(clash.customer, None)
        service_problems = service_file.problems if service_file is not None else [_NO_SERVICE_FILE]
        files = (*feed_files.values(), *customer_files.values())
        configuration = Configuration(
            service=service if service is not None else self._rooted(Service()),
            feeds=MappingProxyType(feeds),
            customers=MappingProxyType(customers),
            broken=MappingProxyType(
                {name: tuple(sorted(file.problems)) for name, file in customer_files.items() if file.problems}
            ),
            problems=tuple(
                sorted(
                    [*service_problems, *self.strays, *chain.from_iterable(file.problems for file in files)]
                )
            ),
        )
        return configuration, tuple(sorted(service_problems))

    def _service(self) -> tuple[ConfigFile | None, Service | None]:
        if not (self.directory / SERVICE_FILE).exists():
            return None, None
        file = ConfigFile(self.directory, SERVICE_FILE)
        service = file.model(Service) if file.data is not None else None
        return file, self._rooted(service) if service is not None else None

    def _rooted(self, service: Service) -> Service:
        """A relative ledger file is relative to the config directory."""
        if isinstance(service.ledger, SecretRef):
            return service
        path = service.ledger.removeprefix(_SQLITE)
        if path == service.ledger or path.startswith("/"):
            return service
        return service.model_copy(update={"ledger": f"{_SQLITE}{self._absolute(path)}"})

    def _absolute(self, path: str) -> str:
        # '..' is resolved by the system, not by its letters: the directory may be a symbolic link.
        whole = self.directory / path
        return str(whole.resolve() if ".." in whole.parts else whole)

    def _folder(
        self, folder: str, model: type[AnyModel]
    ) -> tuple[dict[str, ConfigFile], dict[str, AnyModel]]:
        files: dict[str, ConfigFile] = {}
        models: dict[str, AnyModel] = {}
        for name in self._names(folder):
            file = files[name] = ConfigFile(self.directory, f"{folder}/{name}.yaml")
            if file.data is None:
                continue
            if "name" in file.data:
                file.problem(("name",), "unknown key; the name is the file's own name", of_key=True)
            extra = {"name": name}
            source = file.data.get("source")
            if isinstance(source, str) and _is_relative(source):
                extra["source"] = self._absolute(source)
            valid = file.model(model, **extra)
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
            path = f"{folder}/{entry.name}"
            stem, _, suffix = entry.name.rpartition(".")
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                self._stray(path, f"is a directory; files lie directly in {folder}/")
            elif suffix == "yaml" and not entry.is_file():
                self._stray(path, "is no file, or a link that leads nowhere")
            elif suffix == "yaml":
                yield stem
            elif suffix.lower() in ("yml", "yaml"):
                self._stray(path, f"is not read; name it {stem}.yaml")

    def _stray(self, name: str, message: str) -> None:
        self.strays.append(Problem(name, 0, 0, "", message))


def customer_names(directory: Path) -> Iterator[str]:
    """The names of all customers that have a file, whatever is wrong with it."""
    return _Survey(directory.absolute())._names(CUSTOMERS)


def _is_relative(source: str) -> bool:
    return source != "" and source[0] not in "/~" and "://" not in source


def claim_of(name: str, data: dict[str, Any]) -> Claim:
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
