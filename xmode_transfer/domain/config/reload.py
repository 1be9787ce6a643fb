"""What is in use after the files were read again while the service runs."""

from types import MappingProxyType

from xmode_transfer.domain.config.cross_check import cross_check
from xmode_transfer.domain.config.whole import Configuration


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
