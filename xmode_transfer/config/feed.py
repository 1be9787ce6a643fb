"""feeds/<feed>.yaml: a data product, the location of its files, and when they are complete."""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from xmode_transfer.config.base import Model, Slug, did_you_mean
from xmode_transfer.config.checks import Checks
from xmode_transfer.config.names import check_bucket
from xmode_transfer.config.schedule import Day, FeedFreshness
from xmode_transfer.model.delta import TableFormat
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.native import NativeKind
from xmode_transfer.model.periods import Partition, PeriodKind
from xmode_transfer.model.selection import check_pattern

DEFAULT_EXCLUDE = (".*", "*.tmp", "*.part", "*.partial", "_temporary")
_PARTITION_EXAMPLES = {
    PeriodKind.HOUR: "%Y/%m/%d/%H",
    PeriodKind.DAY: "%Y/%m/%d",
    PeriodKind.WEEK: "%G/W%V",
    PeriodKind.MONTH: "%Y/%m",
}


def _check_file_name(value: str) -> str:
    if value in ("", ".", "..") or "/" in value or not value.isprintable():
        raise ValueError(f"{value!r} is not a file name; write the marker's name alone, like _SUCCESS")
    return value


def _check_source(value: str) -> str:
    if value.startswith("s3://"):
        bucket, _, prefix = value[5:].partition("/")
        check_bucket(bucket)
        if any(segment in ("", ".", "..") for segment in prefix.rstrip("/").split("/") if prefix):
            raise ValueError("empty, '.' and '..' folders are not allowed in an s3:// source")
        return value
    scheme, separator, _ = value.partition("://")
    if separator:
        raise ValueError(f"{scheme}:// is not a source; use a directory or s3://bucket/prefix")
    if value.startswith("~"):
        raise ValueError("~ is not expanded, because it depends on who runs the service; write the path out")
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is neither an absolute path nor s3://bucket/prefix")
    return value


class Marker(Model):
    """A period is complete when its directory has this file."""

    marker: Annotated[str, AfterValidator(_check_file_name)]
    """Name of the file that the producer writes last. It is not delivered."""


class Settled(Model):
    """A period, or a file of a drop folder, is complete when nothing has changed for a while."""

    settle_seconds: int = Field(ge=0, le=30 * 86400)
    """Seconds without a change."""


Pattern = Annotated[str, AfterValidator(check_pattern)]


def _check_native(kinds: tuple[NativeKind, ...]) -> tuple[NativeKind, ...]:
    if len(set(kinds)) != len(kinds):
        raise ValueError("a manifest is listed twice")
    return kinds


NativeKinds = Annotated[tuple[NativeKind, ...], AfterValidator(_check_native)]


class Subscription(Model):
    """What one customer receives of a feed differently from others. What is left out is as in the feed."""

    layout: str | None = Field(default=None, examples=["{feed}/dt={period:%Y-%m-%d}/{path}"])
    """Template of the object keys. Default: the feed's."""
    manifests: NativeKinds | None = Field(default=None, examples=[["redshift", "symlink"]])
    """Manifests for the customer's tools: redshift, symlink. Default: the feed's."""
    table: TableFormat | None = Field(default=None, examples=["delta"])
    """delta: the Parquet files are a Delta table too; none: they are not. Default: the feed's."""


