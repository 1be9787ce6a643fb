"""The models of service.yaml."""

import base64
import re
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from xmode_transfer.config.base import ByteCount, Model, Slug
from xmode_transfer.config.names import check_region, check_region_in, check_user, parse_iam
from xmode_transfer.config.schedule import BandwidthLimit, Schedule, TimeOfDay, Timezone
from xmode_transfer.config.secrets import LedgerLocation, Secret
from xmode_transfer.model.errors import Responsible

MIB = 1024 * 1024
DEFAULT_PORT = 8321
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_KEY_INFO = bytes.fromhex("302a300506032b6570032100")  # before an Ed25519 key in PEM: RFC 8410, section 10.1


class Engine(StrEnum):
    AUTO = "auto"  # fast if it works on this machine, else portable; the log has the choice and its reason
    FAST = "fast"
    PORTABLE = "portable"


class UnsafeRoles(StrEnum):
    """The response to a role that the last access check could assume without its external ID."""

    DELIVER = "deliver"  # deliveries continue; the check has a critical finding
    STOP = "stop"  # deliveries are blocked until a check finds the role fixed


class Ownership(StrEnum):
    """The sign-ups that must prove that the bucket is their own, before they are activated."""

    REQUIRED = "required"  # all
    COMPANY_IDS = "company_ids"  # those with an external ID that others can guess
    OFF = "off"  # none


class Vendor(Model):
    """Our own identity, which customers' roles trust."""

    principal_arn: Annotated[str, AfterValidator(check_user)] = (
        "arn:aws:iam::366810793500:user/xmode-data-transfer"
    )
    """ARN of the IAM user that customers' trust policies name."""
    sts_region: Annotated[str, AfterValidator(check_region)] = Field(
        default="us-east-1", validate_default=True
    )
    """Region of the STS endpoint for role sessions."""
    verify_identity: bool = True
    """Verify our identity with STS (GetCallerIdentity). Use false for S3-compatible stores without this call:
    Ceph RGW and MinIO."""

    @field_validator("sts_region")
    @classmethod
    def _in_partition(cls, value: str, info: ValidationInfo) -> str:
        if "principal_arn" in info.data:
            partition = parse_iam(info.data["principal_arn"], "user").partition
            check_region_in(value, partition, "principal_arn")
        return value

    @property
    def account_id(self) -> str:
        return parse_iam(self.principal_arn, "user").account_id

    @property
    def partition(self) -> str:
        return parse_iam(self.principal_arn, "user").partition


class Onboarding(Model):
    ownership: Ownership = Ownership.COMPANY_IDS
    """Sign-ups that must return a token from their bucket before they are activated: required (all),
    company_ids (those whose external ID is the company's name) or off."""


class Limits(BandwidthLimit):
    parallel_objects: int = Field(default=16, ge=1, le=1024)
    """Parallel requests with a body, for the whole process."""
    parallel_objects_per_customer: int = Field(default=16, ge=1, le=1024)
    """Parallel requests with a body for one customer, so that one cannot take all."""
    memory_bytes: ByteCount = Field(default=128 * MIB, ge=5 * MIB)
    """Memory for bodies in flight, in bytes or like 256MiB; at least 5 MiB, S3's smallest part."""
    role_sessions_per_second: int = Field(default=20, ge=1, le=1_000)
    """Role sessions requested from STS per second, by the process or by all workers of a cluster."""


class Daemon(Model):
    """Settings of `xmode-transfer daemon`. The defaults fit thousands of customers on one machine."""

    workers: int = Field(default=16, ge=1, le=256)
    """Deliveries that run at once, at most one per customer."""
    tick_seconds: int = Field(default=60, ge=1, le=600)
    """Seconds between two ticks. Customers without a schedule are scanned at each tick."""
    spread_seconds: int = Field(default=60, ge=0, le=86_400)
    """Seconds over which customers with the same schedule are spread; each has a fixed offset."""
    turn_seconds: int = Field(default=600, ge=1, le=86_400)
    """Seconds after which a delivery yields its slot to waiting customers and is queued again."""
    drain_seconds: int = Field(default=15, ge=0, le=86_400)
    """Seconds that running deliveries have to finish after SIGTERM before they are interrupted."""
    first_retry_seconds: int = Field(default=30, ge=1, le=86_400)
    """Seconds until a failed or refused delivery is retried; each failure doubles them."""
    longest_retry_seconds: int = Field(default=900, ge=1, le=86_400)
    """Most seconds until a retry."""
    cleanup: Schedule | None = Schedule(cron="15 2 * * *")
    """When cleanups run, spread over an hour; null: never automatically."""
    access_checks: Schedule | None = Schedule(cron="45 4 * * *")
    """When each customer's access is checked, spread over an hour; null: only after a refusal."""
    health: Schedule = Schedule(cron="* * * * *")
    """When health is computed and alerts are opened, repeated and resolved."""


