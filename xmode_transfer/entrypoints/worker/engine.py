"""Procrastinate's side of a worker: an event loop, on a thread of its own, that fetches jobs.

A job is a word that wakes, and nothing more: it keeps one of the worker's places for as long as its turn
does, and the turn goes on where the job is cut short. So whatever happens to the queue, a server that is
restarted or a network that is gone, the answer is one and the same: let go of all of it, and begin anew.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from procrastinate.exceptions import ConnectorException
from psycopg import Error as DatabaseError

from xmode_transfer import telemetry
from xmode_transfer.bootstrap.queue import TURNS, WAITING
from xmode_transfer.entrypoints.worker.fetching import Fetching, Job
from xmode_transfer.services.worker import Worker
from xmode_transfer.telemetry import Event

_LET_GO_SECONDS = 5.0
_LAST_TRIES = 4
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 10.0
_LIBRARIES = ("procrastinate", "psycopg.pool")
"""What they tell of a lost connection, each thread and task of theirs by itself, we tell once."""


class Engine:
    """From ``start`` to ``wait``. All but ``start`` may be called by any thread, and none waits but
    ``wait``."""

    def __init__(self, worker: Worker, conninfo: str) -> None:
        """``conninfo`` is libpq's string for the ledger's database; it may hold a password."""
        self._worker = worker
        self._conninfo = conninfo
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_tell_quietly)
        self._changed = asyncio.Event()
        self._wanted = True
        self._stopping = False
        self._ended = threading.Event()
        # They outlast a life of the fetchers: what began in an earlier one still has its place.
        self._places = {queue: asyncio.Semaphore(places) for queue, places in self._sizes().items()}
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            for name in _LIBRARIES:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        self._thread.start()

    def want(self, wanted: bool) -> None:
        """Whether jobs are to be fetched: not while something would meet every turn."""
        if wanted is not self._wanted:
            self._wanted = wanted
            self._wake()

    def stop(self) -> None:
        """Fetches no job any more. Turns that run have their places still, and go on."""
        self._stopping = True
        self._wake()

    def wait(self, seconds: float) -> bool:
        """After ``stop``: whether the queue was let go of."""
        return self._ended.wait(seconds)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._changed.set)

    def _sizes(self) -> dict[str, int]:
        return {TURNS: self._worker.places, WAITING: self._worker.waiting_places}

    # --- On the loop's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except Exception:  # noqa: BLE001 - a defect here must not keep the turns from ending
            telemetry.exception(Event.DEFECT)
        finally:
            self._loop.close()
            self._ended.set()

    async def _live(self) -> None:
        failures = 0
        while not self._stopping:
            if not self._wanted:
                await self._changed.wait()
                self._changed.clear()
                continue
            fetching = Fetching(self._conninfo, self._turn, self._sizes())
            error = await self._fetch(fetching, found=failures > 0)
            if fetching.began:
                failures = 0
            if error is not None:
                failures += 1
                self._tell_lost(error, first=failures == 1)
                pause = min(_FIRST_RETRY_SECONDS * 2 ** (failures - 1), _LONGEST_RETRY_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause)
        await _let_go_of_the_rest()

    async def _fetch(self, fetching: Fetching, *, found: bool) -> Exception | None:
        """Until it is not wanted any more, or breaks: answers what broke."""
        life = asyncio.create_task(fetching.live(lambda: self._tell_found(found)))
        while self._wanted and not self._stopping and not life.done():
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({life, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        life.cancel()
        await asyncio.wait({life})
        await fetching.close(_LET_GO_SECONDS)
        error = None if life.cancelled() else life.exception()
        return error if isinstance(error, Exception) else None

    async def _turn(self, job: Job) -> None:
        """Keeps a place until the customer's turn does not need it any more."""
        places = self._places[job.queue]
        await places.acquire()
        freed = asyncio.Event()

        def free() -> None:
            places.release()
            freed.set()

        self._worker.take(job.customer, waiting=job.queue == WAITING, freed=lambda: self._soon(free))
        await freed.wait()

    def _soon(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody counts places any more
            self._loop.call_soon_threadsafe(what)

    def _tell_lost(self, error: Exception, *, first: bool) -> None:
        if not isinstance(error, ConnectorException | DatabaseError):
            telemetry.error(Event.DEFECT, message=f"{type(error).__name__}: {error}")
        elif first:
            cause = error.__cause__ or error
            telemetry.warn(Event.QUEUE_LOST, message=" ".join(str(cause).split()))

    def _tell_found(self, found: bool) -> None:
        if found:
            telemetry.log(Event.QUEUE_FOUND)


async def _let_go_of_the_rest() -> None:
    """Tasks of Procrastinate's own that wait for a server that does not answer."""
    for _ in range(_LAST_TRIES):
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if not rest:
            return
        for task in rest:
            task.cancel()
        await asyncio.wait(rest, timeout=_LET_GO_SECONDS)


def _tell_quietly(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A job whose end could not be written: its turn stands in the ledger, and the job is buried with its
    worker."""
    error = context.get("exception")
    telemetry.debug(Event.QUEUE_LOST, message=f"{context.get('message')}: {error}")
