"""Footers of Parquet: Delta's schema, and statistics that never exclude a row."""

import json
import math
import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.sources.parquet import Footer, NotATable, read_footer


def written(table: pa.Table, **how: Any) -> bytes:
    sink = BytesIO()
    pq.write_table(table, sink, **how)
    return sink.getvalue()


def footer_of(body: bytes) -> Footer:
    return read_footer(lambda offset, length: body[offset : offset + length], len(body))


def types_of(table: pa.Table, **how: Any) -> dict[str, Any]:
    fields = json.loads(footer_of(written(table, **how)).table_schema)["fields"]
    return {item["name"]: item["type"] for item in fields}


LIST = {"type": "array", "elementType": "long", "containsNull": True}
MAP = {"type": "map", "keyType": "string", "valueType": "long", "valueContainsNull": True}
INNER = {"name": "a", "type": "integer", "nullable": True, "metadata": {}}
KINDS = [
    (pa.bool_(), "boolean"),
    (pa.int8(), "byte"),
    (pa.int16(), "short"),
    (pa.int32(), "integer"),
    (pa.int64(), "long"),
    (pa.float32(), "float"),
    (pa.float64(), "double"),
    (pa.string(), "string"),
    (pa.large_string(), "string"),
    (pa.string_view(), "string"),
    (pa.dictionary(pa.int32(), pa.string()), "string"),
    (pa.dictionary(pa.int8(), pa.int64()), "long"),
    (pa.binary(), "binary"),
    (pa.large_binary(), "binary"),
    (pa.binary(4), "binary"),
    (pa.date32(), "date"),
    (pa.date64(), "date"),
    (pa.timestamp("us"), "timestamp_ntz"),
    (pa.timestamp("ms"), "timestamp_ntz"),
    (pa.timestamp("s"), "timestamp_ntz"),
    (pa.timestamp("us", "UTC"), "timestamp"),
    (pa.timestamp("us", "America/New_York"), "timestamp"),
    (pa.decimal128(5, 2), "decimal(5,2)"),
    (pa.decimal128(38, 0), "decimal(38,0)"),
    (pa.list_(pa.int64()), LIST),
    (pa.large_list(pa.int64()), LIST),
    (pa.list_(pa.int64(), 3), LIST),
    (pa.list_(pa.field("item", pa.int64(), nullable=False)), {**LIST, "containsNull": False}),
    (pa.map_(pa.string(), pa.int64()), MAP),
    (pa.struct([("a", pa.int32())]), {"type": "struct", "fields": [INNER]}),
    (pa.list_(pa.map_(pa.string(), pa.int64())), {**LIST, "elementType": MAP}),
]


@pytest.mark.parametrize(("kind", "wanted"), KINDS, ids=str)
def test_types(kind: Any, wanted: Any) -> None:
    table = pa.schema([("c", kind), ("after", pa.int64())]).empty_table()
    assert types_of(table) == {"c": wanted, "after": "long"}
    assert types_of(table, store_schema=False) == {"c": wanted, "after": "long"}


def test_int96_is_an_instant() -> None:
    table = pa.table(
        {"c": pa.array([0], pa.timestamp("ns")), "d": pa.array([[0]], pa.list_(pa.timestamp("us")))}
    )
    wanted = {"type": "array", "elementType": "timestamp", "containsNull": True}
    assert types_of(table, use_deprecated_int96_timestamps=True) == {"c": "timestamp", "d": wanted}


@pytest.mark.parametrize(
    "kind",
    [
        pa.uint8(),
        pa.uint64(),
        pa.time32("ms"),
        pa.time64("us"),
        pa.duration("us"),
        pa.float16(),
        pa.null(),
        pa.timestamp("ns"),
        pa.decimal256(39, 2),
        pa.struct([("x", pa.uint16())]),
        pa.list_(pa.time64("us")),
    ],
    ids=str,
)
def test_types_that_delta_lacks(kind: Any) -> None:
    with pytest.raises(NotATable, match=r"^column price[. :]"):
        types_of(pa.schema([("id", pa.int64()), ("price", kind)]).empty_table())


def test_nullability_and_names() -> None:
    table = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b.c", pa.string())]).empty_table()
    fields = json.loads(footer_of(written(table)).table_schema)["fields"]
    assert [(item["name"], item["nullable"]) for item in fields] == [("a", False), ("b.c", True)]
    with pytest.raises(NotATable, match="two columns named a"):
        types_of(pa.schema([("a", pa.int64()), ("A", pa.string())]).empty_table())


