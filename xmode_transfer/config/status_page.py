"""The status page: where it is served, and to whom."""

import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from xmode_transfer.config.base import Model, Secret

DEFAULT_PORT = 8321
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def check_listen(value: str) -> str:
    """An IP address, or localhost, and a port: ``127.0.0.1:8321``, ``[::1]:8321``. Port 0 is any free one."""
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        meant = f"127.0.0.1:{value.strip(':')}" if value.strip(":").isdigit() else f"{value}:{DEFAULT_PORT}"
        detail = f" (did you mean {meant}?)" if _ADDRESS.fullmatch(meant) and value else ""
        raise ValueError(f"write an address and a port, like 127.0.0.1:{DEFAULT_PORT}{detail}")
    host = match["host"].strip("[]")
    if host == "":
        raise ValueError(
            f"name the address to listen on: 127.0.0.1{value} for this machine alone, 0.0.0.0{value} for all"
        )
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(
                f"{host!r} is not an IP address; listen on 127.0.0.1, or on 0.0.0.0 with a token"
            ) from None
    return value


def host_and_port(listen: str) -> tuple[str, int]:
    """``[::1]:8321`` -> ``::1`` and 8321."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def check_host_name(value: str) -> str:
    """A name that browsers may call the page by, without scheme and port."""
    if _HOST_NAME.fullmatch(value) is None:
        meant = re.sub(r"^[a-z]+://|[:/].*$", "", value.lower().strip())
        detail = f" (did you mean {meant}?)" if _HOST_NAME.fullmatch(meant) else ""
        raise ValueError(f"{value!r} is not a host name; write it like status.example.com{detail}")
    return value


class StatusPage(Model):
    """Where the daemon serves the status page, /healthz, /readyz and /metrics."""

    listen: Annotated[str, AfterValidator(check_listen)] = Field(
        default=f"127.0.0.1:{DEFAULT_PORT}", examples=[f"127.0.0.1:{DEFAULT_PORT}"]
    )
    """Address and port. One that other machines can reach needs a token."""
    token: Secret | None = Field(default=None, examples=["file:/etc/xmode-transfer/page-token"])
    """Where the token lies that is asked for: file:PATH or env:NAME. Needed where other machines can reach
    the page."""
    hosts: tuple[Annotated[str, AfterValidator(check_host_name)], ...] = Field(
        default=(), examples=[["status.example.com"]]
    )
    """Further names that browsers call the page by, for instance through a proxy."""
    probes: Annotated[str, AfterValidator(check_listen)] | None = Field(
        default=None, examples=["0.0.0.0:8323"]
    )
    """Address and port of a listener for /healthz and /readyz alone, which answers them whatever happens to
    the page. It wants no token. Without it they are answered at the page's address alone."""

    @model_validator(mode="after")
    def _is_not_open(self) -> "StatusPage":
        if self.token is None and not self.is_local:
            raise ValueError(
                f"everybody who can reach {self.listen} could read the page; give it a token, or listen on "
                f"127.0.0.1:{self.port}"
            )
        return self

    @model_validator(mode="after")
    def _probes_are_elsewhere(self) -> "StatusPage":
        if self.probes is not None and self.port != 0 and host_and_port(self.probes)[1] == self.port:
            raise ValueError(
                f"`probes` has the page's port, {self.port}: give it another, such as 0.0.0.0:8323, or leave "
                "it out"
            )
        return self

    @property
    def host(self) -> str:
        """The address alone, without brackets."""
        return host_and_port(self.listen)[0]

    @property
    def port(self) -> int:
        return host_and_port(self.listen)[1]

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or ip_address(self.host).is_loopback


def _or_off(value: object) -> object:
    """YAML's ``off`` is text here, and so is no mapping."""
    if value is False or (isinstance(value, str) and value.lower() in ("off", "no", "false")):
        return None
    if value is None or isinstance(value, str | bool):
        raise ValueError(f'write off, or {{listen: "127.0.0.1:{DEFAULT_PORT}"}}')
    return value


class _InSchema:
    """What an editor may find in place of the mapping."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        page = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
        return {"anyOf": [page, {"enum": ["off", False]}]}


StatusPageSetting = Annotated[StatusPage | None, BeforeValidator(_or_off), _InSchema()]
"""None is ``off``."""
