"""service.yaml: who we are to AWS, where the ledger is, how the process works, who gets alerts."""

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from xmode_transfer.config.base import SLUG_PATTERN, ByteCount, Model, Secret, check_slug
from xmode_transfer.config.ledger_url import LedgerPlace
from xmode_transfer.config.names import check_region, parse_iam, region_partition
from xmode_transfer.config.schedule import BandwidthLimit, Schedule, TimeOfDay, Timezone
from xmode_transfer.config.status_page import StatusPage, StatusPageSetting
from xmode_transfer.model.errors import Responsible

MIB = 1024 * 1024


class Engine(StrEnum):
    """Which transfer engine sends the bytes."""

    AUTO = "auto"  # fast where it works on this machine, else portable; the choice is logged with its reason
    FAST = "fast"
    PORTABLE = "portable"


class UnsafeRoles(StrEnum):
    """What happens to a customer whose role the last check could assume without its external ID."""

    DELIVER = "deliver"  # deliveries go on; the check's finding is critical
    STOP = "stop"  # its deliveries are blocked until a check finds the role fixed


class Vendor(Model):
    """Our own identity, which customers' roles trust."""

    principal_arn: str = "arn:aws:iam::366810793500:user/xmode-data-transfer"
    """ARN of the IAM user that customers' trust policies name."""
    sts_region: Annotated[str, AfterValidator(check_region)] = Field(
        default="us-east-1", validate_default=True
    )
    """Region whose STS endpoint is asked for role sessions."""
    verify_identity: bool = True
    """Whether STS is asked who we are (GetCallerIdentity). false is for S3-compatible stores whose STS cannot
    answer that: Ceph RGW and MinIO."""

    @field_validator("principal_arn")
    @classmethod
    def _is_user(cls, value: str) -> str:
        parse_iam(value, "user")
        return value

    @field_validator("sts_region")
    @classmethod
    def _in_partition(cls, value: str, info: ValidationInfo) -> str:
        principal = info.data.get("principal_arn")
        if principal is not None:
            partition = parse_iam(principal, "user").partition
            if region_partition(value) != partition:
                raise ValueError(f"{value} is not in {partition}, the partition of principal_arn")
        return value

    @property
    def account_id(self) -> str:
        return parse_iam(self.principal_arn, "user").account_id

    @property
    def partition(self) -> str:
        return parse_iam(self.principal_arn, "user").partition


class Limits(BandwidthLimit):
    """What one process may use at once."""

    parallel_objects: int = Field(default=16, ge=1, le=1024)
    """Requests with a body that are in flight at once, for the whole process."""
    parallel_objects_per_customer: int = Field(default=16, ge=1, le=1024)
    """The same for one customer, so that one cannot take all."""
    memory_bytes: ByteCount = Field(default=128 * MIB, ge=5 * MIB)
    """Memory for bodies in flight, in bytes or like 256MiB; at least 5 MiB, S3's smallest part."""
    role_sessions_per_second: int = Field(default=20, ge=1, le=1_000)
    """Role sessions that STS is asked for in a second: by the process, or by all workers of a cluster."""


class Daemon(Model):
    """How `xmode-transfer daemon` works. The defaults fit thousands of customers on one machine."""

    workers: int = Field(default=16, ge=1, le=256)
    """Deliveries that run at once; one customer takes one of them."""
    tick_seconds: int = Field(default=60, ge=1, le=600)
    """Seconds between two looks for something to do. Customers without a schedule are looked at each time."""
    spread_seconds: int = Field(default=60, ge=0, le=86_400)
    """Seconds over which customers with the same schedule are spread, each always at the same place."""
    turn_seconds: int = Field(default=600, ge=1, le=86_400)
    """Seconds after which a delivery makes room for others that wait, and goes on in its next turn."""
    drain_seconds: int = Field(default=15, ge=0, le=86_400)
    """Seconds that running deliveries have to end after SIGTERM, before they are stopped where they are."""
    first_retry_seconds: int = Field(default=30, ge=1, le=86_400)
    """Seconds after which a delivery that failed or was refused is tried again; each failure doubles them."""
    longest_retry_seconds: int = Field(default=900, ge=1, le=86_400)
    """Seconds that they grow to."""
    cleanup: Schedule | None = Schedule(cron="15 2 * * *")
    """When retention is carried out, spread over an hour; null: never by itself."""
    access_checks: Schedule | None = Schedule(cron="45 4 * * *")
    """When each customer's access is checked, spread over an hour; null: only after a refusal."""
    health: Schedule = Schedule(cron="* * * * *")
    """When health is computed, and alerts are opened, repeated and resolved."""


class Cluster(Model):
    """How several workers share the work."""

    places: int | None = Field(default=None, ge=1, le=256)
    """Turns that one `worker` takes at once; null: as many as `daemon.workers`, which a daemon that delivers
    itself always takes."""
    turn_bytes: ByteCount = Field(default=50 * 1024 * MIB, ge=1)
    """Bytes after which a delivery makes room for others that wait, in bytes or like 50GiB; as
    `daemon.turn_seconds`, whichever comes first."""


_KEY_INFO = bytes.fromhex("302a300506032b6570032100")
"""What PEM has before an Ed25519 key (RFC 8410, section 10.1)."""
_KEY_BYTES = 32


def raw_public_key(text: str) -> bytes:
    """The 32 bytes of an Ed25519 public key from base64: of the key itself, or of what PEM has between its
    two lines. Raises ValueError."""
    try:
        raw = base64.b64decode(text, validate=True).removeprefix(_KEY_INFO)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise ValueError("write the line between BEGIN and END in the key's .pub file")
    return raw


