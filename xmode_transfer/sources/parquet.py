"""The footer of a Parquet file: its rows, its schema as Delta writes it, and statistics of its columns.

Sources: the Parquet format (apache/parquet-format) and Delta's transaction log protocol (delta-io/delta,
PROTOCOL.md, "Schema Serialization Format" and "Per-file Statistics").
"""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from xmode_transfer.sources.formats import arrow

_TAIL_BYTES = 64 * 1024
_MAX_FOOTER_BYTES = 64 * 1024 * 1024
_END_BYTES = 8  # the footer's length and the magic bytes
_COLUMNS = 100  # a file with more has no statistics but its rows
_MAX_TEXT = 32  # characters of a string in min and max
_MAX_DIGITS = 15  # of a decimal: some readers parse numbers as doubles
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIMPLE = {
    "bool": "boolean",
    "int8": "byte",
    "int16": "short",
    "int32": "integer",
    "int64": "long",
    "float": "float",
    "double": "double",
    "string": "string",
    "large_string": "string",
    "string_view": "string",
    "binary": "binary",
    "large_binary": "binary",
    "binary_view": "binary",
    "date32[day]": "date",
    "date64[ms]": "date",
}


class Footer(NamedTuple):
    """``table_schema`` and ``statistics`` are Delta's JSON."""

    rows: int
    table_schema: str
    statistics: str


class NotATable(ValueError):
    """The file cannot be part of a Delta table. The message is the reason."""


def read_footer(read: Callable[[int, int], bytes], size: int) -> Footer:
    """Read a file's footer by ``read(offset, length)``, usually in one call. Raises NotATable."""
    parquet = arrow("pyarrow.parquet", "the feed's table (table: delta) needs", "tables")
    footer = _footer(read, size)
    try:
        metadata = parquet.read_metadata(io.BytesIO(b"PAR1" + footer))
        schema = metadata.schema.to_arrow_schema()
    except Exception as error:  # noqa: BLE001 - the library has several
        raise NotATable(f"its footer cannot be read: {error}") from None
    fields, leaf = [], 0
    columns: list[tuple[str, str, int]] = []
    bounded = True
    for field in schema:
        width = _leaves(field.type)
        if leaf + width > metadata.num_columns:
            raise NotATable(f"its footer cannot be read: {field.name} has no data")
        is_int96 = any(metadata.schema.column(leaf + n).physical_type == "INT96" for n in range(width))
        fields.append(_field(field, field.name, is_int96=is_int96))
        if width == 1 and isinstance(fields[-1]["type"], str) and not is_int96:
            columns.append((field.name, fields[-1]["type"], leaf))
        elif isinstance(fields[-1]["type"], str) or fields[-1]["type"]["type"] == "struct":
            bounded = False
        leaf += width
    if not fields or leaf != metadata.num_columns:
        raise NotATable("it has no columns" if not fields else "its footer cannot be read: columns differ")
    names = [field["name"].lower() for field in fields]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise NotATable(f"it has two columns named {twice} (Delta ignores case)")
    table_schema = json.dumps({"type": "struct", "fields": fields}, ensure_ascii=False)
    return Footer(metadata.num_rows, table_schema, _statistics(metadata, columns, bounded=bounded))


def _footer(read: Callable[[int, int], bytes], size: int) -> bytes:
    start = max(size - _TAIL_BYTES, 0)
    tail = read(start, size - start)
    if len(tail) != size - start or size < _END_BYTES + 4 or tail[-4:] not in (b"PAR1", b"PARE"):
        raise NotATable("it is not a Parquet file: it does not end with PAR1")
    if tail[-4:] == b"PARE":
        raise NotATable("its footer is encrypted")
    length = int.from_bytes(tail[-_END_BYTES:-4], "little") + _END_BYTES
    if not _END_BYTES < length <= min(size - 4, _MAX_FOOTER_BYTES):
        raise NotATable(f"its footer would have {length - _END_BYTES:,} bytes")
    if length > len(tail):
        first = size - length
        tail = read(first, start - first) + tail
    return tail[-length:]


def _leaves(kind: Any) -> int:
    """Return the number of Parquet columns of an Arrow type."""
    kind = _stored(kind)
    if not kind.num_fields:
        return 1
    return sum(_leaves(kind.field(number).type) for number in range(kind.num_fields))


def _stored(kind: Any) -> Any:
    """Undo what Arrow's own metadata in the file restores and Parquet does not have."""
    while True:
        if hasattr(kind, "storage_type"):  # an extension
            kind = kind.storage_type
        elif str(kind).startswith(("dictionary<", "run_end_encoded<")):
            kind = kind.value_type
        else:
            return kind


def _field(field: Any, path: str, *, is_int96: bool) -> dict[str, Any]:
    kind = _type(field.type, path, is_int96=is_int96)
    return {"name": field.name, "type": kind, "nullable": bool(field.nullable), "metadata": {}}


