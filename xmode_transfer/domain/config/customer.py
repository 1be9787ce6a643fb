"""customers/<customer>.yaml: who receives, where, what and when."""

from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, field_validator, model_validator

from xmode_transfer.domain.config.arns import check_account, check_kms_key, parse_iam
from xmode_transfer.domain.config.base import SLUG_PATTERN, ByteCount, Model, check_slug, did_you_mean
from xmode_transfer.domain.config.names import (
    EXTERNAL_ID_PATTERN,
    check_bucket,
    check_external_id,
    check_prefix,
    check_region,
    region_partition,
)


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


class StorageClass(StrEnum):
    """S3's storage classes that a general purpose bucket takes on PutObject."""

    STANDARD = "STANDARD"
    STANDARD_IA = "STANDARD_IA"
    ONEZONE_IA = "ONEZONE_IA"
    INTELLIGENT_TIERING = "INTELLIGENT_TIERING"
    REDUCED_REDUNDANCY = "REDUCED_REDUNDANCY"
    GLACIER_IR = "GLACIER_IR"
    GLACIER = "GLACIER"
    DEEP_ARCHIVE = "DEEP_ARCHIVE"


class CustomerState(StrEnum):
    """Where a customer stands with us."""

    ACTIVE = "active"  # is delivered to
    PENDING = "pending"  # has signed up; access is checked, nothing is delivered yet
    RETIRED = "retired"  # is no longer delivered to; its external ID, role and prefix stay taken


class Destination(Model):
    """Where in S3 a customer receives."""

    bucket: Annotated[str, AfterValidator(check_bucket)]
    """The bucket's name alone."""
    prefix: Annotated[str, AfterValidator(check_prefix)] = ""
    """Path inside the bucket, with a slash at its end; empty for the whole bucket."""
    region: Annotated[str, AfterValidator(check_region)] | None = None
    """The bucket's region; learnt from AWS and remembered when it is left out."""
    addressing: Addressing = Addressing.AUTO
    """auto fits AWS; path or virtual for S3-compatible stores."""
    checksums: ChecksumMode = ChecksumMode.FULL
    """full fits AWS; header or none for S3-compatible stores."""
    bucket_owner: Annotated[str, AfterValidator(check_account)] | None = None
    """Account that owns the bucket, 12 digits; the role's account when it is left out."""
    kms_key_arn: Annotated[str, AfterValidator(check_kms_key)] | None = None
    """KMS key to encrypt with; the bucket's own default when it is left out."""
    storage_class: StorageClass | None = None
    """Storage class of the objects; the store's default when it is left out."""

    @model_validator(mode="after")
    def _key_near_bucket(self) -> "Destination":
        if self.kms_key_arn and self.region and self.kms_key_arn.split(":")[3] != self.region:
            raise ValueError("kms_key_arn: S3 takes only a key of the bucket's own region")
        return self


class Schedule(Model):
    """When we look for something to deliver. It never decides what is delivered: that is the ledger's part."""

    cron: str
    """Five fields as in crontab: minute, hour, day of month, month, day of week (0 and 7 are Sunday)."""
    timezone: str = "UTC"
    """IANA name of the time zone that cron is read in."""

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        _check_cron(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, value: str) -> str:
        _check_timezone(value)
        return value


class Retention(Model):
    """How long delivered objects stay. Left out as a whole, they stay for good."""

    days: int | None = Field(default=None, ge=1, le=36_500)
    """Days since delivery."""
    keep_last: int | None = Field(default=None, ge=1)
    """How many of the newest deliveries of each feed stay."""
    max_bytes: ByteCount | None = Field(default=None, ge=1)
    """Bytes that all delivered objects together may take."""

    @model_validator(mode="after")
    def _says_something(self) -> "Retention":
        if self.days is None and self.keep_last is None and self.max_bytes is None:
            raise ValueError(
                "give at least one of days, keep_last and max_bytes, or leave retention out to keep everything"
            )
        return self


class Customer(Model):
    """One receiver of data."""

    name: Annotated[str, AfterValidator(check_slug), Field(pattern=SLUG_PATTERN)]
    """The file's name without .yaml."""
    company: str = Field(min_length=1, max_length=256)
    """The company's name as people write it."""
    external_id: Annotated[
        str, AfterValidator(check_external_id), Field(json_schema_extra={"pattern": EXTERNAL_ID_PATTERN})
    ]
    """What the customer's trust policy demands as sts:ExternalId. It identifies; it is not a secret."""
    role_arn: str
    """ARN of the role that the customer lets us assume."""
    destination: Destination
    """Where in S3 the customer receives."""
    feeds: tuple[str, ...]
    """Names of the feeds that the customer is subscribed to: files in feeds/ without .yaml."""
    schedule: Schedule | None = None
    """When we look for something to deliver; left out, at every tick of the daemon."""
    retention: Retention | None = None
    """How long delivered objects stay; left out, for good."""
    state: CustomerState = CustomerState.ACTIVE
    """active, pending (access is checked, nothing is delivered) or retired (nothing is done; its names stay taken)."""

    @field_validator("company")
    @classmethod
    def _is_company(cls, value: str) -> str:
        if not value.strip() or not value.isprintable():
            raise ValueError("write the company's name on one line")
        return value

    @field_validator("role_arn")
    @classmethod
    def _is_role(cls, value: str) -> str:
        parse_iam(value, "role")
        return value

    @field_validator("feeds")
    @classmethod
    def _some_feeds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("select at least one feed")
        twice = next((feed for feed in value if value.count(feed) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice")
        return value

    @model_validator(mode="after")
    def _one_partition(self) -> "Customer":
        region = self.destination.region
        if region and region_partition(region) != self.partition:
            raise ValueError(f"destination.region: {region} is not in the role's partition {self.partition}")
        return self

    @property
    def account_id(self) -> str:
        return parse_iam(self.role_arn, "role").account_id

    @property
    def partition(self) -> str:
        return parse_iam(self.role_arn, "role").partition

    @property
    def bucket_owner(self) -> str:
        """The account that every S3 request expects to own the bucket."""
        return self.destination.bucket_owner or self.account_id


_CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@cache
def _check_cron(value: str) -> None:
    if value.startswith("@"):
        meant = _CRON_NAMES.get(value.lower())
        raise ValueError(
            "write five fields" + (f" (did you mean {meant}?)" if meant else ", like 30 6 * * *")
        )
    count = len(value.split())
    if count != 5:
        raise ValueError(
            f"cron has five fields (minute, hour, day of month, month, day of week), like 30 6 * * *; this has {count}"
        )
    try:
        next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{value!r} is no cron expression: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError(f"{value!r} names a day that never comes") from None


@cache
def _check_timezone(value: str) -> None:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{value!r} is no time zone; write an IANA name like America/New_York{_zone_meant(value)}"
        ) from None


def _zone_meant(value: str) -> str:
    """Suggests a zone, also for a city alone or with a space."""
    wanted = value.strip().replace(" ", "_")
    cities = {
        zone.rpartition("/")[2].casefold(): zone for zone in sorted(available_timezones(), reverse=True)
    }
    city = cities.get(wanted.casefold())
    return f" (did you mean {city}?)" if city else did_you_mean(wanted, available_timezones())
