"""botocore's sessions and clients, which share one loader and have a limit for every wait and every answer.

With its own loader a session costs 200 ms and 13 MB, else 17 ms and 0.5 MB (boto3 1.44, one core).
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ReadTimeoutError, ResponseStreamingError
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import parse_timestamp
from urllib3.exceptions import HTTPError

from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.model.errors import ConfigError, Interrupted, Unavailable

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""The limit of a parsed answer. The longest, a page of a listing, has some 4 MB: 1,000 keys of 1 KB."""
MAX_ERROR_BYTES = 1024 * 1024
"""The limit of an error, and of the answer to a PUT or DELETE, which has no body."""
ANSWER_SECONDS = 90.0
"""The limit for the headers of an answer, and for a parsed body."""
SLOW_ANSWER_SECONDS = 600.0
"""The limit for what S3 may take minutes for (S3 API reference, CompleteMultipartUpload)."""
FINISH_SECONDS = 3.0
"""The time for the answer to a request that changes something, after a stop. Reads have none."""
_LEAST_BYTES_PER_SECOND = 16 * 1024
_WATCH_SECONDS = 0.2
_PIECE_BYTES = 64 * 1024
_READS = frozenset({"GET", "HEAD"})


def _pool(pool: Any, connection: Any, stop: threading.Event, reads_only: bool) -> Any:
    guarded = type(
        f"Guarded{connection.__name__}", (_Guarded, connection), {"stop": stop, "reads_only": reads_only}
    )
    return type(f"Guarded{pool.__name__}", (pool,), {"ConnectionCls": guarded})


