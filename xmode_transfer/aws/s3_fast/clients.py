"""The CRT: event loops, name resolution, and one ``S3Client`` for everybody.

The client is told per request where to send, as whom and in which Region. It keeps connections by host name
alone, so each port has a client of its own (tried with awscrt 0.38): with AWS that is one, for HTTPS.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

from awscrt.exceptions import AwsCrtError
from awscrt.io import (
    ClientBootstrap,
    ClientTlsContext,
    DefaultHostResolver,
    EventLoopGroup,
    TlsConnectionOptions,
    TlsContextOptions,
)
from awscrt.s3 import S3Client, S3RequestTlsMode, S3RetryConfig, S3RetryMode
from botocore.httpsession import get_cert_path

from xmode_transfer.aws.sdk import new_session
from xmode_transfer.model.errors import ConfigError

CONNECT_TIMEOUT_SECONDS = 10
SHUTDOWN_SECONDS = 5.0
_MOST_LOOPS = 4
_MOST_HOSTS = 256
_AMPLE_GBPS = 400.0
"""From this the client derives how many connections it may have; the real bound is ``connections``."""
_UNUSABLE = (AwsCrtError, RuntimeError)  # awscrt raises either
_ANY_REGION = "us-east-1"
"""The client wants one; each request is signed for its own."""


class Clients:
    """Thread-safe. Nothing is started before the first request."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._clients: dict[tuple[bool, int], Any] = {}
        self._bootstrap: Any = None
        self._loops: Any = None

    def get(self, *, tls: bool, port: int) -> Any:
        """The client for that scheme and port. Raises ConfigError when the CA bundle cannot be used."""
        client = self._clients.get((tls, port))
        if client is None:
            with self._lock:
                client = self._clients.get((tls, port))
                if client is None:
                    client = self._clients[(tls, port)] = self._new(tls=tls)
        return client

    def close(self) -> None:
        """Waits until connections and threads are gone, five seconds at most. Idempotent."""
        with self._lock:
            shutdowns = [client.shutdown_event for client in self._clients.values()]
            self._clients.clear()
            if self._bootstrap is not None:
                shutdowns += [self._bootstrap.shutdown_event, self._loops.shutdown_event]
                self._bootstrap = self._loops = None
        end = time.monotonic() + SHUTDOWN_SECONDS
        for shutdown in shutdowns:
            shutdown.wait(max(0.0, end - time.monotonic()))

    def _new(self, *, tls: bool) -> Any:
        if self._bootstrap is None:
            self._loops = EventLoopGroup(max(1, min(_MOST_LOOPS, (os.cpu_count() or 1) // 2)))
            hosts = min(_MOST_HOSTS, max(64, self._connections))
            self._bootstrap = ClientBootstrap(self._loops, DefaultHostResolver(self._loops, hosts))
        return S3Client(
            bootstrap=self._bootstrap,
            region=_ANY_REGION,
            tls_mode=S3RequestTlsMode.ENABLED if tls else S3RequestTlsMode.DISABLED,
            tls_connection_options=_tls() if tls else None,
            throughput_target_gbps=_AMPLE_GBPS,
            max_active_connections_override=self._connections,
            connect_timeout_ms=CONNECT_TIMEOUT_SECONDS * 1000,
            retry_config=S3RetryConfig(retry_mode=S3RetryMode.NONE),  # retries are ours: pacing.py
        )


def _tls() -> Any:
    """AWS_CA_BUNDLE or a profile's ``ca_bundle``, else the machine's own certificates, else botocore's."""
    bundle = new_session().get_config_variable("ca_bundle")
    if bundle:
        return _trusting(Path(bundle), f"AWS_CA_BUNDLE ({bundle})")
    try:
        return TlsConnectionOptions(ClientTlsContext(TlsContextOptions()))
    except _UNUSABLE:  # no store of certificates on this machine
        return _trusting(Path(get_cert_path(True)), "botocore's list of certificates")


def _trusting(path: Path, named: str) -> Any:
    options = TlsContextOptions()
    try:
        options.override_default_trust_store(path.read_bytes())
        return TlsConnectionOptions(ClientTlsContext(options))
    except (OSError, *_UNUSABLE) as error:
        raise ConfigError(
            f"{named} cannot be used: {error}", hint="It is a file of PEM certificates"
        ) from error
