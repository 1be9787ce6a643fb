"""What no single file can show: two customers who claim the same, feeds that do not exist, roles of our own.

An external ID, a role and a place in a bucket each belong to one customer, retired ones included: otherwise
whoever gets a file accepted with another's role receives, or has things deleted, in that other's name (IAM
user guide, "The confused deputy problem").
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

from xmode_transfer.config.base import did_you_mean
from xmode_transfer.config.customer import Customer, CustomerState
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.names import parse_iam
from xmode_transfer.config.service import Vendor
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
