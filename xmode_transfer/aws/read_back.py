"""Reads objects back and sums their bytes: the port ``Reader``."""

import base64
import hashlib
import threading
from collections.abc import Callable, Collection
from typing import Any

from xmode_transfer.aws import checksums
from xmode_transfer.aws.retrying import Allowances
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import ChecksumMismatch, Interrupted, RequestRefused, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.upkeep import SHA256_HEX, ReadBack

ATTEMPTS = 3
"""How often one object is begun in all; the request's own retries come beneath."""


class PacedReader:
    """Implements ``aws.stores.Reader`` for one customer. All its threads share the bandwidth."""

    def __init__(self, customer: Customer, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        self._allowances = Allowances(limits, clock).of(customer.name, customer.limits)
        self._lock = threading.Lock()
        self._stop = stop

    def read(
        self, store: ObjectStore, key: str, algorithms: Collection[str], told: Callable[[int], None]
    ) -> ReadBack:
        attempt, come = 1, 0

        def tell(count: int) -> None:
            nonlocal come
            come += count
            told(count)

        while True:
            try:
                return self._read(store, key, algorithms, tell)
            except XmodeError as error:
                if not error.retryable or attempt == ATTEMPTS:
                    raise
            told(-come)  # it begins anew
            attempt, come = attempt + 1, 0

    def _read(
        self, store: ObjectStore, key: str, algorithms: Collection[str], told: Callable[[int], None]
    ) -> ReadBack:
        sums = {name: summed for name in algorithms if (summed := _running(name)) is not None}
        size = 0
        try:
            for chunk in store.read(key):
                self._pace(len(chunk))
                size += len(chunk)
                for summed in sums.values():
                    summed.update(chunk)
                told(len(chunk))
        except ChecksumMismatch:
            # The SDK compares too, at the end: every byte has come, and is not what S3 says of it. Whether it
            # is what was delivered, our own sums say.
            if size == 0:
                raise
        return ReadBack(size, {name: _told(name, summed) for name, summed in sums.items()})

    def _pace(self, length: int) -> None:
        """Waits until what was read before is paid for, then takes this from the allowance."""
        while True:
            if self._stop.is_set():
                raise Interrupted("stopped on request", hint="a verification begins anew")
            with self._lock:
                seconds = max((allowance.wait() for allowance in self._allowances), default=0.0)
                if seconds <= 0:
                    for allowance in self._allowances:
                        allowance.take(length)
                    return
            self._stop.wait(seconds)


def _running(name: str) -> Any:
    if name == SHA256_HEX:
        return hashlib.sha256()
    try:
        return checksums.running(name)
    except RequestRefused:
        return None


def _told(name: str, summed: Any) -> str:
    digest: bytes = summed.digest()
    return digest.hex() if name == SHA256_HEX else base64.b64encode(digest).decode("ascii")
