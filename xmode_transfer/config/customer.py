"""customers/<customer>.yaml: who receives, where, what and when."""

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from xmode_transfer.config.base import SLUG_PATTERN, Model, check_slug, did_you_mean
from xmode_transfer.config.names import (
    EXTERNAL_ID_PATTERN,
    check_account,
    check_bucket,
    check_company,
    check_external_id,
    check_kms_key,
    check_prefix,
    check_region,
    parse_iam,
    region_partition,
)
from xmode_transfer.config.retention import Hold, Retention
from xmode_transfer.config.schedule import BandwidthLimit, Freshness, Schedule

_METADATA_PATTERN = r"^(?!xmode-)[a-z0-9-]{1,128}$"
_METADATA_MAX_BYTES = 2048 - 128
"""S3 has 2,048 for the names and values of an object (S3 User Guide, "Working with object metadata"); the
rest is for our own, the delivery token among them."""
_OURS = "xmode-"


class Addressing(StrEnum):
    """Where the bucket's name goes in a request."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class ChecksumMode(StrEnum):
    """How an upload proves its bytes to the store."""

    FULL = "full"
    HEADER = "header"
    NONE = "none"


class Encryption(StrEnum):
    """How S3 is asked to encrypt what is put (S3 User Guide, "Protecting data with encryption")."""

    NONE = "none"  # nothing is asked: the bucket's own default applies
    SSE_S3 = "sse-s3"
    SSE_KMS = "sse-kms"


class StorageClass(StrEnum):
    """The storage classes that a general purpose bucket takes (S3 API reference, PutObject)."""

    STANDARD = "STANDARD"
    STANDARD_IA = "STANDARD_IA"
    ONEZONE_IA = "ONEZONE_IA"
    INTELLIGENT_TIERING = "INTELLIGENT_TIERING"
    REDUCED_REDUNDANCY = "REDUCED_REDUNDANCY"
    GLACIER_IR = "GLACIER_IR"
    GLACIER = "GLACIER"
    DEEP_ARCHIVE = "DEEP_ARCHIVE"


class CustomerState(StrEnum):
    """The state of a customer."""

    ACTIVE = "active"  # is delivered to
    PENDING = "pending"  # has signed up; access is checked, nothing is delivered yet
    RETIRED = "retired"  # is no longer delivered to; its external ID, role and prefix stay taken


class CatchUp(StrEnum):
    """What is made up for after an outage of ours (docs/daemon.md says what an outage is)."""

    ALL = "all"  # every period that is due, oldest first
    LATEST = "latest"  # the newest due period of each feed
    NONE = "none"  # nothing: only what becomes complete from then on


def _check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for what S3 would refuse or change, and for names that are ours."""
    for name, value in metadata.items():
        if name.lower().startswith(_OURS):
            raise ValueError(f"{name!r}: names that begin with {_OURS} are our own; choose another")
        if re.fullmatch(_METADATA_PATTERN, name) is None:
            raise ValueError(f"{name!r} cannot be a name: use 1 to 128 small letters, digits and hyphens")
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            raise ValueError(
                f"{name}: {value!r} cannot be sent: write printable ASCII, without spaces at its ends"
            )
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > _METADATA_MAX_BYTES:
        raise ValueError(
            f"names and values have {size:,} bytes together; there is room for {_METADATA_MAX_BYTES:,}"
        )
    return metadata


