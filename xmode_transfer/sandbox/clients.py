"""boto3 clients for the sandbox that nothing of the caller's own AWS set-up can lead astray.

With them one sees a customer's bucket as the customer itself does, past every policy.
"""

import os
import threading
from typing import Any

from xmode_transfer.sandbox.model import CustomerSetup, Keys

_clients: dict[tuple[str, ...], Any] = {}
_sessions: list[Any] = []
_lock = threading.Lock()


def client(
    service: str, *, endpoint: str, access_key_id: str, secret_access_key: str, region: str, token: str = ""
) -> Any:
    """A client, made once for the same arguments; clients may be shared between threads.

    Profiles, configuration files and proxies of the environment are left aside: the sandbox is on loopback.
    """
    key = (service, endpoint, access_key_id, secret_access_key, region, token)
    with _lock:
        if key not in _clients:
            _clients[key] = _make(*key)
        return _clients[key]


def root_client(endpoint: str, root: Keys, service: str, region: str) -> Any:
    """A client of an account's root."""
    return client(
        service,
        endpoint=endpoint,
        access_key_id=root.access_key_id,
        secret_access_key=root.secret_access_key,
        region=region,
    )


def owner(customer: CustomerSetup, service: str) -> Any:
    """A client of the customer's account, as its root."""
    return root_client(customer.endpoint, customer.root, service, customer.region)


def read_object(customer: CustomerSetup, key: str) -> bytes:
    """The object's bytes. Raises botocore's NoSuchKey when there is none."""
    with owner(customer, "s3").get_object(Bucket=customer.bucket, Key=key)["Body"] as body:
        data: bytes = body.read()
    return data


def list_keys(customer: CustomerSetup, prefix: str = "") -> list[str]:
    """The keys in the bucket, in order: the current objects only."""
    pages = owner(customer, "s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=customer.bucket, Prefix=prefix)
    return [entry["Key"] for page in found for entry in page.get("Contents", ())]


def forget(endpoint: str) -> None:
    """Closes the clients of a sandbox that is being stopped."""
    with _lock:
        for key in [key for key in _clients if key[1] == endpoint]:
            _clients.pop(key).close()


def _make(service: str, endpoint: str, access_key_id: str, secret: str, region: str, token: str) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    if not _sessions:  # one for all: it keeps the service models that it has read
        session_vars = {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
        _sessions.append(Session(session_vars=session_vars))
    return _sessions[0].create_client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(
            proxies={},
            retries={"mode": "standard", "total_max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )
