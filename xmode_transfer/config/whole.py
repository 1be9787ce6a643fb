"""The configuration as a whole, the mistakes that were found in it, and what is in use after the files were
read again while the service runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from xmode_transfer.config.cross_check import cross_check
from xmode_transfer.config.customer import Customer, CustomerState
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.service import Service
from xmode_transfer.model.errors import ConfigError


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