class Destination(Model):
    """Where in S3 a customer receives."""

    bucket: Annotated[str, AfterValidator(check_bucket)] = Field(examples=["acme-data"])
    """The bucket's name alone."""
    prefix: Annotated[str, AfterValidator(check_prefix)] = Field(default="", examples=["xmode/"])
    """Path inside the bucket, with a slash at its end; empty for the whole bucket."""
    region: Annotated[str, AfterValidator(check_region)] | None = Field(default=None, examples=["us-east-1"])
    """The bucket's region. Left out: learnt from AWS and remembered."""
    addressing: Addressing = Addressing.AUTO
    """Where the bucket's name goes in a request: auto fits AWS; path or virtual for S3-compatible stores."""
    checksums: ChecksumMode = ChecksumMode.FULL
    """How an upload proves its bytes: full fits AWS; header or none for S3-compatible stores."""
    bucket_owner: Annotated[str, AfterValidator(check_account)] | None = Field(
        default=None, examples=["111122223333"]
    )
    """Account that owns the bucket, 12 digits. Left out: the role's account."""
    kms_key_arn: Annotated[str, AfterValidator(check_kms_key)] | None = Field(
        default=None, examples=["arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]
    )
    """KMS key to encrypt with, for encryption: sse-kms."""
    encryption: Encryption = Encryption.NONE
    """none: the bucket's own default; sse-s3: S3's keys; sse-kms: the key in kms_key_arn. Left out: sse-kms
    where there is a kms_key_arn, else none."""
    storage_class: StorageClass | None = Field(default=None, examples=["STANDARD_IA"])
    """Storage class of the objects. Left out: the store's default."""
    metadata: Annotated[
        dict[str, str],
        AfterValidator(_check_metadata),
        Field(json_schema_extra={"propertyNames": {"pattern": _METADATA_PATTERN}}),
    ] = Field(default={}, examples=[{"department": "research"}])
    """User metadata of each object (x-amz-meta-*): names of small letters, digits and hyphens, values of
    printable ASCII, 1,920 bytes in all. Names that begin with xmode- are ours."""

    @property
    def url(self) -> str:
        """Return bucket and prefix as ``s3://acme-data/xmode/``."""
        return f"s3://{self.bucket}/{self.prefix}"

    @model_validator(mode="before")
    @classmethod
    def _key_asks_for_kms(cls, said: Any) -> Any:
        if isinstance(said, dict) and said.get("kms_key_arn") is not None:
            return {"encryption": Encryption.SSE_KMS, **said}
        return said

    @field_validator("kms_key_arn")
    @classmethod
    def _near_bucket(cls, value: str | None, info: ValidationInfo) -> str | None:
        region = info.data.get("region")
        if value is not None and region is not None and value.split(":")[3] != region:
            raise ValueError(f"S3 takes only keys of the bucket's own region, here {region}")
        return value

    @field_validator("encryption")
    @classmethod
    def _fits_key(cls, value: Encryption, info: ValidationInfo) -> Encryption:
        """Only runs for a value that was given."""
        if "kms_key_arn" not in info.data:  # the key itself is wrong, which is reported already
            return value
        has_key = info.data["kms_key_arn"] is not None
        if value is Encryption.SSE_KMS and not has_key:
            raise ValueError("sse-kms needs the key: write its ARN as kms_key_arn")
        if value is not Encryption.SSE_KMS and has_key:
            raise ValueError(f"{value} uses no key, but there is a kms_key_arn; remove one of the two")
        return value


class Customer(Model):
    """One receiver of data."""

    name: Annotated[str, AfterValidator(check_slug), Field(json_schema_extra={"pattern": SLUG_PATTERN})]
    """The file's name without .yaml."""
    company: Annotated[str, AfterValidator(check_company)] = Field(max_length=256, examples=["Acme Corp"])
    """The company's name as people write it."""
    external_id: Annotated[
        str,
        AfterValidator(check_external_id),
        Field(json_schema_extra={"pattern": EXTERNAL_ID_PATTERN}, examples=["AcmeCorp"]),
    ]
    """What the customer's trust policy demands as sts:ExternalId. It identifies; it is not a secret."""
    role_arn: str = Field(examples=["arn:aws:iam::111122223333:role/XMode"])
    """ARN of the role that the customer lets us assume."""
    destination: Destination = Field(examples=[{"bucket": "acme-data", "prefix": "xmode/"}])
    """Where in S3 the customer receives."""
    feeds: tuple[str, ...] = Field(min_length=1, examples=[["us-daily"]])
    """Names of the feeds that the customer subscribes to: files in feeds/ without .yaml. At least one."""
    schedule: Schedule | None = None
    """When we look for something to deliver. Left out: at every tick of the daemon."""
    catch_up: CatchUp = CatchUp.ALL
    """Which periods are made up for after an outage of ours: all, the latest of each feed, or none."""
    weight: int = Field(default=1, ge=1, le=100)
    """Turns that the customer gets in each round of the daemon, beside others' one."""
    freshness: Freshness = Freshness()
    """When a delivery to this customer counts as late, where it is to be otherwise than the feed says."""
    notices: bool = False
    """Whether late, paused and corrected deliveries are reported to the customer by files below _notices/."""
    retention: Retention | None = None
    """How long delivered objects stay. Left out: for good."""
    hold: Hold = Field(default=False, examples=[["us-daily/2026-11-22"]])
    """What no cleanup removes, whatever retention says: true for all, or a list of feeds and periods."""
    limits: BandwidthLimit = BandwidthLimit()
    """What may be sent to this customer, within what the process may send."""
    state: CustomerState = CustomerState.ACTIVE
    """active; pending: access is checked, nothing is delivered; retired: nothing is done, but external ID,
    role and prefix stay taken."""

    @field_validator("role_arn")
    @classmethod
    def _is_role(cls, value: str) -> str:
        parse_iam(value, "role")
        return value

    @field_validator("destination")
    @classmethod
    def _in_partition(cls, value: Destination, info: ValidationInfo) -> Destination:
        role_arn = info.data.get("role_arn")
        if role_arn is not None and value.region is not None:
            partition = parse_iam(role_arn, "role").partition
            if region_partition(value.region) != partition:
                raise ValueError(f"region {value.region} is not in {partition}, the partition of role_arn")
        return value

    @field_validator("feeds")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((feed for feed in value if value.count(feed) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice")
        return value

    @field_validator("retention")
    @classmethod
    def _of_own_feeds(cls, value: Retention | None, info: ValidationInfo) -> Retention | None:
        for feed in value.feeds if value is not None else ():
            _check_subscribed(feed, info.data.get("feeds"))
        return value

    @field_validator("hold")
    @classmethod
    def _holds_own_feeds(cls, value: bool | tuple[str, ...], info: ValidationInfo) -> bool | tuple[str, ...]:
        """A hold that is misspelt would hold nothing."""
        for item in value if isinstance(value, tuple) else ():
            _check_subscribed(item.partition("/")[0], info.data.get("feeds"))
        return value

    @property
    def account_id(self) -> str:
        """The account of the role."""
        return parse_iam(self.role_arn, "role").account_id

    @property
    def partition(self) -> str:
        """The AWS partition of the role: aws, aws-cn, aws-us-gov or aws-eusc."""
        return parse_iam(self.role_arn, "role").partition

    @property
    def bucket_owner(self) -> str:
        """The account that every S3 request expects to own the bucket."""
        return self.destination.bucket_owner or self.account_id


def _check_subscribed(feed: str, feeds: tuple[str, ...] | None) -> None:
    if feeds is not None and feed not in feeds:  # None: the list itself is wrong, which is reported already
        raise ValueError(f"{feed} is none of the customer's feeds{did_you_mean(feed, feeds)}")
