"""service.yaml: who we are to AWS, where the ledger is, and what the process may use."""

import base64
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from xmode_transfer.domain.config.alerting import Alerting, Channel, check_names
from xmode_transfer.domain.config.arns import parse_iam
from xmode_transfer.domain.config.bandwidth import BandwidthLimit
from xmode_transfer.domain.config.base import ByteCount, Model
from xmode_transfer.domain.config.cluster import Cluster
from xmode_transfer.domain.config.daemon import Daemon
from xmode_transfer.domain.config.ledger_url import LedgerPlace
from xmode_transfer.domain.config.names import check_region, region_partition
from xmode_transfer.domain.config.secret import Secret
from xmode_transfer.domain.config.status_page import StatusPage, StatusPageSetting

MIB = 1024 * 1024


class Engine(StrEnum):
    """Which transfer engine sends the bytes."""

    AUTO = "auto"  # fast where it works on this machine, else portable; the choice is logged with its reason
    FAST = "fast"
    PORTABLE = "portable"


class UnsafeRoles(StrEnum):
    """What happens to a customer whose role the last check could assume without its external ID."""

    DELIVER = "deliver"  # deliveries go on; the check's finding is critical
    STOP = "stop"  # its deliveries are blocked until a check finds the role mended


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
                raise ValueError(f"{value} does not lie in {partition}, the partition of principal_arn")
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
        raise ValueError("write the line that stands between BEGIN and END in the key's .pub file")
    return raw


def _check_public_key(text: str) -> str:
    raw_public_key(text)
    return text


class Receipts(Model):
    """What we sign: manifests, and the receipts that ``verify --receipt`` writes."""

    key: Secret | None = Field(default=None, examples=["file:/etc/xmode-transfer/receipts.pem"])
    """Where our Ed25519 private key lies: file:PATH or env:NAME, in PEM. Left out: nothing is signed."""
    public_keys: tuple[Annotated[str, AfterValidator(_check_public_key)], ...] = Field(
        default=(), examples=[["MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]]
    )
    """Public keys by which signatures are ours, besides that of the key: earlier ones too, the same on all
    machines. Each is the line between BEGIN and END of a .pub file."""


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
    """What happens to a customer whose role lets us in without its external ID: deliver or stop."""
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
    """Channels that alerts are sent to. Without any, they stand in the log, in `status` and on the page."""
    alerting: Alerting = Alerting()
    """When alerts are opened, repeated and sent."""