GOOD = written(pa.table({"id": [1, 2, 3]}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" + b"\0" * 4 + b"PAR1",
        b"PAR1" + b"\xff" * 4 + b"PAR1",
        GOOD[:-4] + b"PARE",
        GOOD[:-1],
        b"PAR1" + b"x" * 50 + struct.pack("<I", 50) + b"PAR1",
        GOOD[: len(GOOD) // 2] + b"PAR1",
        written(pa.table({})),
    ],
)
def test_what_is_no_table(body: bytes) -> None:
    with pytest.raises(NotATable):
        footer_of(body)


def test_a_read_or_two() -> None:
    reads: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return body[offset : offset + length]

    body = written(pa.table({"id": list(range(100_000))}))
    assert read_footer(read, len(body)).rows == 100_000
    assert reads == [(len(body) - 65536, 65536)]
    reads.clear()
    body = written(pa.table({f"column {n:04}": [n] for n in range(1000)}))
    assert len(json.loads(read_footer(read, len(body)).table_schema)["fields"]) == 1000
    assert len(reads) == 2
    assert sum(length for _, length in reads) < len(body)


def test_statistics() -> None:
    table = pa.table(
        {
            "n": pa.array([3, None, -1], pa.int16()),
            "d": pa.array([date(2026, 11, 22), date(1969, 1, 1), None]),
            "m": pa.array([Decimal("1.50"), Decimal("-0.01"), None], pa.decimal128(9, 2)),
            "u": pa.array([-1, 1_700_000_000_123_456, None], pa.timestamp("us", "UTC")),
            "w": pa.array([-1, 1_700_000_000_123_456, None], pa.timestamp("us")),
            "s": pa.array(["é", "a" * 32, None]),
            "none": pa.array([None, None, None], pa.int64()),
            "bytes": [b"x", b"", None],
            "list": [[1], [], None],
        }
    )
    found = json.loads(footer_of(written(table, row_group_size=2)).statistics)
    assert found == {
        "numRecords": 3,
        "minValues": {
            "n": -1,
            "d": "1969-01-01",
            "m": -0.01,
            "u": "1969-12-31T23:59:59.999Z",
            "w": "1969-12-31T23:59:59.999",
            "s": "a" * 32,
        },
        "maxValues": {
            "n": 3,
            "d": "2026-11-22",
            "m": 1.5,
            "u": "2023-11-14T22:13:20.124Z",
            "w": "2023-11-14T22:13:20.124",
            "s": "é",
        },
        "nullCount": dict.fromkeys(("n", "d", "m", "u", "w", "s", "bytes"), 1) | {"none": 3},
    }


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, math.nan]),
        pa.array([-math.inf, None], pa.float32()),
        pa.array(["b", "a" * 33]),
        pa.array([Decimal(1), None], pa.decimal128(16, 0)),
        pa.array([True, None]),
        pa.array([{"a": 1}, None]),
    ],
    ids=range(6),
)
def test_all_columns_have_bounds_or_none(column: Any) -> None:
    """Else a filter on the column finds nothing in deltalake."""
    found = json.loads(footer_of(written(pa.table({"id": [1, 2], "c": column}))).statistics)
    assert set(found) == {"numRecords", "nullCount"}
    many = pa.table({f"c{number}": [1] for number in range(101)})
    assert json.loads(footer_of(written(many)).statistics) == {"numRecords": 1}


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.string(): st.text(max_size=40),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("ms", "UTC"): st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
        lambda at: at.replace(tzinfo=UTC, microsecond=at.microsecond // 1000 * 1000)
    ),
    pa.decimal128(7, 3): st.decimals(-9999, 9999, places=3),
}


@given(st.data())
def test_statistics_exclude_no_row(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(VALUES)))
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=6))
    body = written(pa.table({"c": pa.array(values, kind)}), row_group_size=data.draw(st.integers(1, 7)))
    footer = footer_of(body)
    found = json.loads(footer.statistics, parse_float=Decimal)
    assert footer.rows == found["numRecords"] == len(values)
    assert found.get("nullCount", {}).get("c", 0) == values.count(None)
    low, high = found.get("minValues", {}).get("c"), found.get("maxValues", {}).get("c")
    for value in pa.array(values, kind).to_pylist():
        if value is None:
            continue
        assert low is None or _before(low, value)
        assert high is None or _before(high, value, upper=True)


def _before(bound: Any, value: Any, *, upper: bool = False) -> bool:
    """As Delta compares: NaN is above all numbers."""
    if isinstance(value, float):
        if math.isnan(value):
            return not upper
        left: Any = float(bound)
        right: Any = value
    elif isinstance(value, str):
        left, right = bound.encode(), value.encode()
    elif isinstance(value, datetime):
        left, right = datetime.fromisoformat(bound), value
    elif isinstance(value, date):
        left, right = date.fromisoformat(bound), value
    else:
        left, right = bound, value
    return bool(left >= right if upper else left <= right)
