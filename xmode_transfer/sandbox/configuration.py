"""Writes a configuration with which xmode-transfer delivers into a sandbox."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xmode_transfer.sandbox.model import VENDOR_PRINCIPAL_ARN, CustomerSetup, Sandbox

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
    """Writes service.yaml, feeds/ and customers/ below ``directory``; answers the directory.

    Customers are all of the sandbox's unless given, each subscribed to every feed. ``service`` is merged
    into service.yaml, and ``overrides`` (by customer's name) into the customer's file, key by key and one
    level down too: ``{"acme": {"destination": {"prefix": "other/"}}}``. A feed's source directory is made.
    No secret is written: the environment carries the keys (``Sandbox.environment``).
    """
    chosen = sandbox.customers if customers is None else list(customers)
    _write(
        directory / "service.yaml",
        _merged(
            {"vendor": {"principal_arn": VENDOR_PRINCIPAL_ARN}, "ledger": "sqlite:///var/ledger.db"},
            service or {},
        ),
    )
    for name, feed in feeds.items():
        source = str(feed["source"])
        if "://" not in source:
            (directory / source).mkdir(parents=True, exist_ok=True)
        _write(directory / "feeds" / f"{name}.yaml", dict(feed))
    for customer in chosen:
        document = customer_document(customer, feeds)
        _write(
            directory / "customers" / f"{customer.name}.yaml",
            _merged(document, (overrides or {}).get(customer.name, {})),
        )
    return directory


def customer_document(customer: CustomerSetup, feeds: Iterable[str]) -> dict[str, Any]:
    """The customer's file in the configuration, as a document."""
    return {
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
