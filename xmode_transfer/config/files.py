"""Read the configuration directory. A mistake in a customer's file affects that customer only, one in a
feed's file its subscribers; one in service.yaml, or a folder that cannot be listed, stops everything."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from xmode_transfer.config import Configuration, CustomerState, Problem
from xmode_transfer.config.base import Model
from xmode_transfer.config.configuration import Claim, cross_check, json_schemas
from xmode_transfer.config.customer import Customer
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.mistakes import MAX_BYTES, KeyPath, Tree, Unreadable, dotted, parse, sentence
from xmode_transfer.config.names import parse_iam, region_doubt
from xmode_transfer.config.secrets import DIRECTORY
from xmode_transfer.config.service import Service
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.keys import readable

SERVICE_FILE = "service.yaml"
FEEDS, CUSTOMERS = "feeds", "customers"

_SQLITE = "sqlite:///"
_NO_SERVICE_FILE = Problem(
    SERVICE_FILE, 0, 0, "", "the file is missing; an empty one will do, since every key has a default"
)

AnyModel = TypeVar("AnyModel", bound=Model)


def load(directory: Path) -> Configuration:
    """Return the configuration. Raises ConfigError with all problems if one of them stops all customers."""
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
    """Return the configuration and the problems that stop all customers; with a mistake in service.yaml,
    ``service`` has defaults only. Raises ConfigError only without a directory."""
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


def customer_names(directory: Path) -> Iterator[str]:
    """Yield the names of all customers with a file, valid or not."""
    return _Reading(directory.absolute()).stems(CUSTOMERS)


def schema_files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path and the content of each JSON Schema."""
    for kind, schema in json_schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        yield directory / "schema" / f"{kind}.json", f"{text}\n"


def claim_of(name: str, data: dict[str, Any]) -> Claim:
    """Return the claim of a file with mistakes, as far as it can be read."""

    def text(value: object) -> str | None:
        return value if isinstance(value, str) and value else None

    destination = data.get("destination")
    location = destination if isinstance(destination, dict) else {}
    prefix = (text(location.get("prefix")) or "").strip("/")
    role_arn, owner = text(data.get("role_arn")), None
    with suppress(ValueError):
        account_id = parse_iam(role_arn or "", "role").account_id
        owner = text(location.get("bucket_owner")) or account_id
    return Claim(
        name,
        data.get("state") == "retired",
        text(data.get("external_id")),
        role_arn,
        text(location.get("bucket")),
        f"{prefix}/" if prefix else "",
        owner,
    )


class _Reading:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._strays: list[Problem] = []
        self._unread: list[Problem] = []  # folders
        self._hints: list[Problem] = []

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
            file = customer_files[clash.customer]
            file.problem(file.named(clash.path), clash.message)
            customers.pop(clash.customer, None)
        for name, customer in list(customers.items()):
            region, file = customer.destination.region, customer_files[name]
            if region is None or customer.state is CustomerState.RETIRED:
                continue
            if self._is_wrong_region("S3", file, ("destination", "region"), region):
                del customers[name]
        stopping = [
            *(service_file.problems if service_file is not None else [_NO_SERVICE_FILE]),
            *self._unread,
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
                sorted([*stopping, *self._strays, *chain.from_iterable(file.problems for file in files)])
            ),
            hints=tuple(sorted(self._hints)),
        )
        return configuration, tuple(sorted(stopping))

    def _is_wrong_region(self, service: str, file: "ConfigFile", path: KeyPath, region: str) -> bool:
        """Report a doubtful region: as a problem, or as a hint if requests do not go to AWS."""
        message = region_doubt(region)
        if message and _endpoint_url(service) is not None:
            self._hints.append(Problem(file.name, *file.position(path), dotted(path), message))
        elif message:
            file.problem(path, message)
            return True
        return False

    def _service(self) -> tuple["ConfigFile | None", Service | None]:
        if not os.path.lexists(self._directory / SERVICE_FILE):
            return None, None
        file = ConfigFile(self._directory, SERVICE_FILE)
        service = file.model(Service) if file.data is not None else None
        if service is not None:
            region = service.vendor.sts_region
            if self._is_wrong_region("STS", file, ("vendor", "sts_region"), region):
                service = None
        return file, self._rooted(service) if service is not None else None

    def _rooted(self, service: Service) -> Service:
        """Make relative files relative to the config directory."""
        ledger, recalls = service.ledger, self._absolute(service.recalls)
        if isinstance(ledger, str) and ledger.startswith(_SQLITE):
            path = self._absolute(ledger.removeprefix(_SQLITE))
            ledger = f"{_SQLITE}{path}"
            if "recalls" not in service.model_fields_set:
                recalls = str(Path(path.partition("?")[0]).with_name("recalls.jsonl"))
        return service.model_copy(update={"ledger": ledger, "recalls": recalls})

    def _absolute(self, path: str) -> str:
        # The system resolves '..': the directory may be a symbolic link.
        whole = self._directory / path
        return str(whole.resolve() if ".." in whole.parts else whole)

    def _folder(
        self, folder: str, model: type[AnyModel]
    ) -> tuple[dict[str, "ConfigFile"], dict[str, AnyModel]]:
        files: dict[str, ConfigFile] = {}
        models: dict[str, AnyModel] = {}
        for stem in self.stems(folder):
            name = readable(stem)
            file = files[name] = ConfigFile(self._directory, f"{folder}/{stem}.yaml")
            if file.data is None:
                continue
            if "name" in file.data:
                file.problem(("name",), "unknown key; the name is the file's own name", of_key=True)
            extra = {"name": name}
            source = file.data.get("source")
            if isinstance(source, str) and source and source[0] not in "/~" and "://" not in source:
                extra["source"] = self._absolute(source)
            valid = file.model(model, **extra)
            if valid is not None:
                models[name] = valid
        return files, models

    def stems(self, folder: str) -> Iterator[str]:
        """Yield the stem of each .yaml entry. Others that look like configuration become problems."""
        try:
            entries = sorted((self._directory / folder).iterdir())
        except OSError as error:
            if os.path.lexists(self._directory / folder):
                self._unread.append(Problem(folder, 0, 0, "", f"cannot be read: {error.strerror}"))
            return
        for entry in entries:
            path = f"{folder}/{entry.name}"
            stem, _, suffix = entry.name.rpartition(".")
            if entry.name.startswith("."):
                continue
            if suffix == "yaml":
                yield stem
            elif os.path.isdir(entry):  # noqa: PTH112 - Path.is_dir raises if the folder may not be entered
                self._stray(path, f"is a directory; files belong directly in {folder}/")
            elif suffix.lower() in ("yml", "yaml"):
                self._stray(path, f"is not read; name it {stem}.yaml")

    def _stray(self, name: str, message: str) -> None:
        self._strays.append(Problem(readable(name), 0, 0, "", readable(message)))


