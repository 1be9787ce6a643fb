"""The context of an execution: the interfaces and settings that deliveries and upkeep work with."""

import threading
from dataclasses import dataclass, field

from xmode_transfer.aws.sessions import RoleSessions
from xmode_transfer.aws.stores import ObjectStores
from xmode_transfer.config import Limits, UnsafeRoles, Vendor
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.backoff import Backoff
from xmode_transfer.model.errors import Interrupted
from xmode_transfer.model.process import Attestation, Clock, Progress
from xmode_transfer.sources.interface import ChecksumOf, SourceFactory


@dataclass(frozen=True, slots=True)
class Context:
    """The ports, put together by ``service.assembly``. ``stop`` is set when the process is asked to end;
    work then stops at the next object, recorded and resumable. ``holder`` names this process in leases.
    Without ``attestation`` nothing is signed or attested."""

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
        """The number of concurrent requests for one customer."""
        return min(self.limits.parallel_objects, self.limits.parallel_objects_per_customer)

    def check_stop(self, hint: str) -> None:
        """Raises Interrupted when the process is asked to end; ``hint`` says how the work
        continues."""
        if self.stop.is_set():
            raise Interrupted("stopped on request", hint=hint)
