"""The engine's door: opens destinations, and holds what all customers of the process share."""

from typing import Any

from xmode_transfer.adapters.retrying import RetryRules
from xmode_transfer.adapters.s3_fast.channel import Channel
from xmode_transfer.adapters.s3_fast.endpoints import Endpoints
from xmode_transfer.adapters.s3_fast.engine import SendingEngine
from xmode_transfer.adapters.s3_fast.store import FastStore
from xmode_transfer.adapters.s3_portable import PortableStores
from xmode_transfer.domain.config import Customer, Limits
from xmode_transfer.ports import Clock, CredentialsProvider, EngineInfo

__all__ = ["FastStore", "FastStores"]


class FastStores(PortableStores):
    """Implements ``ports.ObjectStores``, like the engine that it extends."""

    dispatcher: SendingEngine

    def __init__(self, limits: Limits, clock: Clock, *, reason: str = "configured", **more: Any) -> None:
        super().__init__(limits, clock, reason=reason, **more)
        self.info = EngineInfo("fast", reason)
        self._endpoints = Endpoints()

    def _make_dispatcher(self, limits: Limits, clock: Clock, rules: RetryRules | None) -> SendingEngine:
        return SendingEngine(limits, clock, self.stop, rules)

    def open(self, customer: Customer, credentials: CredentialsProvider, region: str | None) -> FastStore:
        calls = self.calls(customer, credentials, region)
        channel = Channel(customer, credentials, region, calls, self._endpoints, self.clock)
        return FastStore(self, customer, calls, channel)