class Feed(Model):
    """One data product. A plan of the sign-up page is a feed here."""

    name: Slug
    """The file's name without .yaml."""
    source: Annotated[str, AfterValidator(_check_source)] = Field(examples=["/data/exports/us-daily"])
    """Location of the files: a directory (absolute or relative to the config directory) or s3://bucket/prefix."""
    period: PeriodKind = Field(examples=["day"])
    """Period of one delivery: hour, day, week, month, or none for a drop folder."""
    partition: str | None = Field(default=None, validate_default=True, examples=["%Y/%m/%d"])
    """Path of a period's directory below the source. Required unless period is none."""
    include: tuple[Pattern, ...] = Field(default=("*",), min_length=1, examples=[["*.parquet", "*.csv.gz"]])
    """Patterns of the files to deliver."""
    exclude: tuple[Pattern, ...] = Field(default=DEFAULT_EXCLUDE, examples=[[".*", "*.tmp", "work"]])
    """Patterns of files and directories to exclude, despite include. They replace the default list."""
    complete: Marker | Settled = Field(
        default=Settled(settle_seconds=300), examples=[{"marker": "_SUCCESS"}, {"settle_seconds": 300}]
    )
    """When a period is complete: {marker: _SUCCESS} or {settle_seconds: 300}."""
    look_back: int = Field(default=31, ge=1, le=100_000)
    """Number of past periods for which missing deliveries are caught up."""
    freshness: FeedFreshness = FeedFreshness()
    """When a delivery counts as late."""
    sha256: bool = False
    """Add each file's SHA-256 to the manifest, besides S3's checksum. This takes processor time per byte."""
    layout: str | None = Field(
        default=None, validate_default=False, examples=["{feed}/dt={period:%Y-%m-%d}/{path}"]
    )
    """Template of the object keys below a destination's prefix. Default: the directories of the source."""
    manifests: NativeKinds = Field(default=(), examples=[["redshift", "symlink"]])
    """Manifests for the customers' tools, besides our own: redshift, symlink."""
    table: TableFormat = Field(default=TableFormat.NONE, examples=["delta"])
    """delta: the feed's Parquet files are a Delta table too."""
    checks: Checks = Checks()
    """Checks before release: what has to be true of a period before anything of it is sent."""

    @field_validator("partition")
    @classmethod
    def _names_periods(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("period")
        if kind is None:  # invalid, and reported already
            return value
        if value is not None:
            Partition.parse(value, kind)
        elif kind is not PeriodKind.NONE:
            raise ValueError(
                f"a feed by {kind} says how its directories are named, "
                f'like partition: "{_PARTITION_EXAMPLES[kind]}"'
            )
        return value

    @field_validator("complete", mode="before")
    @classmethod
    def _one_way(cls, value: object) -> object:
        # Chosen by its key, so that pydantic reports a mistake once, not for each form.
        if isinstance(value, Marker | Settled):
            return value
        forms: dict[str, type[Model]] = {"marker": Marker, "settle_seconds": Settled}
        given = [key for key in forms if isinstance(value, dict) and key in value]
        if len(given) == 2:
            raise ValueError("choose one of marker and settle_seconds")
        if given:
            return forms[given[0]].model_validate(value)
        near = (did_you_mean(str(key), forms) for key in value) if isinstance(value, dict) else ()
        meant = next(filter(None, near), "")
        raise ValueError(f"write {{marker: _SUCCESS}} or {{settle_seconds: 300}}{meant}")

    @field_validator("complete")
    @classmethod
    def _fits_period(cls, value: Marker | Settled, info: ValidationInfo) -> Marker | Settled:
        if isinstance(value, Marker) and info.data.get("period") is PeriodKind.NONE:
            raise ValueError(
                "a drop folder (period: none) is never complete as a whole, so a marker says nothing; "
                "use complete: {settle_seconds: 300}"
            )
        return value

    @field_validator("checks", mode="before")
    @classmethod
    def _fit_period(cls, value: object, info: ValidationInfo) -> object:
        return value if isinstance(value, Checks) else Checks.model_validate(value, context=info.data)

    @field_validator("look_back")
    @classmethod
    def _has_periods(cls, value: int, info: ValidationInfo) -> int:
        # Runs only if the file has the key.
        if info.data.get("period") is PeriodKind.NONE:
            raise ValueError("a drop folder (period: none) has no periods to look back on; remove it")
        return value

    @field_validator("freshness")
    @classmethod
    def _has_days(cls, value: FeedFreshness, info: ValidationInfo) -> FeedFreshness:
        kind = info.data.get("period")
        if kind in (PeriodKind.WEEK, PeriodKind.MONTH, PeriodKind.NONE) and value.days != tuple(Day):
            raise ValueError(f"days says nothing for a feed with period: {kind}; remove it")
        return value

    @field_validator("layout")
    @classmethod
    def _parses(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("period")
        if value is not None and kind is not None:
            Layout.of(value, kind, feed="feed", partition=None)
        return value

    @property
    def partition_template(self) -> Partition | None:
        return None if self.partition is None else Partition.parse(self.partition, self.period)
