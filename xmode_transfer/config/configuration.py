"""The whole configuration: cross-checks between its files, reloading, and the JSON Schemas of its files."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, NamedTuple

from xmode_transfer.config.base import Model, did_you_mean
from xmode_transfer.config.customer import Customer, CustomerState
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.names import parse_iam
from xmode_transfer.config.service import Service, Vendor
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.periods import Period

_NAMED = 3  # other files in a message


class Claim(NamedTuple):
    """The identifiers that a customer's file claims; None if the file does not have them. A file with
    mistakes still claims those that can be read."""

    customer: str
    retired: bool = False
    external_id: str | None = None
    role_arn: str | None = None
    bucket: str | None = None
    prefix: str = ""
    bucket_owner: str | None = None

    @staticmethod
    def of(customer: Customer) -> "Claim":
        return Claim(
            customer.name,
            customer.state is CustomerState.RETIRED,
            customer.external_id,
            customer.role_arn,
            customer.destination.bucket,
            customer.destination.prefix,
            customer.bucket_owner,
        )


class Clash(NamedTuple):
    """A reason not to serve a customer. ``path`` is the key in its file; ``feeds``, a list or a mapping, has
    positions."""

    customer: str
    path: tuple[str | int, ...]
    message: str


def cross_check(
    customers: Mapping[str, Customer],
    feeds: Mapping[str, Feed],
    vendor: Vendor | None,
    *,
    broken_feeds: Collection[str] = (),
    broken_customers: Iterable[Claim] = (),
) -> list[Clash]:
    """Return every clash of each customer that is not retired. ``vendor`` is None if service.yaml is invalid.
    ``broken_feeds`` and ``broken_customers`` have files with mistakes."""
    clashes: list[Clash] = []
    for customer in customers.values():
        if customer.state is not CustomerState.RETIRED:
            clashes += _feeds(customer, feeds, broken_feeds)
            if vendor is not None:
                clashes += _vendor(customer, vendor)
    claims = [*map(Claim.of, customers.values()), *broken_customers]
    clashes += _same(
        [(claim.external_id.casefold(), claim) for claim in claims if claim.external_id],
        "external_id",
        "external ID, whatever its capitals",
    )
    clashes += _same([(claim.role_arn, claim) for claim in claims if claim.role_arn], "role_arn", "role")
    clashes += _locations(claims)
    clashes += _owners(claims)
    return clashes


def _feeds(customer: Customer, feeds: Mapping[str, Feed], broken: Collection[str]) -> Iterator[Clash]:
    for position, feed in enumerate(customer.feeds):
        path: tuple[str | int, ...] = ("feeds", position)
        if feed in feeds:
            try:
                customer.layout(feeds[feed])
            except ValueError as error:
                own = ("layout",) if customer.feeds[feed].layout is not None else ()
                yield Clash(customer.name, (*path, *own), str(error))
        if feed in broken:
            yield Clash(customer.name, path, f"feed {feed} is broken: fix feeds/{feed}.yaml")
        elif feed not in feeds:
            meant = did_you_mean(feed, {*feeds, *broken})
            yield Clash(customer.name, path, f"there is no feed {feed}, no feeds/{feed}.yaml{meant}")
    for position, item in enumerate(customer.hold if isinstance(customer.hold, tuple) else ()):
        name, slash, label = item.partition("/")
        if slash and name in feeds:
            try:
                Period.parse(label, feeds[name].period)
            except ValueError as error:
                yield Clash(customer.name, ("hold", position), f"{item}: {error}")


def _vendor(customer: Customer, vendor: Vendor) -> Iterator[Clash]:
    role = parse_iam(customer.role_arn, "role")
    message = ""
    if role.partition != vendor.partition:
        message = (
            f"the role is in {role.partition}, our own user in {vendor.partition} (service.yaml: "
            "vendor.principal_arn); a role cannot be assumed from another AWS partition"
        )
    elif role.account_id == vendor.account_id:
        account = f"account {role.account_id} is our own"
        message = f"{account} (service.yaml: vendor.principal_arn), not the customer's"
    if message:
        yield Clash(customer.name, ("role_arn",), message)


def _same(claims: Iterable[tuple[str, Claim]], key: str, what: str) -> Iterator[Clash]:
    by_value: dict[str, list[Claim]] = {}
    for value, claim in claims:
        by_value.setdefault(value, []).append(claim)
    for sharers in by_value.values():
        for claim in sharers:
            if len(sharers) > 1 and not claim.retired:
                files = _files(claim, sharers, len(sharers) - 1)
                yield Clash(claim.customer, (key,), f"{files} claim the same {what}")


def _locations(claims: Iterable[Claim]) -> Iterator[Clash]:
    """Locations overlap if one prefix begins with the other. Each ends with a slash."""
    by_bucket: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.bucket:
            by_bucket.setdefault(claim.bucket, []).append(claim)
    for bucket, sharers in by_bucket.items():
        sharers.sort(key=lambda claim: claim.prefix)
        prefixes = [claim.prefix for claim in sharers]
        for claim in sharers:
            # Sorted, everything under a prefix is adjacent; "0" is the character after "/".
            first = bisect_left(prefixes, claim.prefix)
            end = bisect_left(prefixes, claim.prefix[:-1] + "0") if claim.prefix else len(prefixes)
            above = [
                range(bisect_left(prefixes, folder), bisect_left(prefixes, folder + "\0"))
                for folder in _folders_above(claim.prefix)
            ]
            count = end - first - 1 + sum(map(len, above))
            if count and not claim.retired:
                others = (sharers[position] for position in chain(*above, range(first, end)))
                named = list(islice((other for other in others if other is not claim), _NAMED))
                files = _files(claim, named, count)
                both = dict.fromkeys(f"s3://{bucket}/{one.prefix}" for one in (claim, named[0]))
                message = f"{files} claim the same location: {' and '.join(both)}"
                yield Clash(claim.customer, ("destination",), message)


def _owners(claims: Iterable[Claim]) -> Iterator[Clash]:
    """In a partition, a bucket's name belongs to one account (S3 User Guide, "General purpose bucket naming
    rules")."""
    by_bucket: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        if claim.bucket and claim.bucket_owner and claim.role_arn:
            by_bucket.setdefault((claim.role_arn.split(":")[1], claim.bucket), []).append(claim)
    for (_, bucket), sharers in by_bucket.items():
        firsts = {claim.bucket_owner: claim for claim in reversed(sharers)}
        for claim in sharers:
            other = next((one for owner, one in firsts.items() if owner != claim.bucket_owner), None)
            if other is not None and not claim.retired:
                file = f"customers/{other.customer}.yaml{' (retired)' if other.retired else ''}"
                message = (
                    f"bucket {bucket} is the destination of {file} in account {other.bucket_owner}, not in "
                    f"account {claim.bucket_owner}: one bucket has one owner"
                )
                yield Clash(claim.customer, ("destination",), message)


