"""Sends one request by the CRT: by awscrt's public API, or directly, without what costs a quarter of the time
of many small objects (docs/engine.md): the future and callbacks of ``S3Client.make_request``, and the
interpreter state that CPython makes and frees for each callback, four times an object."""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import _awscrt  # type: ignore[import-not-found]
import awscrt
from awscrt import NativeResource
from awscrt.exceptions import from_code
from awscrt.s3 import S3RequestType, S3ResponseError

Headers = Iterable[tuple[str, str]]

TESTED = frozenset({"0.38.1"})


def may_be_direct(version: str, *, has_lock: bool) -> bool:
    return version in TESTED and has_lock


_has_lock: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)  # Python 3.13 and later
IS_DIRECT = may_be_direct(awscrt.__version__, has_lock=_has_lock())
_DEFAULT = S3RequestType.DEFAULT.value
_REGION = "us-east-1"  # used for S3 Express only; every request is signed for its own


class Answered(Protocol):
    """Called on the CRT's event loops: first the headers of a success, then the end, once each."""

    def on_headers(self, headers: Headers) -> None: ...

    def on_done(self, error: BaseException | None) -> None: ...


_here = threading.local()


def keep_state() -> None:
    """Call it in each callback of the CRT. One ``PyGILState_Ensure`` without a release keeps the thread's
    interpreter state (C API, "Non-Python created threads"); the threads exist as long as the engine."""
    if IS_DIRECT and not hasattr(_here, "kept"):
        _here.kept = True
        ctypes.pythonapi.PyGILState_Ensure()


class _Request(NativeResource):  # type: ignore[misc]
    __slots__ = ()

    def cancel(self) -> None:
        _awscrt.s3_meta_request_cancel(self)


class _Callbacks:
    """The callbacks of the binding. They also keep alive what the native request uses."""

    __slots__ = ("_answered", "_request", "_signing")

    def __init__(self, answered: Answered, request: Any, signing: Any) -> None:
        self._answered = answered
        self._request = request
        self._signing = signing

    def _on_headers(self, status_code: int, headers: Headers) -> bool:
        self._answered.on_headers(headers)
        return True

    def _on_body(self, chunk: bytes, offset: int) -> bool:
        return True

    def _on_progress(self, progress: int) -> None:
        pass

    def _on_shutdown(self) -> None:
        pass

    def _on_finish(
        self,
        error_code: int,
        status_code: int,
        error_headers: list[tuple[str, str]] | None,
        error_body: bytes | None,
        error_operation: str | None,
        *_: Any,
    ) -> None:
        error = None
        if error_code:
            error = from_code(error_code)
            if status_code and error_headers is not None:
                error = S3ResponseError(
                    code=error.code,
                    name=error.name,
                    message=error.message,
                    status_code=status_code,
                    headers=error_headers,
                    body=error_body,
                    operation_name=error_operation,
                )
        self._answered.on_done(error)


def send(
    client: Any, operation: str, request: Any, signing: Any, answered: Answered, path: str | None = None
) -> Any:
    """Return an object with ``cancel()``. ``path`` is the file to send if the request has no body."""
    if not IS_DIRECT:
        return client.make_request(
            type=S3RequestType.DEFAULT,
            operation_name=operation,
            request=request,
            signing_config=signing,
            send_filepath=path,
            on_headers=lambda headers, **_: answered.on_headers(headers),
            on_done=lambda error, **_: answered.on_done(error),
        )
    sent = _Request()
    sent._binding = _awscrt.s3_client_make_meta_request(
        sent,
        client,
        request,
        _DEFAULT,
        operation,
        signing,
        None,  # credentials
        None,  # the file to write
        path,
        _REGION,
        0,  # checksum algorithm: ours is a header already
        0,  # checksum location
        False,  # validate the response's checksum
        None,  # expected checksum
        0,  # its algorithm
        0,  # validation mode
        0,  # part size
        0,  # multipart threshold
        False,  # options of file I/O given
        False,  # streaming
        0.0,  # disk throughput
        False,  # direct I/O
        0,  # connections: the client's
        _Callbacks(answered, request, signing),
    )
    return sent
