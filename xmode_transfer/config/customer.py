"""customers/<customer>.yaml: a customer, its destination, feeds and schedule."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from xmode_transfer.config.base import Model, Slug, check_slug, did_you_mean
from xmode_transfer.config.feed import Feed, Subscription
from xmode_transfer.config.names import (
    EXTERNAL_ID_PATTERN,
    check_account,
    check_bucket,
    check_company,
    check_external_id,
    check_kms_key,
    check_prefix,
    check_region,
    check_region_in,
    check_role,
    parse_iam,
)
from xmode_transfer.config.retention import Retention
from xmode_transfer.config.schedule import BandwidthLimit, Freshness, Schedule
from xmode_transfer.model.delta import TableFormat
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.periods import Period, period_labelled

_METADATA_PATTERN = r"^(?!xmode-)[a-z0-9-]{1,128}$"
_METADATA_MAX_BYTES = 2048 - 128
"""S3 allows 2,048 bytes of names and values (S3 User Guide, "Working with object metadata"); the rest is for
ours, such as the delivery token."""
_OURS = "xmode-"


class Addressing(StrEnum):
    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class ChecksumMode(StrEnum):
    FULL = "full"
    HEADER = "header"
    NONE = "none"


class Encryption(StrEnum):
    """The encryption that uploads request (S3 User Guide, "Protecting data with encryption")."""

    NONE = "none"  # the bucket's default
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
    ACTIVE = "active"  # receives deliveries
    PENDING = "pending"  # signed up; access is checked, nothing is delivered yet
    RETIRED = "retired"  # receives nothing; its external ID, role and prefix stay reserved


class CatchUp(StrEnum):
    """The periods to catch up after an outage of ours (docs/daemon.md defines an outage)."""

    ALL = "all"  # every period that is due, oldest first
    LATEST = "latest"  # the newest due period of each feed
    NONE = "none"  # only periods that become complete from then on


def _check_metadata(metadata: dict[str, str]) -> dict[str, str]:
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
    bucket: Annotated[str, AfterValidator(check_bucket)] = Field(examples=["acme-data"])
    """The bucket's name alone."""
    prefix: Annotated[str, AfterValidator(check_prefix)] = Field(default="", examples=["xmode/"])
    """Path inside the bucket, with a slash at its end; empty for the whole bucket."""
    region: Annotated[str, AfterValidator(check_region)] | None = Field(default=None, examples=["us-east-1"])
    """The bucket's region. Default: AWS reports it, and it is recorded."""
    addressing: Addressing = Addressing.AUTO
    """Position of the bucket's name in requests: auto for AWS; path or virtual for S3-compatible stores."""
    checksums: ChecksumMode = ChecksumMode.FULL
    """Checksums of uploads: full for AWS; header or none for S3-compatible stores."""
    bucket_owner: Annotated[str, AfterValidator(check_account)] | None = Field(
        default=None, examples=["111122223333"]
    )
    """Account that owns the bucket, 12 digits. Default: the role's account."""
    kms_key_arn: Annotated[str, AfterValidator(check_kms_key)] | None = Field(
        default=None, examples=["arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]
    )
    """KMS key to encrypt with, for encryption: sse-kms."""
    encryption: Encryption = Encryption.NONE
    """none: the bucket's own default; sse-s3: S3's keys; sse-kms: the key in kms_key_arn. Default: sse-kms
    with a kms_key_arn, else none."""
    storage_class: StorageClass | None = Field(default=None, examples=["STANDARD_IA"])
    """Storage class of the objects. Default: the store's."""
    metadata: Annotated[
        dict[str, str],
        AfterValidator(_check_metadata),
        Field(json_schema_extra={"propertyNames": {"pattern": _METADATA_PATTERN}}),
    ] = Field(default={}, examples=[{"department": "research"}])
    """User metadata of each object (x-amz-meta-*): names of small letters, digits and hyphens, values of
    printable ASCII, 1,920 bytes in all. Names that begin with xmode- are reserved."""

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @model_validator(mode="before")
    @classmethod
    def _key_requests_kms(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kms_key_arn") is not None:
            return {"encryption": Encryption.SSE_KMS, **value}
        return value

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
        # Runs only if the file has the key.
        if "kms_key_arn" not in info.data:  # invalid, and reported already
            return value
        has_key = info.data["kms_key_arn"] is not None
        if value is Encryption.SSE_KMS and not has_key:
            raise ValueError("sse-kms needs the key: write its ARN as kms_key_arn")
        if value is not Encryption.SSE_KMS and has_key:
            raise ValueError(f"{value} uses no key, but there is a kms_key_arn; remove one of the two")
        return value


def _parse_hold(value: object) -> object:
    """Choose the form of the value, so that pydantic reports a mistake once, not for each form."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "yes", "on"):
            return True
        if word in ("false", "no", "off"):
            return False
        raise ValueError(f"write true, or a list (did you mean [{value}]?)")
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("write true, or a list like [us-daily, us-daily/2026-11-22]")
    if not value:
        raise ValueError("an empty list holds nothing; write true, name what is held, or remove the key")
    for item in value:
        feed, slash, period = item.partition("/")
        check_slug(feed)
        if slash and period_labelled(period) is None:
            raise ValueError(f"{item!r}: {period!r} is no period; write it like {feed}/2026-11-22")
    return tuple(value)


Hold = Annotated[
    bool | tuple[str, ...],
    BeforeValidator(_parse_hold),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
"""True for everything, or feeds and periods by name (``us-daily``, ``us-daily/2026-11-22``)."""


def held_by(hold: bool | tuple[str, ...], feed: str, period: str) -> str | None:
    """Return the part of a hold that covers a period, as written; None if none does."""
    if isinstance(hold, bool):
        return "true" if hold else None
    return next((item for item in (feed, f"{feed}/{period}") if item in hold), None)


def _parse_feed(value: object) -> object:
    if isinstance(value, Mapping):
        raise ValueError("a list has names only; write feeds as a mapping: {us-daily: {table: delta}}")
    return value


_FEEDS: TypeAdapter[tuple[str, ...]] = TypeAdapter(
    Annotated[tuple[Annotated[str, BeforeValidator(_parse_feed)], ...], Field(min_length=1)]
)


def _parse_feeds(value: object) -> object:
    """Turn a list of names into a mapping."""
    if isinstance(value, Mapping):
        return {feed: {} if settings is None else settings for feed, settings in value.items()}
    names = _FEEDS.validate_python(value)
    twice = next((feed for feed in names if names.count(feed) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice")
    return {feed: {} for feed in names}


def _feeds_schema(schema: dict[str, Any]) -> None:
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    mapping = {key: schema.pop(key) for key in list(schema) if key in ("type", "additionalProperties")}
    schema["anyOf"] = [names, {**mapping, "minProperties": 1}]
    schema.pop("minProperties", None)


class Customer(Model):
    name: Slug
    """The file's name without .yaml."""
    company: Annotated[str, AfterValidator(check_company)] = Field(max_length=256, examples=["Acme Corp"])
    """The company's name."""
    external_id: Annotated[
        str,
        AfterValidator(check_external_id),
        Field(json_schema_extra={"pattern": EXTERNAL_ID_PATTERN}, examples=["AcmeCorp"]),
    ]
    """The sts:ExternalId in the customer's trust policy. It identifies the customer and is not a secret."""
    role_arn: Annotated[str, AfterValidator(check_role)] = Field(
        examples=["arn:aws:iam::111122223333:role/XMode"]
    )
    """ARN of the customer's role that we assume."""
    destination: Destination = Field(examples=[{"bucket": "acme-data", "prefix": "xmode/"}])
    """Where the customer receives objects."""
    feeds: Annotated[dict[str, Subscription], BeforeValidator(_parse_feeds)] = Field(
        min_length=1, examples=[["us-daily"]], json_schema_extra=_feeds_schema
    )
    """Names of the feeds that the customer subscribes to: files in feeds/ without .yaml. At least one. As a
    mapping, each with what differs from the feed."""
    schedule: Schedule | None = None
    """When to scan for periods to deliver. Default: at every tick of the daemon."""
    catch_up: CatchUp = CatchUp.ALL
    """Periods to catch up after an outage of ours: all, the latest of each feed, or none."""
    weight: int = Field(default=1, ge=1, le=100)
    """Share of the daemon's jobs, relative to customers with weight 1."""
    freshness: Freshness = Freshness()
    """When a delivery to this customer counts as late. Overrides the feed's setting."""
    notices: bool = False
    """Put notices of late, paused and corrected deliveries below _notices/ in the customer's bucket."""
    retention: Retention | None = None
    """How long delivered objects stay. Default: forever."""
    hold: Hold = Field(default=False, examples=[["us-daily/2026-11-22"]])
    """Objects that no cleanup deletes, despite retention: true for all, or a list of feeds and periods."""
    limits: BandwidthLimit = BandwidthLimit()
    """Limits for this customer, within the limits of the process."""
    state: CustomerState = CustomerState.ACTIVE
    """active; pending: access is checked, nothing is delivered; retired: nothing is done, but external ID,
    role and prefix stay reserved."""

    @field_validator("destination")
    @classmethod
    def _in_partition(cls, value: Destination, info: ValidationInfo) -> Destination:
        if "role_arn" in info.data and value.region is not None:
            check_region_in(value.region, parse_iam(info.data["role_arn"], "role").partition, "role_arn")
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
        for item in value if isinstance(value, tuple) else ():
            _check_subscribed(item.partition("/")[0], info.data.get("feeds"))
        return value

    def subscription(self, feed: Feed) -> Subscription:
        """Return the settings of a feed for this customer, none of them left out."""
        own = self.feeds.get(feed.name, _AS_THE_FEED)
        return Subscription(
            layout=feed.layout if own.layout is None else own.layout,
            manifests=feed.manifests if own.manifests is None else own.manifests,
            table=feed.table if own.table is None else own.table,
        )

    def layout(self, feed: Feed) -> Layout:
        """Return the layout of the customer's keys of a feed. Raises ValueError with the fix."""
        settings = self.subscription(feed)
        reserved = [f"_{kind}" for kind in settings.manifests or ()]
        if settings.table is TableFormat.DELTA:
            reserved.append("_delta_log")
        return Layout.of(
            settings.layout,
            feed.period,
            feed=feed.name,
            partition=feed.partition,
            customer=self.name,
            prefix=self.destination.prefix,
            reserved=reserved,
        )

    def example_key(self, feed: Feed) -> str:
        """Return the key of a file that the feed may have. Raises IllegalName."""
        period = Period.around(_EXAMPLE_AT, feed.period)
        file = feed.include[0].rpartition("/")[2].replace("*", "part-0", 1).replace("*", "")
        file = re.sub(r"\[[^]]*\]|\?", "0", file)
        directory = feed.partition_template
        return self.layout(feed).key(f"{directory.path(period)}/{file}" if directory else file, period)

    @property
    def account_id(self) -> str:
        return parse_iam(self.role_arn, "role").account_id

    @property
    def partition(self) -> str:
        return parse_iam(self.role_arn, "role").partition

    @property
    def bucket_owner(self) -> str:
        """The account that every S3 request names as the expected bucket owner."""
        return self.destination.bucket_owner or self.account_id


_AS_THE_FEED = Subscription()
_EXAMPLE_AT = datetime(2026, 11, 22, 5, tzinfo=UTC)


def _check_subscribed(feed: str, feeds: Mapping[str, Subscription] | None) -> None:
    if feeds is not None and feed not in feeds:  # None: the list is invalid, and reported already
        raise ValueError(f"{feed} is none of the customer's feeds{did_you_mean(feed, feeds)}")