def _type(kind: Any, path: str, *, is_int96: bool) -> Any:
    kind = _stored(kind)
    text = str(kind)
    if text in _SIMPLE:
        return _SIMPLE[text]
    if text.startswith("fixed_size_binary"):
        return "binary"
    if text.startswith("timestamp"):
        if kind.unit == "ns" and not is_int96:
            raise NotATable(
                f"column {path}: timestamps in nanoseconds are not in Delta; write them in microseconds"
            )
        return "timestamp" if is_int96 or kind.tz is not None else "timestamp_ntz"
    if text.startswith("decimal") and kind.precision <= 38 and 0 <= kind.scale <= kind.precision:
        return f"decimal({kind.precision},{kind.scale})"
    if text.startswith("struct"):
        inner = [kind.field(number) for number in range(kind.num_fields)]
        fields = [_field(item, f"{path}.{item.name}", is_int96=is_int96) for item in inner]
        return {"type": "struct", "fields": fields}
    if text.startswith("map"):
        return {
            "type": "map",
            "keyType": _type(kind.key_type, f"{path}.key", is_int96=is_int96),
            "valueType": _type(kind.item_type, f"{path}.value", is_int96=is_int96),
            "valueContainsNull": bool(kind.item_field.nullable),
        }
    if text.startswith(("list", "large_list", "fixed_size_list")):
        return {
            "type": "array",
            "elementType": _type(kind.value_type, f"{path}.element", is_int96=is_int96),
            "containsNull": bool(kind.value_field.nullable),
        }
    raise NotATable(f"column {path}: the type {text} is not in Delta")


def _statistics(metadata: Any, columns: list[tuple[str, str, int]], *, bounded: bool) -> str:
    """Return Delta's statistics: bounds of all columns that can have them, or of none. deltalake's PyArrow
    datasets (1.6) hide the rows of a column without bounds if another column of the file has some."""
    if len(columns) > _COLUMNS:
        return f'{{"numRecords":{metadata.num_rows}}}'
    low: list[str] = []
    high: list[str] = []
    nulls: list[str] = []
    for name, kind, number in columns:
        chunks = [metadata.row_group(group).column(number) for group in range(metadata.num_row_groups)]
        found = [chunk.statistics for chunk in chunks if chunk.num_values]
        if any(item is None for item in found):
            bounded = False
            continue
        label = json.dumps(name, ensure_ascii=False)
        if all(item.has_null_count for item in found):
            nulls.append(f"{label}:{sum(item.null_count for item in found)}")
            found = [
                item
                for chunk, item in zip((c for c in chunks if c.num_values), found, strict=True)
                if item.null_count < chunk.num_values  # else it has no value
            ]
        if found and all(item.has_min_max for item in found):
            bounds = [(item.min_raw, item.max_raw) for item in found]
            logical = str(found[0].logical_type)
            lower, higher = (list(_bound(kind, bounds, logical, upper=upper)) for upper in (False, True))
            low.extend(f"{label}:{text}" for text in lower)
            high.extend(f"{label}:{text}" for text in higher)
            bounded &= kind == "binary" or bool(lower and higher)
        else:
            bounded &= kind == "binary" or not found
    if not bounded:
        low, high = [], []
    parts = (("minValues", low), ("maxValues", high), ("nullCount", nulls))
    texts = "".join(f',"{name}":{{{",".join(items)}}}' for name, items in parts if items)
    return f'{{"numRecords":{metadata.num_rows}{texts}}}'


def _bound(kind: str, bounds: list[tuple[Any, Any]], logical: str, *, upper: bool) -> Iterator[str]:
    """Yield the JSON of a column's least or greatest value; nothing if it has none that Delta can use."""
    both = [value for pair in bounds for value in pair]
    try:
        if kind in ("byte", "short", "integer", "long"):
            yield str(int(max(both) if upper else min(both)))
        elif kind == "string":
            texts = [value if isinstance(value, bytes) else str(value).encode() for value in both]
            words = [text.decode() for text in texts]
            if all(len(word) <= _MAX_TEXT for word in words):
                yield json.dumps((max(texts) if upper else min(texts)).decode(), ensure_ascii=False)
        elif kind == "date":
            day = date(1970, 1, 1) + timedelta(days=int(max(both) if upper else min(both)))
            yield f'"{day.isoformat()}"'
        elif kind in ("timestamp", "timestamp_ntz"):
            yield _moment(max(both) if upper else min(both), kind, logical, upper=upper)
        elif kind.startswith("decimal"):
            precision, scale = map(int, kind[len("decimal(") : -1].split(","))
            if precision <= _MAX_DIGITS:
                numbers = [
                    int.from_bytes(value, "big", signed=True) if isinstance(value, bytes) else int(value)
                    for value in both
                ]
                yield format(Decimal(max(numbers) if upper else min(numbers)).scaleb(-scale), "f")
    except (OverflowError, UnicodeDecodeError):
        return  # a year beyond 9999, or text that is cut within a character


def _moment(value: int, kind: str, logical: str, *, upper: bool) -> str:
    """Return a timestamp in milliseconds, rounded so that it bounds the value."""
    if "milliseconds" not in logical:
        value = -(-value // 1000) if upper else value // 1000
    moment = _EPOCH + timedelta(milliseconds=value)
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f'"{text}Z"' if kind == "timestamp" else f'"{text}"'
