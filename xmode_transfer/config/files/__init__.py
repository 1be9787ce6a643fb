"""The configuration directory: YAML files in, frozen models out, every mistake with its file, line, column.

A mistake in a customer's file costs that customer only, one in a feed's file those who subscribe to it; only
a service.yaml with mistakes, or a folder that cannot be listed, stops everything. A file that cannot be read,
for whatever reason, is one with a mistake.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xmode_transfer.config import Configuration, CustomerState, Problem, SecretRef
from xmode_transfer.config.base import Model
from xmode_transfer.config.configuration import Claim, cross_check
from xmode_transfer.config.customer import Customer
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.files.file import AnyModel, ConfigFile
from xmode_transfer.config.names import region_doubt
from xmode_transfer.config.service import Service
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.keys import readable

_FILES: dict[str, tuple[type[Model], str]] = {
    "service": (Service, "service.yaml"),
    "feed": (Feed, "feeds/<feed>.yaml"),
    "customer": (Customer, "customers/<customer>.yaml"),
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """By kind (service, feed, customer), the schema of such a file (JSON Schema 2020-12)."""
    return {kind: _schema(model, file) for kind, (model, file) in _FILES.items()}


def _schema(model: type[Model], file: str) -> dict[str, Any]:
    schema = model.model_json_schema()
    # A name is the file's own and does not stand in it.
    schema["properties"].pop("name", None)
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name != "name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": file,
        **{key: value for key, value in _tidy(schema).items() if key != "title"},
    }


def _tidy(node: Any) -> Any:
    """Without pydantic's made-up titles and its own words, with descriptions on one line."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {
        key: value if key in ("default", "examples") else _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and key != "ge"
    }
    if isinstance(tidied.get("description"), str):
        tidied["description"] = " ".join(tidied["description"].split())
    return tidied


SERVICE_FILE = "service.yaml"
FEEDS, CUSTOMERS = "feeds", "customers"
_SQLITE = "sqlite:///"
_NO_SERVICE_FILE = Problem(
    SERVICE_FILE, 0, 0, "", "the file is missing; an empty one will do, since every key has a default"
)


def load(directory: Path) -> Configuration:
    """The configuration in ``directory``. Raises ConfigError, with every problem of every file, when there is
    no such directory or service.yaml cannot be used. Broken customers are in ``Configuration.broken``."""
    configuration, stopping = read_directory(directory)
    if stopping:
        count = len(configuration.problems)
        files = ", ".join(sorted({problem.file for problem in stopping}))
        raise ConfigError(
            f"the configuration in {directory} cannot be used: {count} problem{'s' if count > 1 else ''}",
            hint=f"fix {files}, then run: xmode-transfer config check",
            problems=tuple(map(str, configuration.problems)),
        )
    return configuration


def read_directory(directory: Path) -> tuple[Configuration, tuple[Problem, ...]]:
    """Reads everything, whatever is wrong with it: the configuration, and those of its problems that stop all
    customers: in service.yaml (then ``service`` has nothing but defaults), or a folder that cannot be read.
    Raises ConfigError only without a directory."""
    try:
        there = directory.is_dir()
    except OSError as error:
        raise ConfigError(
            f"the configuration directory {directory} cannot be reached: {error.strerror}",
            hint="give the user of this process read access, or name another with --config or XMODE_CONFIG",
        ) from error
    if not there:
        raise ConfigError(
            f"there is no configuration directory {directory}",
            hint="give it with --config DIR or in XMODE_CONFIG",
        )
    return _Reading(directory.absolute()).result()


@dataclass(slots=True)
class _Reading:
    directory: Path
    strays: list[Problem] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)  # folders: nobody knows what lies in them
    hints: list[Problem] = field(default_factory=list)

    def result(self) -> tuple[Configuration, tuple[Problem, ...]]:
        service_file, service = self._service()
        feed_files, feeds = self._folder(FEEDS, Feed)
        customer_files, customers = self._folder(CUSTOMERS, Customer)
        if service_file and service:
            region = service.vendor.sts_region
            if self._doubts("STS", service_file, ("vendor", "sts_region"), region):
                service = None
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
        for customer in list(customers.values()):
            if self._misses_its_region(customer, customer_files[customer.name]):
                del customers[customer.name]
        stopping = [
            *(service_file.problems if service_file is not None else [_NO_SERVICE_FILE]),
            *self.unread,
        ]
        files = (*feed_files.values(), *customer_files.values())
        configuration = Configuration(
            service=service if service is not None else self._rooted(Service()),
            feeds=MappingProxyType(feeds),
            customers=MappingProxyType(customers),
            broken=MappingProxyType(
                {name: tuple(sorted(file.problems)) for name, file in customer_files.items() if file.problems}
            ),
            problems=tuple(
                sorted([*stopping, *self.strays, *chain.from_iterable(file.problems for file in files)])
            ),
            hints=tuple(sorted(self.hints)),
        )
        return configuration, tuple(sorted(stopping))

    def _misses_its_region(self, customer: Customer, file: ConfigFile) -> bool:
        region = customer.destination.region
        if region is None or customer.state is CustomerState.RETIRED:
            return False
        return self._doubts("S3", file, ("destination", "region"), region)

    def _doubts(self, service: str, file: ConfigFile, path: tuple[str, ...], region: str) -> bool:
        """Whether the region is a mistake. Where requests do not go to AWS it may be right all the same."""
        told = region_doubt(region)
        if not told:
            return False
        if _endpoint_url(service) is not None:
            self.hints.append(file.hint(path, told))
            return False
        file.problem(path, told)
        return True

    def _service(self) -> tuple[ConfigFile | None, Service | None]:
        if not os.path.lexists(self.directory / SERVICE_FILE):
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
        for stem in self._names(folder):
            name = readable(stem)
            file = files[name] = ConfigFile(self.directory, f"{folder}/{stem}.yaml")
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
        """The stems of all that is named like a .yaml file of the folder, whatever it is: a file that cannot
        be read is its customer's all the same. What was meant for us but is not read becomes a problem."""
        try:
            entries = sorted((self.directory / folder).iterdir())
        except OSError as error:
            if os.path.lexists(self.directory / folder):
                self.unread.append(Problem(folder, 0, 0, "", f"cannot be read: {error.strerror}"))
            return
        for entry in entries:
            path = f"{folder}/{entry.name}"
            stem, _, suffix = entry.name.rpartition(".")
            if entry.name.startswith("."):
                continue
            if suffix == "yaml":
                yield stem
            elif _is_directory(entry):
                self._stray(path, f"is a directory; files belong directly in {folder}/")
            elif suffix.lower() in ("yml", "yaml"):
                self._stray(path, f"is not read; name it {stem}.yaml")

    def _stray(self, name: str, message: str) -> None:
        self.strays.append(Problem(readable(name), 0, 0, "", readable(message)))


def customer_names(directory: Path) -> Iterator[str]:
    """The names of all customers that have a file, whatever is wrong with it."""
    return _Reading(directory.absolute())._names(CUSTOMERS)


def _endpoint_url(service: str) -> str | None:
    """The endpoint that AWS's own variables and files name for the service (``S3``, ``STS``); None for
    AWS's."""
    # Imported only when something depends on it: botocore is slow to import.
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        session = Session()
        if session.get_config_variable("ignore_configured_endpoint_urls"):
            return None
        url: str | None = ConfiguredEndpointProvider(
            session.full_config, session.get_scoped_config(), service.lower()
        ).provide()
    except BotoCoreError:  # a profile that is not there: told by whoever needs it
        return None
    return url


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


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
