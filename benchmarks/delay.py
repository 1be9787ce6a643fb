"""A network that is far away: passes connections on, and every byte so many seconds later, each way.

    python benchmarks/delay.py http://127.0.0.1:8080 0.025

prints the URL to use instead and runs until it is ended. It is a process of its own and delays without
holding anything up: what waits is on the event loop's clock, not in a queue of one connection behind another.
"""

import asyncio
import sys
from collections import deque
from urllib.parse import urlsplit


class Later(asyncio.Protocol):
    """One direction: what comes in here goes out of ``other`` later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.other: asyncio.Transport | None = None
        self._on_the_way: deque[bytes] = deque()
        self._arrived: list[bytes] = []  # before the other side was reached
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._on_the_way.append(data)
        asyncio.get_running_loop().call_later(self._seconds, self._pass_on)

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _pass_on(self) -> None:
        data = self._on_the_way.popleft()
        if self.other is None:
            self._arrived.append(data)
        elif not self.other.is_closing():
            self.other.write(data)

    def _end(self) -> None:
        if self.other is not None:
            self.other.close()

    def join(self, other: asyncio.Transport) -> None:
        self.other = other
        for data in self._arrived:
            other.write(data)
        self._arrived.clear()


async def serve(target: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    where = urlsplit(target)
    begun: set[asyncio.Task[None]] = set()

    def accepted() -> Later:
        near = Later(seconds)

        async def reach() -> None:
            # A handshake costs a round trip too.
            await asyncio.sleep(2 * seconds)
            far = Later(seconds)
            transport, _ = await loop.create_connection(lambda: far, where.hostname, where.port)
            assert near.transport is not None
            near.join(transport)
            far.join(near.transport)

        task = loop.create_task(reach())
        begun.add(task)
        task.add_done_callback(begun.discard)
        return near

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"{where.scheme}://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2])))
