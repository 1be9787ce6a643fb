"""The configuration as a whole, the mistakes that were found in it, and what is in use after the files were
read again while the service runs."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import NamedTuple

from xmode_transfer.config.base import did_you_mean
from xmode_transfer.config.customer import Customer, CustomerState
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.names import parse_iam
from xmode_transfer.config.service import Service, Vendor
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.periods import Period

_NAMED = 3  # how many of the others a message names


class Claim(NamedTuple):
    """What a customer's file claims for it. None where the file does not say, or not legibly: a file with
    mistakes still claims what can be read of it."""

    customer: str
    retired: bool = False
    external_id: str | None = None
    role_arn: str | None = None
    bucket: str | None = None
    prefix: str = ""

    @staticmethod
    def of(customer: Customer) -> "Claim":
        return Claim(
            customer.name,
            customer.state is CustomerState.RETIRED,
            customer.external_id,
            customer.role_arn,
            customer.destination.bucket,
            customer.destination.prefix,
        )


class Clash(NamedTuple):
    """Why a customer may not be served. ``path`` is the key in its file, as names and positions in lists."""

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
    """Every clash, told for each customer that it concerns, retired ones aside: they are not served anyway.

    ``vendor`` is None when service.yaml itself is wrong: then nothing is compared with it. ``broken_feeds``
    have files with mistakes; ``broken_customers`` are the claims of customers whose own files have some.
    """
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
    clashes += _places(claims)
    return clashes


def _feeds(customer: Customer, feeds: Mapping[str, Feed], broken: Collection[str]) -> Iterator[Clash]:
    for position, feed in enumerate(customer.feeds):
        if feed in broken:
            yield Clash(customer.name, ("feeds", position), f"feed {feed} is broken: fix feeds/{feed}.yaml")
        elif feed not in feeds:
            meant = did_you_mean(feed, {*feeds, *broken})
            yield Clash(
                customer.name, ("feeds", position), f"there is no feed {feed}, no feeds/{feed}.yaml{meant}"
            )
    yield from _holds(customer, feeds)


def _holds(customer: Customer, feeds: Mapping[str, Feed]) -> Iterator[Clash]:
    """A hold on a period that no delivery of the feed can have would hold nothing."""
    for position, item in enumerate(customer.hold if isinstance(customer.hold, tuple) else ()):
        name, slash, label = item.partition("/")
        if slash and name in feeds:
            try:
                Period.parse(label, feeds[name].period)
            except ValueError as error:
                yield Clash(customer.name, ("hold", position), f"{item}: {error}")


def _vendor(customer: Customer, vendor: Vendor) -> Iterator[Clash]:
    role = parse_iam(customer.role_arn, "role")
    if role.partition != vendor.partition:
        yield Clash(
            customer.name,
            ("role_arn",),
            f"the role is in {role.partition}, our own user in {vendor.partition} (service.yaml: "
            "vendor.principal_arn); a role cannot be assumed from another AWS partition",
        )
    elif role.account_id == vendor.account_id:
        yield Clash(
            customer.name,
            ("role_arn",),
            f"account {role.account_id} is our own (service.yaml: vendor.principal_arn), not the customer's",
        )


def _same(claims: Iterable[tuple[str, Claim]], key: str, what: str) -> Iterator[Clash]:
    by_value: dict[str, list[Claim]] = {}
    for value, claim in claims:
        by_value.setdefault(value, []).append(claim)
    for sharers in by_value.values():
        for claim in sharers:
            if len(sharers) > 1 and not claim.retired:
                files = _files(claim, sharers, len(sharers) - 1)
                yield Clash(claim.customer, (key,), f"{files} claim the same {what}")


def _places(claims: Iterable[Claim]) -> Iterator[Clash]:
    """Places overlap when one prefix begins with the other; each ends with a slash: folders are compared."""
    by_bucket: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.bucket:
            by_bucket.setdefault(claim.bucket, []).append(claim)
    for bucket, sharers in by_bucket.items():
        sharers.sort(key=lambda claim: claim.prefix)
        prefixes = [claim.prefix for claim in sharers]
        for claim in sharers:
            # In sorted order, what lies under a prefix stands together; "0" is the character after "/".
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
                places = " and ".join(
                    dict.fromkeys(f"s3://{bucket}/{one.prefix}" for one in (claim, named[0]))
                )
                yield Clash(claim.customer, ("destination",), f"{files} claim the same place: {places}")


def _folders_above(prefix: str) -> Iterator[str]:
    """The whole bucket (an empty prefix) and each folder that holds the prefix, but not the prefix itself."""
    if prefix:
        yield ""
    position = prefix.find("/")
    while 0 <= position < len(prefix) - 1:
        yield prefix[: position + 1]
        position = prefix.find("/", position + 1)


def _files(claim: Claim, sharers: Iterable[Claim], count: int) -> str:
    """The names of the files: the mistake is fixed in one of them, and only people know in which."""
    others = islice((other for other in sharers if other is not claim), _NAMED)
    named = [f"customers/{other.customer}.yaml" + (" (retired)" if other.retired else "") for other in others]
    if count > len(named):
        named.append(f"{count - len(named)} more")
    return " and ".join([", ".join([f"customers/{claim.customer}.yaml", *named[:-1]]), named[-1]])


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake: in which file (relative to the config directory), where (from 1; 0 when no place is
    known), at which key, and what is wrong, in one sentence."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """All of it.

    ``customers`` are those whose files are in order, retired ones too. A customer in ``broken`` is there with
    every reason why, and is left alone. ``problems`` has every mistake of every file, unused feeds included;
    ``hints`` what looks like one and is taken all the same.
    """

    service: Service
    feeds: Mapping[str, Feed]
    customers: Mapping[str, Customer]
    broken: Mapping[str, tuple[Problem, ...]]
    problems: tuple[Problem, ...] = ()
    hints: tuple[Problem, ...] = ()

    def customer(self, name: str, undone: str) -> Customer:
        """The customer, if its files are in order; ``undone`` says what is not done where they are not, as in
        "nothing is delivered to it". Raises ConfigError."""
        if name in self.broken:
            raise self.why_broken(name, undone)
        if name not in self.customers:
            known = ", ".join(sorted(self.customers)) or "none is configured"
            raise ConfigError(f"there is no customer {name}", hint=f"customers: {known}")
        return self.customers[name]

    def active_customer(self, name: str) -> Customer:
        """The customer, if its files are in order and it is on. Raises ConfigError that says what to do."""
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


# --- Read again


def reloaded(before: Configuration, fresh: Configuration) -> Configuration:
    """``fresh``, in which each customer whose files have mistakes now is as it was ``before``, if it was in
    order then. ``problems`` names every mistake that is on disk; ``broken`` holds only those customers of
    whom there is no good version to go on with.

    A customer is not kept when what it had before belongs to another by now: an external ID, a role or a
    place of one customer is never used for two.
    """
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
    """The keys of service.yaml that changed and that a running daemon cannot take over."""
    keys = ("vendor", "ledger", "engine", "unsafe_roles", "limits", "status_page")
    changed = [key for key in keys if getattr(before.service, key) != getattr(fresh.service, key)]
    of_daemon = ("workers", "first_retry_seconds", "longest_retry_seconds")
    old, new = before.service.daemon, fresh.service.daemon
    changed += [f"daemon.{key}" for key in of_daemon if getattr(old, key) != getattr(new, key)]
    if before.service.cluster.places != fresh.service.cluster.places:
        changed.append("cluster.places")
    return changed


def is_moved(before: Configuration, fresh: Configuration, name: str) -> bool:
    """Whether a delivery to the customer that runs now has to be begun anew: it is gone or off, or goes
    elsewhere, as somebody else, or from other files."""
    old, new = before.customers.get(name), fresh.customers.get(name)
    if old is None or new is None or old.state is not new.state:
        return True
    who = ("external_id", "role_arn", "destination")
    return any(getattr(old, key) != getattr(new, key) for key in who) or any(
        before.feeds.get(feed) != fresh.feeds.get(feed) or feed not in new.feeds for feed in old.feeds
    )
