"""Connections of the page and of the probes: how long one may take, and how many there may be.

uvicorn waits for ever for a request that is never finished, and counts connections without asking whose they
are: a few hundred half-sent requests would keep everybody else out.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

REQUEST_SECONDS = 30.0
"""From when a connection is ready for a request until its answer is written. A client that takes longer to
send its request, or to read the answer of the one before, is disconnected."""
AT_ONCE = 200
"""Connections in all."""
AT_ONCE_PER_PEER = 32
"""Connections of one address, which a reverse proxy is too: as many requests as it hands on at once."""


class Connection(H11Protocol):
    """A connection that is not waited for without end, and that makes room for a newer one.

    Where there are too many, of one address or in all, the one that has waited longest without a complete
    request is closed. Where none waits, all are being answered, and the new one is told 503.
    """

    _timer: asyncio.TimerHandle | None = None
    _free_since = 0.0

    def connection_made(  # type: ignore[override]  # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self._await_request()
        everybody = [other for other in self.connections if isinstance(other, Connection)]
        peers = [other for other in everybody if other._address == self._address]
        if len(peers) > AT_ONCE_PER_PEER:
            self._make_room(peers)
        elif len(everybody) > AT_ONCE:
            self._make_room(everybody)

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    @property
    def _address(self) -> str | None:
        return self.client[0] if self.client else None

    @property
    def _waits(self) -> bool:
        answering: RequestResponseCycle | None = self.cycle  # uvicorn has None there before the first request
        return answering is None or answering.response_complete

    def _await_request(self) -> None:
        self._forget_timer()
        self._free_since = self.loop.time()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._disconnect)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _make_room(self, among: "list[Connection]") -> None:
        waiting = [other for other in among if other is not self and other._waits]
        if waiting:
            min(waiting, key=lambda other: other._free_since)._disconnect()
        else:
            self.limit_concurrency = 0

    def _disconnect(self) -> None:
        self.connections.discard(self)  # at once: what is lost is only told of later
        self.transport.abort()
