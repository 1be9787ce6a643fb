"""feeds/<feed>.yaml: a data product, where its files are and when they are complete."""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from xmode_transfer.domain.config.base import SLUG_PATTERN, Model, check_slug
from xmode_transfer.domain.config.names import check_bucket
from xmode_transfer.domain.periods import Partition, PartitionError, PeriodKind

DEFAULT_EXCLUDE = (".*", "*.tmp", "*.part", "*.partial", "_temporary")
_PARTITION_EXAMPLES = {
    PeriodKind.HOUR: "%Y/%m/%d/%H",
    PeriodKind.DAY: "%Y/%m/%d",
    PeriodKind.WEEK: "%G/W%V",
    PeriodKind.MONTH: "%Y/%m",
}


class Marker(Model):
    """A period is complete when its directory holds this file."""

    marker: str
    """Name of the file that the producer writes last, like _SUCCESS. It is not delivered itself."""

    @field_validator("marker")
    @classmethod
    def _is_file_name(cls, value: str) -> str:
        if not value or value in (".", "..") or "/" in value or "\0" in value:
            raise ValueError(f"{value!r} is no file name; write the marker's name alone, like _SUCCESS")
        return value


class Settled(Model):
    """A period, or a file of a drop folder, is complete when nothing has changed for a while."""

    settle_seconds: int = Field(ge=0, le=30 * 86400)
    """Seconds without a change."""


class Feed(Model):
    """One data product. A plan of the sign-up page is a feed here."""

    name: Annotated[str, AfterValidator(check_slug), Field(pattern=SLUG_PATTERN)]
    """The file's name without .yaml."""
    source: str
    """Directory of the files (relative to the config directory, or absolute) or s3://bucket/prefix."""
    period: PeriodKind
    """hour, day, week, month, or none for a drop folder."""
    partition: str | None = Field(default=None, validate_default=True)
    """How a period's directory is named below the source, like %Y/%m/%d. Needed unless period is none."""
    include: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Patterns of the files to deliver."""
    exclude: tuple[str, ...] = DEFAULT_EXCLUDE
    """Patterns of files and directories to leave out; they win over include."""
    complete: Marker | Settled = Settled(settle_seconds=300)
    """When a period is complete: {marker: _SUCCESS} or {settle_seconds: 300}."""
    look_back: int = Field(default=31, ge=1, le=100_000)
    """How many periods back a delivery that is missing is still made up for."""
    sha256: bool = False
    """Whether the manifest carries SHA-256 besides S3's checksum; costs one more pass over each file."""

    @field_validator("source")
    @classmethod
    def _is_source(cls, value: str) -> str:
        if value.startswith("s3://"):
            bucket, _, prefix = value[5:].partition("/")
            check_bucket(bucket)
            if any(segment in (".", "..") for segment in prefix.split("/")) or "//" in prefix:
                raise ValueError("empty, '.' and '..' folders are not allowed in an s3:// source")
            return value
        if "://" in value:
            raise ValueError(
                f"{value.partition('://')[0]}:// is no source; use a directory or s3://bucket/prefix"
            )
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f"{value!r} is no absolute path and no s3:// address")
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError(f"{pattern!r} is no pattern; write it like *.parquet or reports/*.csv")
        return value

    @field_validator("complete", mode="before")
    @classmethod
    def _one_completeness(cls, value: object) -> object:
        # Chosen here by its key, so that a mistake is told once and not once for each form.
        if not isinstance(value, dict):
            return value
        if {"marker", "settle_seconds"} <= value.keys():
            raise ValueError("choose one of marker and settle_seconds")
        return Marker(**value) if "marker" in value else Settled(**value)

    @field_validator("partition")
    @classmethod
    def _names_periods(cls, value: str | None, info: object) -> str | None:
        kind = getattr(info, "data", {}).get("period")
        if kind is None:
            return value
        if value is None:
            if kind is not PeriodKind.NONE:
                raise ValueError(
                    f'a feed by {kind} needs a partition, like partition: "{_PARTITION_EXAMPLES[kind]}"'
                )
            return None
        try:
            Partition.parse(value, kind)
        except PartitionError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _fits_drop_folder(self) -> "Feed":
        if self.period is PeriodKind.NONE:
            if isinstance(self.complete, Marker):
                raise ValueError(
                    "complete: a drop folder (period: none) never is complete as a whole, so a marker says nothing; "
                    "use complete: {settle_seconds: 300}"
                )
            if "look_back" in self.model_fields_set:
                raise ValueError(
                    "look_back: a drop folder (period: none) has no periods to look back on; remove it"
                )
        return self

    @property
    def partition_template(self) -> Partition | None:
        """The partition taken apart; None for a drop folder."""
        return None if self.partition is None else Partition.parse(self.partition, self.period)
