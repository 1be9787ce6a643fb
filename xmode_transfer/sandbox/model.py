"""A sandbox and its customers, the JSON file by which another process finds them, and a configuration."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from xmode_transfer.model.errors import ExitCode, XmodeError

VENDOR_ACCOUNT = "366810793500"
VENDOR_USER = "xmode-data-transfer"
VENDOR_PRINCIPAL_ARN = f"arn:aws:iam::{VENDOR_ACCOUNT}:user/{VENDOR_USER}"
ROLE_NAME = "XMode"
REGION = "us-east-1"
STATE_FILE = "sandbox.json"


class SandboxError(XmodeError):
    """The sandbox cannot be installed, started, found or stopped."""

    code = "sandbox"
    exit_code = ExitCode.USAGE


class Variant(StrEnum):
    """The setup of a customer's side. docs/sandbox.md lists what the sandbox enforces in each."""

    GUIDE = "guide"  # the guide's two documents, unchanged
    ABORT_GRANTED = "abort-granted"  # the corrected permission policy: multipart uploads work
    PREFIX_ONLY = "prefix-only"  # list and objects below the prefix only
    NO_ACL_CONDITION = "no-acl-condition"  # the guide's policy without its ACL condition
    KMS_BUCKET = "kms-bucket"  # the guide, on a bucket that encrypts with the customer's own KMS key
    VERSIONED = "versioned"  # the guide, on a versioned bucket
    NO_ROLE = "no-role"  # the role does not exist
    WRONG_EXTERNAL_ID = "wrong-external-id"  # the role requires another external ID


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key of the sandbox. The representation hides the secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CustomerSetup:
    """A customer of a sandbox: its sign-up, and its account's root key."""

    name: str
    company: str
    account: str
    external_id: str
    role_arn: str
    bucket: str
    prefix: str
    region: str
    variant: Variant
    endpoint: str
    root: Keys


@dataclass(slots=True)
class Sandbox:
    """A running sandbox. ``born`` tells the server's process from a later one with the same number.
    ``root_secret`` is the secret key of each account's root; the access key ID is the account's number."""

    id: str
    endpoint: str
    pid: int
    born: str
    directory: Path
    root_secret: str = field(repr=False)
    vendor: Keys = field(default_factory=lambda: Keys("", ""))
    customers: list[CustomerSetup] = field(default_factory=list)

    def customer(self, name: str) -> CustomerSetup:
        """Return a customer. Raise KeyError if there is none of that name."""
        return {customer.name: customer for customer in self.customers}[name]

    def root(self, account: str) -> Keys:
        return Keys(account, self.root_secret)

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    def environment(self) -> dict[str, str]:
        """Return the AWS variables that make a process the vendor, if it has no others."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.vendor.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.vendor.secret_access_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def save(self) -> None:
        """Replace the file by which another process finds this sandbox."""
        document = asdict(self) | {"directory": str(self.directory)}
        partial = self.directory / f"{STATE_FILE}.{os.getpid()}"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(document, file, indent=2)
        partial.replace(self.directory / STATE_FILE)

    @classmethod
    def load(cls, directory: Path) -> "Sandbox":
        """Load a sandbox. Raise OSError or ValueError if the directory is not a sandbox's."""
        document = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
        try:
            document["directory"] = directory
            document["vendor"] = Keys(**document["vendor"])
            document["customers"] = [
                CustomerSetup(**entry | {"variant": Variant(entry["variant"]), "root": Keys(**entry["root"])})
                for entry in document["customers"]
            ]
            return cls(**{name.name: document[name.name] for name in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{directory / STATE_FILE} is not a sandbox's state: {error}") from error


DEFAULT_FEEDS: Mapping[str, Mapping[str, Any]] = {
    "us-daily": {
        "source": "exports/us-daily",
        "period": "day",
        "partition": "%Y/%m/%d",
        "complete": {"marker": "_SUCCESS"},
    }
}


def write_config(
    directory: Path,
    sandbox: Sandbox,
    *,
    customers: Iterable[CustomerSetup] | None = None,
    feeds: Mapping[str, Mapping[str, Any]] = DEFAULT_FEEDS,
    service: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write service.yaml, feeds/ and customers/ below ``directory``, and return the directory.

    All ``customers`` (None: the sandbox's) subscribe to every feed. ``service`` is merged into service.yaml,
    ``overrides`` (by customer's name) into the customer's file, also one level down. A feed's source
    directory is created. No secret is written: the environment has the keys.
    """
    defaults = {"vendor": {"principal_arn": VENDOR_PRINCIPAL_ARN}, "ledger": "sqlite:///var/ledger.db"}
    _write(directory / "service.yaml", _merged(defaults, service or {}))
    for name, feed in feeds.items():
        source = str(feed["source"])
        if "://" not in source:
            (directory / source).mkdir(parents=True, exist_ok=True)
        _write(directory / "feeds" / f"{name}.yaml", feed)
    for customer in sandbox.customers if customers is None else customers:
        document = {
            "company": customer.company,
            "external_id": customer.external_id,
            "role_arn": customer.role_arn,
            "destination": {
                "bucket": customer.bucket,
                "prefix": customer.prefix,
                "region": customer.region,
                "addressing": "path",
            },
            "feeds": list(feeds),
        }
        document = _merged(document, (overrides or {}).get(customer.name, {}))
        _write(directory / "customers" / f"{customer.name}.yaml", document)
    return directory


def _merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _write(path: Path, document: Mapping[str, Any]) -> None:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True), encoding="utf-8")
