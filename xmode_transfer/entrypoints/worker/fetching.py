"""One life of the fetchers: from a connection that is made to one that breaks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import DeleteJobCondition
from procrastinate.worker import Worker as Fetcher

from xmode_transfer.bootstrap.queue import CUSTOMER, TASK

_CONNECTIONS = 3
"""For all jobs together; each queue has one more, on which it listens."""
_CONNECTION_SECONDS = 10.0
_AGAIN_SECONDS = 0.1
_POLL_SECONDS = 5.0
"""Jobs are told of; who was not told finds them within this."""
_HEARTBEAT_SECONDS = 5.0
_NEVER_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was fetched."""

    queue: str
    customer: str


class Fetching:
    """Of no more use once it is closed. ``began`` when it has had a connection."""

    def __init__(
        self, conninfo: str, work: Callable[[Job], Awaitable[None]], places: Mapping[str, int]
    ) -> None:
        """``work`` is awaited for each job; ``places`` is how many at once, by queue."""
        self.began = False
        self._conninfo = conninfo
        self._broken: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._connector = _Connector(self._breaks, conninfo)
        app = App(connector=self._connector)

        async def job(context: JobContext, /, **arguments: Any) -> None:
            await work(Job(context.job.queue, arguments[CUSTOMER]))

        app.task(name=TASK, pass_context=True)(job)
        self._fetchers = [
            Fetcher(
                app,
                queues=[queue],
                name=queue,
                concurrency=count,
                fetch_job_polling_interval=_POLL_SECONDS,
                abort_job_polling_interval=_NEVER_SECONDS,  # turns are stopped by way of the ledger
                # A job is let go of at once. What it woke goes on.
                shutdown_graceful_timeout=0.0,
                delete_jobs=DeleteJobCondition.ALWAYS,
                install_signal_handlers=False,
                update_heartbeat_interval=_HEARTBEAT_SECONDS,
                # Whoever starts removes those that have been silent for so long. One that was only suspended
                # must still find itself when it wakes; what the dead left is LedgerQueue's to bury.
                stalled_worker_timeout=_NEVER_SECONDS,
            )
            for queue, count in places.items()
        ]
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self, began: Callable[[], None]) -> None:
        """Fetches jobs until something breaks, and raises that."""
        # The pool would try for long before it said that nobody is there.
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True):
            pass
        await self._connector.open_async()
        self.began = True
        began()
        for fetcher in self._fetchers:
            task = asyncio.create_task(fetcher.run())  # type: ignore[no-untyped-call]
            task.add_done_callback(self._fetcher_ended)
            self._tasks.add(task)
        raise await self._broken

    def _fetcher_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._breaks(error if isinstance(error, Exception) else ConnectorException("a fetcher has ended"))

    async def close(self, seconds: float) -> None:
        """Lets go of the jobs and the connections, and does not wait longer than that for either."""
        for fetcher in self._fetchers:
            fetcher.stop()  # type: ignore[no-untyped-call]
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        with suppress(TimeoutError, ConnectorException):
            await asyncio.wait_for(self._connector.close_async(), seconds)  # whoever waits for one gets none
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _breaks(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_result(error)


class _Connector(PsycopgConnector):
    """Tells at once of what fails. Procrastinate itself goes on after some failures, with jobs that count as
    begun for ever, or without an ear for new ones."""

    def __init__(self, failed: Callable[[Exception], None], conninfo: str) -> None:
        super().__init__(
            conninfo=conninfo,
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=_CONNECTION_SECONDS,
            name="queue",
        )
        self._failed = failed

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except ConnectorException as error:
            self._failed(error)
            raise

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        with self._telling():
            await super().execute_query_async(query, **arguments)

    async def execute_query_one_async(self, query: LiteralString, **arguments: Any) -> dict[str, Any]:
        with self._telling():
            row: dict[str, Any] = await super().execute_query_one_async(query, **arguments)
        return row

    async def execute_query_all_async(self, query: LiteralString, **arguments: Any) -> list[dict[str, Any]]:
        with self._telling():
            rows: list[dict[str, Any]] = await super().execute_query_all_async(query, **arguments)
        return rows

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Says once more a moment later what it hears: Procrastinate forgets a word that comes while it looks
        for jobs, and would find that job at its next poll only."""
        loop, again = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        waiting: set[str] = set()

        async def told(*, channel: str, payload: str) -> None:
            await on_notification(channel=channel, payload=payload)
            if channel not in waiting:
                waiting.add(channel)
                loop.call_later(_AGAIN_SECONDS, tell_again, channel, payload)

        def tell_again(channel: str, payload: str) -> None:
            waiting.discard(channel)
            task = asyncio.ensure_future(on_notification(channel=channel, payload=payload))
            again.add(task)
            task.add_done_callback(again.discard)

        with self._telling():
            await super().listen_notify(told, channels)
