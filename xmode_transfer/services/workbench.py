"""What every use case works with: the ports, and the few things that belong to one execution."""

import threading
from dataclasses import dataclass, field

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.backoff import Backoff
from xmode_transfer.domain.config import Limits, UnsafeRoles, Vendor
from xmode_transfer.domain.errors import Interrupted
from xmode_transfer.ports import (
    Attestation,
    ChecksumOf,
    Clock,
    ObjectStores,
    Progress,
    RoleSessions,
    SourceFactory,
)


@dataclass(frozen=True, slots=True)
class Workbench:
    """The ports, put together by ``bootstrap``. ``stop`` is set when the process is asked to end; work then
    stops at the next object, recorded and resumable. ``holder`` names this process in leases. Without
    ``attestation`` nothing is signed or attested."""

    vendor: Vendor
    limits: Limits
    sources: SourceFactory
    sessions: RoleSessions
    stores: ObjectStores
    ledger: Ledger
    clock: Clock
    progress: Progress
    checksum_of: ChecksumOf
    holder: str
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER
    backoff: Backoff = field(default_factory=Backoff)
    stop: threading.Event = field(default_factory=threading.Event)
    attestation: Attestation | None = None

    @property
    def parallel(self) -> int:
        """Requests that are in flight at once for one customer."""
        return min(self.limits.parallel_objects, self.limits.parallel_objects_per_customer)

    def check_stop(self, hint: str) -> None:
        """Raises Interrupted when the process is asked to end; ``hint`` is what becomes of the work."""
        if self.stop.is_set():
            raise Interrupted("stopped on request", hint=hint)
