"""A delivery that several workers send."""

from collections.abc import Sequence
from typing import Protocol

from xmode_transfer.domain.records import Lease
from xmode_transfer.domain.sharing import Chunk, ChunkResult, Division, DivisionState, NameRange


class Shares(Protocol):
    """Divided deliveries, in the ledger. A delivery has one division at a time, of the closer who holds its
    lease.

    A chunk's lease is under the delivery's: as soon as somebody else claims the delivery, or the closer gives
    it back, whoever still works on a chunk is refused (LeaseLost) at the next write. So nobody who plans a
    delivery anew need know of chunks. Every method may raise what ``Ledger`` raises. Thread-safe.
    """

    def divide(self, division: Division, ranges: Sequence[NameRange], helpers: int) -> None:
        """Records the chunks, in place of those that another closer has left behind, and calls so many
        helpers, in one transaction: a helper that comes finds the chunks. Once for one generation of the
        delivery's lease. Raises LeaseLost."""
        ...

    def ask(self, division: Division, helpers: int) -> None:
        """Calls helpers again, where the first have gone: afterwards no more than that many are called and
        have not come. Raises LeaseLost."""
        ...

    def state(self, delivery_id: str) -> DivisionState | None:
        """How the delivery's division stands; None when it is not divided, or nobody holds its lease any more
        as it was."""
        ...

    def take(self, division: Division, holder: str, ttl_seconds: float) -> Chunk | None:
        """The first chunk that nobody works on: it was not taken, or was given back, or its lease has ended,
        or its holder is known to be dead. None when there is none now, or when they were called off. Raises
        LeaseLost when the division is no more."""
        ...

    def tell(self, chunk: Chunk, sent_bytes: int) -> None:
        """How much of the chunk was sent by now. Raises LeaseLost."""
        ...

    def finish(self, chunk: Chunk, result: ChunkResult) -> None:
        """The chunk is done, whatever came of it, and its lease is given back. Raises LeaseLost, and changes
        nothing, when somebody else has taken over."""
        ...

    def give_back(self, chunk: Chunk, result: ChunkResult) -> None:
        """Whoever takes the chunk next goes on with it. Of the result, what was sent is kept, failures are
        not: they are tried again. As ``finish`` besides; no error when the chunk is no longer ours."""
        ...

    def call_off(self, division: Division) -> None:
        """Nothing more is taken, and helpers are to end where it can be gone on from. Raises LeaseLost."""
        ...

    def withdraw(self, lease: Lease, delivery_id: str) -> bool:
        """Takes all chunks of the delivery back, whoever has divided it: who still works on one is refused
        from now on. Answers whether anybody did who is not known to be dead. Idempotent. Raises
        LeaseLost."""
        ...
