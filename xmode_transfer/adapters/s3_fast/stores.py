"""The engine's door: opens destinations, and holds what all customers of the process share."""

import threading

from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_fast.channel import Channel
from xmode_transfer.adapters.s3_fast.endpoints import Endpoints
from xmode_transfer.adapters.s3_fast.engine import SendingEngine
from xmode_transfer.adapters.s3_fast.store import FastStore
from xmode_transfer.adapters.s3_objects import PAGE_ROWS
from xmode_transfer.adapters.s3_portable import PortableStores
from xmode_transfer.domain.config import Customer, Limits
from xmode_transfer.ports import Clock, CredentialsProvider, EngineInfo

__all__ = ["FastStore", "FastStores"]


class FastStores(PortableStores):
    """Implements ``ports.ObjectStores``, within the process's limits: nothing need be put around it for
    them. What still waits when ``stop`` is set is given up as Interrupted."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        reason: str = "configured",
        page_size: int = PAGE_ROWS,
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(limits, clock, reason=reason, page_size=page_size, stop=stop)
        self.info = EngineInfo("fast", reason)
        self._endpoints = Endpoints()
        self._engine = SendingEngine(limits, clock, self._stop)

    def open(self, customer: Customer, credentials: CredentialsProvider, region: str | None) -> FastStore:
        calls = S3Calls(
            customer, credentials, region, self._clock, connections=self._connections, stop=self._stop
        )
        return FastStore(
            customer,
            calls,
            self._clock,
            self._threads,
            self._in_memory_bytes,
            page_size=self._page_size,
            channel=Channel(customer, credentials, region, calls, self._endpoints, self._clock),
            engine=self._engine,
        )

    def close(self) -> None:
        self._engine.close()
        super().close()
