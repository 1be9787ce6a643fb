"""``checks`` of a feed: what has to be true of a period before anything of it is sent (docs/checks.md)."""

import re
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from xmode_transfer.config.base import ByteCount, Model
from xmode_transfer.model.periods import PeriodKind

_PERCENT = r"[0-9]{1,4}(\.[0-9]{1,2})?\s*%"


def _parse_percent(value: object) -> object:
    if not isinstance(value, str):
        return value
    if re.fullmatch(_PERCENT, value.strip()) is None:
        raise ValueError(f"{value!r} is not a percentage; write it like 50%")
    return float(value.strip().rstrip("%"))


Percent = Annotated[
    float,
    BeforeValidator(_parse_percent),
    Field(gt=0),
    WithJsonSchema({"type": "string", "pattern": f"^{_PERCENT}$"}),
]


class SchemaRule(StrEnum):
    SAME = "same"
    COMPATIBLE = "compatible"  # added nullable columns are allowed


class HeaderRule(StrEnum):
    SAME = "same"


class EmptyPeriod(StrEnum):
    DELIVER = "deliver"
    QUARANTINE = "quarantine"


class OnFailure(StrEnum):
    QUARANTINE = "quarantine"
    WARN = "warn"


class Change(Model):
    """The allowed difference, up and down, from the median of the last delivered periods."""

    bytes: Percent | None = Field(default=None, examples=["50%"])
    """Allowed difference of the period's bytes."""
    files: Percent | None = Field(default=None, examples=["30%"])
    """Allowed difference of the period's number of files."""
    against: int = Field(default=14, ge=3, le=100)
    """Number of delivered periods of the same kind of day to compare with. Fewer than 3: no comparison."""


class Parquet(Model):
    """Checks of .parquet files."""

    schema_: SchemaRule = Field(alias="schema", examples=["same"])
    """Columns of all files and of the last sound period: same, or compatible. Needs the extra formats."""

    @field_validator("schema_")
    @classmethod
    def _is_readable(cls, value: SchemaRule) -> SchemaRule:
        if find_spec("pyarrow") is None:
            raise ValueError("this needs pyarrow; install it with `pip install 'xmode-transfer[formats]'`")
        return value


class Csv(Model):
    """Checks of .csv and .tsv files, also with .gz."""

    header: HeaderRule = Field(examples=["same"])
    """The first line of all files and of the last sound period: same."""


class Checks(Model):
    """Checks before release. A period that fails is quarantined: nothing of it is sent to any customer."""

    min_files: int | None = Field(default=None, ge=1)
    """Smallest number of files of a period."""
    min_bytes: ByteCount | None = Field(default=None, ge=1)
    """Smallest sum of a period's file sizes: a number of bytes, or like 1GB."""
    change: Change | None = None
    """Allowed difference from the periods before: {bytes: 50%, files: 30%, against: 14}."""
    parquet: Parquet | None = None
    """Columns of Parquet files: {schema: same} or {schema: compatible}."""
    csv: Csv | None = None
    """First line of CSV files: {header: same}."""
    deep: bool = False
    """Read compressed files through to find one that is cut off. This reads every byte once more."""
    empty_period: EmptyPeriod = EmptyPeriod.QUARANTINE
    """A complete period without a file: quarantine (once the feed has delivered files) or deliver."""
    on_failure: OnFailure = OnFailure.QUARANTINE
    """What happens if a check fails: quarantine, or warn and deliver."""

    @field_validator("min_files", "min_bytes", "change", "parquet", "csv", "empty_period")
    @classmethod
    def _has_periods(cls, value: object, info: ValidationInfo) -> object:
        # Runs only if the file has the key.
        if (info.context or {}).get("period") is PeriodKind.NONE:
            raise ValueError(
                "a drop folder (period: none) is judged file by file, so this says nothing; remove it"
            )
        return value