def _endpoint_url(service: str) -> str | None:
    """Return the endpoint for ``S3`` or ``STS`` from AWS's variables and files; None for AWS itself."""
    # botocore is slow to import.
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
    except BotoCoreError:  # a missing profile, which the first request reports
        return None
    return url


class ConfigFile:
    """One file and its problems. ``name`` is relative to the config directory; ``data`` is None if the file
    cannot be read."""

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
            self.problem((), _reason(directory / name, error))
        except Unreadable as error:
            self._add(*error.mistake)
        else:
            self.data = self._tree.data
            for mistake in self._tree.mistakes:
                self._add(*mistake)

    @property
    def text(self) -> str:
        """The content, as far as it can be decoded."""
        return self._raw.decode("utf-8", "replace")

    def problem(self, path: KeyPath, message: str, *, of_key: bool = False) -> None:
        """Add a problem at a key's value, or at the key itself."""
        self._add(*self.position(path, of_key=of_key), path, message)

    def position(self, path: KeyPath, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of a key or its value; zeros if the file cannot be read."""
        if self._tree is None and self._raw:
            self._tree = parse(self._raw)
        return self._tree.position(path, of_key=of_key) if self._tree is not None else (0, 0)

    def named(self, path: KeyPath) -> KeyPath:
        """Return the path with keys instead of positions in mappings."""
        if self._tree is None and self._raw:
            self._tree = parse(self._raw)
        return self._tree.named(path) if self._tree is not None else path

    def model(self, model: type[AnyModel], **extra: str) -> AnyModel | None:
        """Return the file with ``extra`` values as a model; None, with problems added, if it is invalid."""
        try:
            valid = model.model_validate(
                {**(self.data or {}), **extra}, context={DIRECTORY: str(self._directory)}
            )
        except ValidationError as errors:
            for error in errors.errors(include_url=False):
                if error["type"] == "too_short" and error["input"]:
                    continue  # an item of the list is invalid, and reported already
                message = sentence(error, model)
                if "name" in extra and error["loc"] == ("name",):  # the file's name has no line in it
                    self._add(0, 0, (), message)
                else:
                    self.problem(error["loc"], message, of_key=error["type"] == "extra_forbidden")
            return None
        if self.problems:
            return None
        # Trees of thousands of valid files would only use memory. A later problem parses again.
        self._tree = None
        self.data = {}
        return valid

    def _add(self, line: int, column: int, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(self.name, line, column, dotted(path), message))


def _content(path: Path) -> bytes:
    """Return the content, up to one byte over the limit. Opens regular files only: a pipe would block."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        # O_NONBLOCK, because a pipe may have replaced the file meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                return file.read(MAX_BYTES + 1)
    kind = (
        "a directory" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a socket or a device"
    )
    raise Unreadable(0, 0, f"is {kind}, not a file; remove it, or put a file in its place")


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself; remove it, or put the file in its place"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if path.is_symlink():
            return "is a symbolic link that leads nowhere; remove it, or restore the file that it leads to"
        return "was there a moment ago, and is gone"
    is_denied = isinstance(error, PermissionError)
    fix = "give the user that this runs as read access" if is_denied else "check its disk"
    return f"cannot be read: {error.strerror or error}; {fix}"
