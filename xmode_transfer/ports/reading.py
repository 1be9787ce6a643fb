"""Reading objects back, to prove their bytes."""

from collections.abc import Callable, Collection
from typing import Protocol

from xmode_transfer.domain.verification import ReadBack
from xmode_transfer.ports.stores import ObjectStore


class Reader(Protocol):
    """Reads within the customer's bandwidth, and that of the process."""

    def read(
        self, store: ObjectStore, key: str, algorithms: Collection[str], told: Callable[[int], None]
    ) -> ReadBack:
        """The object's size and the checksums of its bytes: by algorithm as S3 names it, in base64;
        ``sha256-hex`` in hex. An algorithm that cannot be computed on this machine is left out. ``told`` is
        called with the number of bytes as they come. What breaks off is begun anew a few times. Raises
        ObjectNotFound, Interrupted when we are asked to stop, and what the store raises. Thread-safe."""
        ...
