"""What every use case works with: the ports, and the few things that belong to one execution."""

import threading
from dataclasses import dataclass, field

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.backoff import Backoff
from xmode_transfer.domain.config import Cluster, Limits, UnsafeRoles, Vendor
from xmode_transfer.ports import (
    Attestation,
    ChecksumOf,
    Clock,
    ObjectStores,
    Progress,
    RoleSessions,
    Shares,
    SourceFactory,
    Spool,
)


@dataclass(frozen=True, slots=True)
class Sharing:
    """What it takes to send a large delivery with several workers. ``look_seconds`` is how often each of them
    looks at what the others do."""

    shares: Shares
    rules: Cluster
    look_seconds: float = 2.0

    def is_large(self, count: int, size: int) -> bool:
        """Whether so many pending objects, with so many bytes, are worth while to be divided."""
        return count > self.rules.share_above_objects or size > self.rules.share_above_bytes


@dataclass(frozen=True, slots=True)
class Workbench:
    """The ports, put together by ``bootstrap``. ``stop`` is set when the process is asked to end; work then
    stops at the next object, recorded and resumable. ``holder`` names this process in leases. Without
    ``sharing`` each delivery is sent by one worker; without ``attestation`` nothing is signed or attested."""

    vendor: Vendor
    limits: Limits
    sources: SourceFactory
    sessions: RoleSessions
    stores: ObjectStores
    ledger: Ledger
    clock: Clock
    progress: Progress
    checksum_of: ChecksumOf
    spool: Spool
    holder: str
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER
    backoff: Backoff = field(default_factory=Backoff)
    stop: threading.Event = field(default_factory=threading.Event)
    sharing: Sharing | None = None
    attestation: Attestation | None = None