class Cluster(Model):
    places: int | None = Field(default=None, ge=1, le=256)
    """Slots of one `worker`; null: as many as `daemon.workers`, which a daemon that delivers itself always
    has."""
    turn_bytes: ByteCount = Field(default=50 * 1024 * MIB, ge=1)
    """Bytes after which a delivery yields its slot, in bytes or like 50GiB; or `daemon.turn_seconds`,
    whichever comes first."""


def raw_public_key(text: str) -> bytes:
    """Return the 32 bytes of an Ed25519 public key in base64, with or without PEM's header, or ValueError."""
    try:
        raw = base64.b64decode(text, validate=True).removeprefix(_KEY_INFO)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ValueError("write the line between BEGIN and END in the key's .pub file")
    return raw


def _check_public_key(text: str) -> str:
    raw_public_key(text)
    return text


class Receipts(Model):
    """Keys for signatures of manifests and of the receipts that ``verify --receipt`` writes."""

    key: Secret | None = Field(default=None, examples=["file:/etc/xmode-transfer/receipts.pem"])
    """Our Ed25519 private key in PEM: file:PATH or env:NAME. Default: nothing is signed."""
    public_keys: tuple[Annotated[str, AfterValidator(_check_public_key)], ...] = Field(
        default=(), examples=[["MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]]
    )
    """Further public keys of ours, earlier ones included; the same on all machines. Each is the line between
    BEGIN and END of a .pub file."""


class Channel(Model):
    """A channel for alerts: a webhook, or a service that Apprise supports."""

    name: Slug = Field(examples=["on-call"])
    """Its name in `alerts test --channel` and in the log."""
    webhook: Secret | None = Field(default=None, examples=["env:ALERT_WEBHOOK"])
    """Reference to its URL; each message is one POST of JSON (docs/alerts.md)."""
    token: Secret | None = Field(default=None, examples=["file:/run/secrets/webhook-token"])
    """Reference to the webhook's bearer token. Default: none is sent."""
    apprise: Secret | None = Field(default=None, examples=["file:/run/secrets/slack-url"])
    """Reference to an Apprise URL: Slack, PagerDuty, e-mail, SNS and more. Needs the extra `alerts`."""
    responsible: tuple[Responsible, ...] = Field(
        default=tuple(Responsible), min_length=1, examples=[["vendor", "aws"]]
    )
    """Alerts that the channel gets, by who is responsible: vendor, customer, aws. Default: all."""
    only_urgent: bool = False
    """Send only urgent alerts, for instance to a pager."""

    @model_validator(mode="after")
    def _one_way(self) -> "Channel":
        if (self.webhook is None) == (self.apprise is None):
            raise ValueError("give one of webhook and apprise: where its URL is kept")
        if self.token is not None and self.webhook is None:
            raise ValueError("token goes with webhook; an Apprise URL holds its own")
        return self


class QuietHours(Model):
    """Hours in which only urgent alerts are sent. The others follow afterwards if they are still open."""

    begins: TimeOfDay = Field(alias="from", examples=["22:00"])
    """Time of day at which they begin."""
    until: TimeOfDay = Field(examples=["07:00"])
    """Time of day at which they end; before `from`: on the next day."""
    timezone: Timezone = Field(default="UTC", examples=["Europe/Berlin"])
    """IANA name of the time zone of both."""

    @model_validator(mode="after")
    def _some_hours(self) -> "QuietHours":
        if self.begins == self.until:
            raise ValueError("from and until are the same time; remove quiet_hours, or make them differ")
        return self

    def holds(self, now: datetime) -> bool:
        local = now.astimezone(ZoneInfo(self.timezone)).time()
        if self.begins < self.until:
            return self.begins <= local < self.until
        return local >= self.begins or local < self.until


class Heartbeat(Model):
    url: Secret = Field(examples=["env:HEARTBEAT_URL"])
    """Reference to the URL that is requested (GET) while no urgent alert is open."""
    every_seconds: int = Field(default=300, ge=60, le=86_400)
    """Seconds between two pings."""


class Alerting(Model):
    repeat_hours: float = Field(default=4, gt=0, le=720)
    """Hours after which an open alert is sent again."""
    quiet_hours: QuietHours | None = None
    """Hours in which only urgent alerts are sent. Default: none."""
    heartbeat: Heartbeat | None = None
    """A ping to a dead-man's switch, which alerts when the heartbeat stops. Default: none."""


def _check_names(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    names = [channel.name for channel in channels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two channels are called {twice}; give each a name of its own")
    return channels


def _check_listen(value: str) -> str:
    """Check an IP address or localhost with a port: ``127.0.0.1:8321``, ``[::1]:8321``; port 0: any free."""
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
    """Split ``[::1]:8321`` into ``::1`` and 8321."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def _check_host_name(value: str) -> str:
    if _HOST_NAME.fullmatch(value) is None:
        meant = re.sub(r"^[a-z]+://|[:/].*$", "", value.lower().strip())
        detail = f" (did you mean {meant}?)" if _HOST_NAME.fullmatch(meant) else ""
        raise ValueError(f"{value!r} is not a host name; write it like status.example.com{detail}")
    return value


class StatusPage(Model):
    """The daemon's listener for the status page, /healthz, /readyz and /metrics."""

    listen: Annotated[str, AfterValidator(_check_listen)] = Field(
        default=f"127.0.0.1:{DEFAULT_PORT}", examples=[f"127.0.0.1:{DEFAULT_PORT}"]
    )
    """Address and port. One that other machines can reach needs a token."""
    token: Secret | None = Field(default=None, examples=["file:/etc/xmode-transfer/page-token"])
    """Reference to the token for access: file:PATH or env:NAME. Required if other machines can reach the
    page."""
    hosts: tuple[Annotated[str, AfterValidator(_check_host_name)], ...] = Field(
        default=(), examples=[["status.example.com"]]
    )
    """Further host names of the page, for instance behind a proxy."""
    probes: Annotated[str, AfterValidator(_check_listen)] | None = Field(
        default=None, examples=["0.0.0.0:8323"]
    )
    """Address and port of a separate listener for /healthz and /readyz, independent of the page and without a
    token. Without it, only the page's address answers them."""

    @model_validator(mode="after")
    def _is_safe(self) -> "StatusPage":
        if self.token is None and not self.is_local:
            raise ValueError(
                f"anyone who can reach {self.listen} could read the page; give it a token, or listen on "
                f"127.0.0.1:{self.port}"
            )
        if self.probes is not None and self.port != 0 and host_and_port(self.probes)[1] == self.port:
            raise ValueError(
                f"`probes` has the page's port, {self.port}: give it another, such as 0.0.0.0:8323, or leave "
                "it out"
            )
        return self

    @property
    def host(self) -> str:
        return host_and_port(self.listen)[0]

    @property
    def port(self) -> int:
        return host_and_port(self.listen)[1]

    @property
    def is_local(self) -> bool:
        return self.host == "localhost" or ip_address(self.host).is_loopback


def _or_off(value: object) -> object:
    # YAML's ``off`` is text here.
    if value is False or (isinstance(value, str) and value.lower() in ("off", "no", "false")):
        return None
    if value is None or isinstance(value, str | bool):
        raise ValueError(f'write off, or {{listen: "127.0.0.1:{DEFAULT_PORT}"}}')
    return value


def _with_off(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [form for form in schema["anyOf"] if "$ref" in form] + [{"enum": ["off", False]}]


class Service(Model):
    vendor: Vendor = Vendor()
    """Our identity in AWS."""
    ledger: LedgerLocation = Field(
        default="sqlite:///var/ledger.db",
        examples=["postgresql://xmode@db.internal/xmode?sslmode=verify-full", "file:/run/secrets/ledger-url"],
    )
    """The ledger: sqlite:///path (relative to the config directory, or absolute with four slashes),
    postgresql://user@host/database, or a reference to such a URL: env:NAME or file:PATH."""
    recalls: str = Field(default="var/recalls.jsonl", min_length=1)
    """The file of recalls (docs/recall.md), relative to the config directory. Default for a ledger in SQLite:
    recalls.jsonl beside it."""
    engine: Engine = Engine.AUTO
    """auto: the fast engine if it works here, else the portable one."""
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER
    """Response to a customer's role that allows access without its external ID: deliver or stop."""
    onboarding: Onboarding = Onboarding()
    """What a sign-up has to prove."""
    limits: Limits = Limits()
    """Limits of one process."""
    daemon: Daemon = Daemon()
    """Settings of the daemon."""
    cluster: Cluster = Cluster()
    """Settings of several workers."""
    receipts: Receipts = Receipts()
    """Keys for signatures."""
    status_page: Annotated[StatusPage | None, BeforeValidator(_or_off)] = Field(
        default=StatusPage(), json_schema_extra=_with_off
    )
    """Address of the status page; off: none."""
    alerts: Annotated[tuple[Channel, ...], AfterValidator(_check_names)] = Field(
        default=(), examples=[[{"name": "on-call", "webhook": "env:ALERT_WEBHOOK"}]]
    )
    """Channels for alerts. Without any, alerts are only in the log, in `status` and on the page."""
    alerting: Alerting = Alerting()
    """Settings of alerts."""
