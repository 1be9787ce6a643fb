"""Determine the feed and the period of a key under a destination's prefix from the key alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from xmode_transfer.config import Feed
from xmode_transfer.model.keys import MANIFESTS
from xmode_transfer.model.periods import Partition, period_labelled

_MANIFEST = re.compile(rf"([^/]+)/{MANIFESTS}/([^/]+)/([0-9]{{6,9}})\.json")


class Place(NamedTuple):
    """The feed and the period of a key; None where the path does not say."""

    feed: str | None
    period: str | None


class ManifestPlace(NamedTuple):
    """The feed, period and revision in a manifest's key."""

    feed: str
    period: str
    revision: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one destination. ``prefix`` ends with a slash; ``feeds`` has the customer's by name."""

    prefix: str
    feeds: Mapping[str, Feed]
    _partitions: dict[str, Partition | None] = field(default_factory=dict)

    def place(self, key: str) -> Place:
        """Returns the place of any key: a file's, a manifest's or an unmanaged one."""
        name, _, rest = key.removeprefix(self.prefix).partition("/")
        feed = self.feeds.get(name)
        if feed is None or not rest:
            return Place(None, None)
        manifest = manifest_place(self.prefix, key)
        if manifest is not None:
            return Place(name, manifest.period)
        partition = self._partition(feed)
        if partition is None:
            return Place(name, "none")
        depth = len(partition.segments)
        period = partition.period("/".join(rest.split("/")[:depth]))
        return Place(name, period.label if period is not None else None)

    def _partition(self, feed: Feed) -> Partition | None:
        if feed.name not in self._partitions:
            template = feed.partition
            self._partitions[feed.name] = None if template is None else Partition(template, feed.period)
        return self._partitions[feed.name]


def manifest_place(prefix: str, key: str) -> ManifestPlace | None:
    """Parses a manifest's key. Returns None for a key that none of our manifests can have."""
    match = _MANIFEST.fullmatch(key.removeprefix(prefix)) if key.startswith(prefix) else None
    if match is None or period_labelled(match[2]) is None:
        return None
    revision = int(match[3])
    if revision < 1 or match[3] != f"{revision:06d}":
        return None
    return ManifestPlace(match[1], match[2], revision)