def _check_public_key(text: str) -> str:
    raw_public_key(text)
    return text


class Receipts(Model):
    """What we sign: manifests, and the receipts that ``verify --receipt`` writes."""

    key: Secret | None = Field(default=None, examples=["file:/etc/xmode-transfer/receipts.pem"])
    """Where our Ed25519 private key is: file:PATH or env:NAME, in PEM. Default: nothing is signed."""
    public_keys: tuple[Annotated[str, AfterValidator(_check_public_key)], ...] = Field(
        default=(), examples=[["MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]]
    )
    """Public keys by which signatures are ours, besides that of the key: earlier ones too, the same on all
    machines. Each is the line between BEGIN and END of a .pub file."""


class Channel(Model):
    """One way to tell somebody: a webhook of ours, or an address that Apprise knows."""

    name: Annotated[str, AfterValidator(check_slug), Field(json_schema_extra={"pattern": SLUG_PATTERN})] = (
        Field(examples=["on-call"])
    )
    """A name for it, as `alerts test --channel` and the log say it."""
    webhook: Secret | None = Field(default=None, examples=["env:ALERT_WEBHOOK"])
    """Where its URL is kept; each message is one POST of JSON (docs/alerts.md)."""
    token: Secret | None = Field(default=None, examples=["file:/run/secrets/webhook-token"])
    """Where the webhook's bearer token is kept. Left out: none is sent."""
    apprise: Secret | None = Field(default=None, examples=["file:/run/secrets/slack-url"])
    """Where an Apprise URL is kept: Slack, PagerDuty, e-mail, SNS and many more. Needs the extra `alerts`."""
    responsible: tuple[Responsible, ...] = Field(
        default=tuple(Responsible), min_length=1, examples=[["vendor", "aws"]]
    )
    """Whose alerts the channel gets, by who is responsible: vendor, customer, aws. Default: all."""
    only_urgent: bool = False
    """Whether it gets only what cannot wait, such as a pager."""

    @model_validator(mode="after")
    def _one_way(self) -> "Channel":
        if (self.webhook is None) == (self.apprise is None):
            raise ValueError("give one of webhook and apprise: where its URL is kept")
        if self.token is not None and self.webhook is None:
            raise ValueError("token goes with webhook; an Apprise URL holds its own")
        return self


class QuietHours(Model):
    """When only what is urgent is sent. The rest follows when they end, if it still holds."""

    begins: TimeOfDay = Field(alias="from", examples=["22:00"])
    """Time of day at which they begin."""
    until: TimeOfDay = Field(examples=["07:00"])
    """Time of day at which they end; earlier than `from`: on the next day."""
    timezone: Timezone = Field(default="UTC", examples=["Europe/Berlin"])
    """IANA name of the time zone that both are read in."""

    @model_validator(mode="after")
    def _some_hours(self) -> "QuietHours":
        if self.begins == self.until:
            raise ValueError("from and until are the same time; remove quiet_hours, or make them differ")
        return self

    def holds(self, now: datetime) -> bool:
        """Whether it is quiet; over midnight where ``until`` comes before ``from``."""
        local = now.astimezone(ZoneInfo(self.timezone)).time()
        if self.begins < self.until:
            return self.begins <= local < self.until
        return local >= self.begins or local < self.until


class Heartbeat(Model):
    """A ping that says that we are alive and well; who waits for it raises the alarm when it stays out."""

    url: Secret = Field(examples=["env:HEARTBEAT_URL"])
    """Where the URL is kept that is asked for (GET) while no urgent alert is open."""
    every_seconds: int = Field(default=300, ge=60, le=86_400)
    """Seconds between two pings."""


class Alerting(Model):
    """When alerts are repeated and sent."""

    repeat_hours: float = Field(default=4, gt=0, le=720)
    """Hours after which an open alert is sent again."""
    quiet_hours: QuietHours | None = None
    """When only what is urgent is sent. Left out: never."""
    heartbeat: Heartbeat | None = None
    """A ping to a service that raises the alarm when it stays out. Left out: none."""


def check_names(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    names = [channel.name for channel in channels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two channels are called {twice}; give each a name of its own")
    return channels


class Service(Model):
    """The whole of service.yaml. Every key has a default."""

    vendor: Vendor = Vendor()
    """Who we are to AWS."""
    ledger: LedgerPlace = Field(
        default="sqlite:///var/ledger.db",
        examples=["postgresql://xmode@db.internal/xmode?sslmode=verify-full", "file:/run/secrets/ledger-url"],
    )
    """Our durable record: sqlite:///path (relative to the config directory, or with four slashes absolute),
    postgresql://user@host/database, or where such a URL is kept: env:NAME or file:PATH."""
    engine: Engine = Engine.AUTO
    """auto takes the fast engine where it works, else the portable one."""
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER
    """What to do when a customer's role allows access without its external ID: deliver or stop."""
    limits: Limits = Limits()
    """How much one process may do at once."""
    daemon: Daemon = Daemon()
    """How the daemon works."""
    cluster: Cluster = Cluster()
    """How several workers share the work."""
    receipts: Receipts = Receipts()
    """With what the receipts of verify are signed."""
    status_page: StatusPageSetting = StatusPage()
    """Where the daemon serves the status page; off: nowhere."""
    alerts: Annotated[tuple[Channel, ...], AfterValidator(check_names)] = Field(
        default=(), examples=[[{"name": "on-call", "webhook": "env:ALERT_WEBHOOK"}]]
    )
    """Channels that alerts are sent to. Without any, they are in the log, in `status` and on the page."""
    alerting: Alerting = Alerting()
    """When alerts are opened, repeated and sent."""
