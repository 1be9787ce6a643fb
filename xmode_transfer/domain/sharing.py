"""One delivery that several workers send: how it is divided, and what comes of the pieces.

Who holds the delivery's lease, the *closer*, divides what is pending into chunks, each a range of names.
Workers that help take chunks, and the closer does; the closer alone puts the manifest. Each chunk is worked
on under a lease of its own, which is good only as long as the delivery's is.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xmode_transfer.domain.config import Customer, Feed
from xmode_transfer.domain.records import Failure, Lease, PlannedObject

MOST_CHUNKS = 400
"""A delivery is divided into no more chunks than about this: larger deliveries have larger chunks."""
MOST_KEPT_FAILURES = 20


@dataclass(frozen=True, slots=True)
class NameRange:
    """The pending objects of which the names come after ``after``, up to and with ``last``; how many there
    were, and their bytes."""

    after: str
    last: str
    objects: int
    size: int


@dataclass(frozen=True, slots=True)
class Division:
    """A delivery as it was divided by the holder of ``lease``, which is the delivery's. ``fingerprint``
    stands for the configuration that the closer sends by."""

    delivery_id: str
    customer: str
    lease: Lease
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece, as whoever took it has it. ``lease`` is ``chunk/<customer>/<delivery>/<number>``."""

    division: Division
    number: int
    names: NameRange
    lease: Lease


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What came of a chunk. ``failures`` are the names of objects that did not get through, with the reason:
    the first few. ``passing`` that all failures are of the kind that passes. ``halted`` is what would meet
    every other object too. ``stale`` as in ``services.sending.Sent``."""

    uploaded: int = 0
    uploaded_bytes: int = 0
    adopted: int = 0
    failed: int = 0
    failures: tuple[tuple[str, Failure], ...] = ()
    passing: bool = False
    halted: Failure | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class ChunkState:
    """How a chunk stands: ``holder`` is who works on it now (None: nobody), ``worked_by`` who did so last.
    ``told_bytes`` is how much of it was sent, as far as its worker has told. ``result`` has what is known of
    it, and is the last word when ``done``."""

    number: int
    names: NameRange
    done: bool
    holder: str | None
    worked_by: str | None
    told_bytes: int
    result: ChunkResult


@dataclass(frozen=True, slots=True)
class DivisionState:
    """How a divided delivery stands. ``called_off`` means that the closer wants it back: helpers end where it
    can be gone on from."""

    division: Division
    chunks: Sequence[ChunkState]
    called_off: bool = False

    @property
    def open_count(self) -> int:
        return sum(not chunk.done for chunk in self.chunks)

    @property
    def unclaimed_count(self) -> int:
        return sum(not chunk.done and chunk.holder is None for chunk in self.chunks)

    @property
    def holders(self) -> frozenset[str]:
        """The processes that send now."""
        return frozenset(chunk.holder for chunk in self.chunks if not chunk.done and chunk.holder)

    @property
    def halted(self) -> Failure | None:
        return next((chunk.result.halted for chunk in self.chunks if chunk.result.halted), None)

    @property
    def ends(self) -> bool:
        """Whether nothing more of it is to be sent."""
        return self.called_off or not self.open_count or self.halted is not None


def divide(pending: Iterable[PlannedObject], chunk_objects: int, chunk_bytes: int) -> Iterator[NameRange]:
    """The ranges of names into which pending objects, given in the order of their names, are divided: up to
    so many objects and bytes each; an object that is larger by itself is alone in its range."""
    after, last, objects, size = "", "", 0, 0
    for planned in pending:
        if objects and (objects >= chunk_objects or size + planned.size > chunk_bytes):
            yield NameRange(after, last, objects, size)
            after, objects, size = last, 0, 0
        last = planned.name
        objects += 1
        size += planned.size
    if objects:
        yield NameRange(after, last, objects, size)


def large_enough(chunk: int, total: int) -> int:
    """How large chunks are, in objects or bytes, so that a delivery of that total has no more than about
    ``MOST_CHUNKS``."""
    return max(chunk, -(-total // MOST_CHUNKS))


def fingerprint(customer: Customer, feed: Feed) -> str:
    """Stands for how the customer's feed is delivered by the configuration: a worker that has read another
    one must not help, since it would send from elsewhere, or to elsewhere."""
    text = f"{customer.model_dump_json()}\0{feed.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def part_of(holders: Iterable[str], holder: str) -> int:
    """Into how many equal shares what a customer may take is divided now, for one of the processes that send
    to it."""
    return len({*holders, holder})