def _folders_above(prefix: str) -> list[str]:
    """Return the parents of a prefix, from the whole bucket (an empty prefix) down."""
    slashes = [position for position, letter in enumerate(prefix[:-1]) if letter == "/"]
    return ["", *(prefix[: position + 1] for position in slashes)] if prefix else []


def _files(claim: Claim, sharers: Iterable[Claim], count: int) -> str:
    """Return the names of the files. Only people know which one has the mistake."""
    others = islice((other for other in sharers if other is not claim), _NAMED)
    named = [f"customers/{other.customer}.yaml" + (" (retired)" if other.retired else "") for other in others]
    if count > len(named):
        named.append(f"{count - len(named)} more")
    return " and ".join([", ".join([f"customers/{claim.customer}.yaml", *named[:-1]]), named[-1]])


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A mistake. ``file`` is relative to the config directory; line and column count from 1, or are 0."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The whole configuration. ``customers`` includes retired ones; ``broken`` has the problems of those that
    are not served, ``problems`` every mistake of every file, ``hints`` doubtful values that are accepted."""

    service: Service
    feeds: Mapping[str, Feed]
    customers: Mapping[str, Customer]
    broken: Mapping[str, tuple[Problem, ...]]
    problems: tuple[Problem, ...] = ()
    hints: tuple[Problem, ...] = ()

    def customer(self, name: str, undone: str) -> Customer:
        """Return a customer. Raises ConfigError; ``undone`` is like "nothing is delivered to it"."""
        if name in self.broken:
            raise self.why_broken(name, undone)
        if name not in self.customers:
            known = ", ".join(sorted(self.customers)) or "none is configured"
            raise ConfigError(f"there is no customer {name}", hint=f"customers: {known}")
        return self.customers[name]

    def active_customer(self, name: str) -> Customer:
        customer = self.customer(name, "nothing is delivered to it")
        if customer.state is not CustomerState.ACTIVE:
            raise ConfigError(
                f"{name} is {customer.state}: nothing is delivered to it",
                hint=f"set `state: active` in customers/{name}.yaml when it may be delivered to",
            )
        return customer

    def why_broken(self, name: str, undone: str) -> ConfigError:
        return ConfigError(
            f"the configuration of {name} is broken; {undone}",
            hint="fix the lines named above, then run `xmode-transfer config check`",
            problems=tuple(map(str, self.broken[name])),
        )


def reloaded(before: Configuration, fresh: Configuration) -> Configuration:
    """Return ``fresh`` with the previous version of each customer whose files now have mistakes, unless
    another one has meanwhile claimed its external ID, role or destination."""
    kept = {name: before.customers[name] for name in fresh.broken if name in before.customers}
    feeds = dict(fresh.feeds)
    for customer in kept.values():
        for name in customer.feeds:
            if name not in feeds and name in before.feeds:
                feeds[name] = before.feeds[name]
    customers = {**fresh.customers, **kept}
    for clash in cross_check(customers, feeds, fresh.service.vendor):
        if kept.pop(clash.customer, None) is not None:
            del customers[clash.customer]
    return Configuration(
        service=fresh.service,
        feeds=MappingProxyType(feeds),
        customers=MappingProxyType(dict(sorted(customers.items()))),
        broken=MappingProxyType({name: why for name, why in fresh.broken.items() if name not in kept}),
        problems=fresh.problems,
    )


def needs_restart(before: Configuration, fresh: Configuration) -> list[str]:
    """Return the changed keys of service.yaml that a running daemon cannot apply."""
    keys = ("vendor", "ledger", "recalls", "engine", "unsafe_roles", "limits", "status_page")
    changed = [key for key in keys if getattr(before.service, key) != getattr(fresh.service, key)]
    of_daemon = ("workers", "first_retry_seconds", "longest_retry_seconds")
    old, new = before.service.daemon, fresh.service.daemon
    changed += [f"daemon.{key}" for key in of_daemon if getattr(old, key) != getattr(new, key)]
    if before.service.cluster.places != fresh.service.cluster.places:
        changed.append("cluster.places")
    return changed


def is_moved(before: Configuration, fresh: Configuration, name: str) -> bool:
    """Return whether a running delivery to the customer has to restart."""
    old, new = before.customers.get(name), fresh.customers.get(name)
    if old is None or new is None or old.state is not new.state:
        return True
    who = ("external_id", "role_arn", "destination")
    return any(getattr(old, key) != getattr(new, key) for key in who) or any(
        before.feeds.get(feed) != fresh.feeds.get(feed) or new.feeds.get(feed) != settings
        for feed, settings in old.feeds.items()
    )


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (2020-12) of each kind of file."""
    return {
        "service": _schema(Service, "service.yaml"),
        "feed": _schema(Feed, "feeds/<feed>.yaml"),
        "customer": _schema(Customer, "customers/<customer>.yaml"),
    }


def _schema(model: type[Model], file: str) -> dict[str, Any]:
    schema = model.model_json_schema()
    # The name is the file's own.
    schema["properties"].pop("name", None)
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name != "name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": file,
        **{key: value for key, value in _tidy(schema).items() if key != "title"},
    }


def _tidy(node: Any) -> Any:
    """Remove pydantic's titles and keywords, and put descriptions on one line."""
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
