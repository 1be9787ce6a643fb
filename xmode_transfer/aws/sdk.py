"""botocore's sessions and clients, all with one loader: the service models are read from disk once.

A session of its own loader costs 200 ms and 13 MB, one with the shared loader 17 ms and 0.5 MB (measured with
boto3 1.44 on one core); there is one for each customer whose bucket is open.
"""

import threading
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import parse_timestamp

from xmode_transfer.aws.http import guard
from xmode_transfer.model.errors import ConfigError

DEFAULT_REGION = {
    "aws": "us-east-1",
    "aws-cn": "cn-north-1",
    "aws-us-gov": "us-gov-west-1",
    "aws-eusc": "eusc-de-east-1",
}
"""By partition: the Region that every account has."""

CONNECT_TIMEOUT_SECONDS = 10
making_clients = threading.Lock()
"""Held while a client is made: botocore's sessions and loaders are not safe for threads, its clients are."""


class _Loader(Loader):  # type: ignore[misc]
    def list_available_services(self, type_name: str) -> list[str]:
        """Every service that has a directory. botocore asks before it loads a model, and would look into each
        of the 400 for the kind of model too: 25 ms of every start."""
        rooms = (Path(path) for path in self.search_paths)
        return [service.name for room in rooms if room.is_dir() for service in room.iterdir()]


@cache
def _loader() -> Loader:
    return _Loader()


def new_session() -> Session:
    """A session that reads the standard AWS variables and files as they are now."""
    session = Session()
    session.register_component("data_loader", _loader())
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
    only_looks: bool = False,
    **more: Any,
) -> Any:
    """A client with an end to everything that it waits for (``aws_http.guard``); ``attempts`` is how often it
    sends one request in all, ``more`` goes into botocore's Config. Raises ConfigError for an endpoint
    variable that is no URL, and what botocore raises."""
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
    return guard(client, stop, only_looks=only_looks)


def _time_of(said: object) -> datetime:
    """A time in an answer. botocore lets dateutil guess at its form, which takes two thirds of the whole
    cost of a listing; in S3's XML it is ISO 8601."""
    if isinstance(said, str):
        try:
            at = datetime.fromisoformat(said)
        except ValueError:
            pass
        else:
            if at.tzinfo is not None:
                return at
    found: datetime = parse_timestamp(said)
    return found