class _Guarded:
    """A mix-in for botocore's connections."""

    stop: threading.Event
    reads_only: bool
    sock: Any

    def request(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self._reads = self.reads_only or method in _READS
        self._slow = method == "POST" and not self.reads_only
        self._most = MAX_ANSWER_BYTES if method in ("GET", "POST") else MAX_ERROR_BYTES
        with self._watched(None, lambda: self.sock, self._reads):
            return super().request(method, *args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        connected = self.sock  # the connection drops it, if it ends with this answer
        reads, most = self._reads, self._most
        seconds = ANSWER_SECONDS if reads else SLOW_ANSWER_SECONDS
        response: Any = None
        try:
            with self._watched(seconds, lambda: connected, reads):
                response = super().getresponse()  # type: ignore[misc]
        except BaseException:
            if response is not None:  # truncated headers look complete
                response.close()
            raise
        read = response.read

        def read_piece(amt: int | None = None, *args: Any, **kwargs: Any) -> bytes:
            """Read from a body that is streamed."""
            allowed = ANSWER_SECONDS + (amt or 0) / _LEAST_BYTES_PER_SECOND
            with _translated(response), self._watched(allowed, lambda: connected, reads):
                data: bytes = read(amt, *args, **kwargs)
            return data

        def stream(*_: Any, **__: Any) -> Iterator[bytes]:
            """Read what botocore parses, which it requests in this way only."""
            allowed = SLOW_ANSWER_SECONDS if self._slow else ANSWER_SECONDS
            with _translated(response), self._watched(allowed, lambda: connected, reads):
                yield _whole(read, most if response.status < 300 else MAX_ERROR_BYTES)

        response.read, response.stream = read_piece, stream
        return response

    @contextmanager
    def _watched(self, seconds: float | None, connected: Callable[[], Any], reads: bool) -> Iterator[None]:
        waiting = _Waiting(
            connected,
            None if seconds is None else time.monotonic() + seconds,
            self.stop,
            0.0 if reads else FINISH_SECONDS,
        )
        _watch.add(waiting)
        try:
            yield
        finally:
            _watch.remove(waiting)
            if waiting.stopped:
                raise BodyFailed(Interrupted("stopped on request, before AWS had answered"))
            if waiting.overdue:
                raise TimeoutError(f"no whole answer within {seconds:.0f} s")


def _whole(read: Callable[..., bytes], most: int) -> bytes:
    pieces, size = [], 0
    while piece := read(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise _refused(f"it has more than {most:,} bytes")
    whole = b"".join(pieces)
    # AWS declares no entities, of which a few bytes may become gigabytes; nor does it write UTF-16, in which
    # a declaration would not be seen here.
    if b"<!DOCTYPE" in whole or b"\0" in whole[:_PIECE_BYTES]:
        raise _refused("it declares a document type, or is no UTF-8")
    return whole


def _refused(why: str) -> BodyFailed:
    return BodyFailed(
        Unavailable(
            f"AWS never answers so: {why}",
            hint="Look at AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL_STS, and at the proxy "
            "between. Tried again by itself",
        )
    )


@contextmanager
def _translated(response: Any) -> Iterator[None]:
    """Raise botocore's errors for failures to read a body, and close it then."""
    try:
        yield
    except BaseException as error:
        response.close()
        if isinstance(error, TimeoutError):
            raise ReadTimeoutError(endpoint_url="the endpoint", error=error) from error
        if isinstance(error, HTTPError | OSError):
            raise ResponseStreamingError(error=error) from error
        raise


@dataclass(eq=False, slots=True)
class _Waiting:
    """A wait until that monotonic time, or for ``finish_seconds`` after a stop."""

    connected: Callable[[], Any]
    until: float | None
    stop: threading.Event
    finish_seconds: float
    stopped_at: float | None = None
    overdue: bool = False
    stopped: bool = False

    def check(self, now: float) -> None:
        if self.stop.is_set() and self.stopped_at is None:
            self.stopped_at = now
        stopped = self.stopped_at is not None and now - self.stopped_at >= self.finish_seconds
        overdue = self.until is not None and now > self.until
        connected = self.connected() if stopped or overdue else None
        if connected is None:  # not connected yet: that has a timeout of its own
            return
        self.stopped, self.overdue = stopped, overdue
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)


class _Watch:
    """One thread for the process, while there are waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[_Waiting] = set()
        self._thread: threading.Thread | None = None

    def add(self, waiting: _Waiting) -> None:
        with self._lock:
            self._waiting.add(waiting)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="http watch", daemon=True)
                self._thread.start()

    def remove(self, waiting: _Waiting) -> None:
        with self._lock:
            self._waiting.discard(waiting)

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(_WATCH_SECONDS)
            with self._lock:
                waiting = list(self._waiting)
                idle = 0 if waiting else idle + 1
                if idle > 50:
                    self._thread = None
                    return
            now = time.monotonic()
            for one in waiting:
                one.check(now)


_watch = _Watch()


DEFAULT_REGION = {
    "aws": "us-east-1",
    "aws-cn": "cn-north-1",
    "aws-us-gov": "us-gov-west-1",
    "aws-eusc": "eusc-de-east-1",
}
"""By partition: the Region that every account has enabled."""

CONNECT_TIMEOUT_SECONDS = 10
making_clients = threading.Lock()
"""Held while a client is made: botocore's sessions and loaders are not thread-safe, its clients are."""


class _Loader(Loader):  # type: ignore[misc]
    def list_available_services(self, type_name: str) -> list[str]:
        """Return every service with a directory. botocore would search each of 400: 25 ms of every start."""
        folders = (Path(path) for path in self.search_paths)
        return [service.name for folder in folders if folder.is_dir() for service in folder.iterdir()]


_loader = _Loader()


def new_session() -> Session:
    """Return a session that reads the standard AWS variables and files now."""
    session = Session()
    session.register_component("data_loader", _loader)
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_time_of)
    return session


def make_client(
    session: Session,
    service: str,
    region: str,
    *,
    attempts: int,
    read_timeout_seconds: float,
    stop: threading.Event | None = None,
    reads_only: bool = False,
    **more: Any,
) -> Any:
    """Return a client that waits for nothing without a limit. ``reads_only``: no request changes anything, by
    any method; ``more`` is for botocore's Config. Raises ConfigError for an endpoint variable that is no URL,
    and botocore's errors."""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=read_timeout_seconds,
        tcp_keepalive=True,
        user_agent_extra=f"xmode-transfer/{version('xmode-transfer')}",
        **more,
    )
    try:
        with making_clients:
            client = session.create_client(service, region_name=region, config=config)
    except BotoCoreError:
        raise
    except ValueError as error:
        name = service.upper()
        raise ConfigError(
            f"no {name} client can be made: {error}",
            hint=f"Look at AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_{name}",
        ) from error
    asked = stop or threading.Event()
    pools = {
        "http": _pool(AWSHTTPConnectionPool, AWSHTTPConnection, asked, reads_only),
        "https": _pool(AWSHTTPSConnectionPool, AWSHTTPSConnection, asked, reads_only),
    }
    http = client._endpoint.http_session
    http._pool_classes_by_scheme = http._manager.pool_classes_by_scheme = pools
    return client


def _time_of(said: object) -> datetime:
    """Parse a time of S3's. botocore lets dateutil guess, which is two thirds of the cost of a listing."""
    if isinstance(said, str):
        with suppress(ValueError):
            at = datetime.fromisoformat(said)
            if at.tzinfo is not None:
                return at
    parsed: datetime = parse_timestamp(said)
    return parsed
