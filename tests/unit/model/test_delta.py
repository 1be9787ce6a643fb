"""Delta's commits: what we write is what we read, a schema changes as the manual says, and hostile bytes are
refused with a reason."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.delta import (
    Change,
    DeltaTable,
    SchemaChange,
    TableFile,
    checkpoint_key,
    commit,
    hint_key,
    is_log_key,
    log_key,
    merged,
    parsed,
    protocol,
)

ROOT = "xmode/us-daily/"
AT = datetime(2026, 11, 22, 6, tzinfo=UTC)


def schema(*columns: tuple[str, Any], required: tuple[str, ...] = ()) -> str:
    fields = [
        {"name": name, "type": kind, "nullable": name not in required, "metadata": {}}
        for name, kind in columns
    ]
    return json.dumps({"type": "struct", "fields": fields})


FIRST = merged("", schema(("id", "long"), ("at", "timestamp"), required=("id",)), ("dt",), {"dt"})
BEGUN = DeltaTable("acme", "us-daily", ROOT, "an-id", ("dt",), AT)
BASE = (("id", "long"), ("at", "timestamp"))


def fields_of(text: str) -> list[tuple[str, Any, bool, bool]]:
    fields = json.loads(text)["fields"]
    return [
        (item["name"], item["type"], item["nullable"], item["metadata"].get("xmode.added", False))
        for item in fields
    ]


def test_a_first_file_gives_the_schema() -> None:
    assert fields_of(FIRST) == [
        ("id", "long", False, False),
        ("at", "timestamp", True, False),
        ("dt", "date", True, False),
    ]
    assert fields_of(merged("", schema(("id", "long")), ("dt",)))[1] == ("dt", "string", True, False)


@pytest.mark.parametrize(
    ("columns", "required", "added"),
    [
        (BASE, ("id",), []),
        (BASE[::-1], ("id",), []),  # the order does not count
        (BASE, ("id", "at"), []),
        ((*BASE, ("venue", "string")), ("id",), ["venue"]),
    ],
)
def test_what_is_merged(columns: Any, required: tuple[str, ...], added: list[str]) -> None:
    after = merged(FIRST, schema(*columns, required=required), ("dt",), {"dt"})
    assert fields_of(after) == [*fields_of(FIRST), *((name, "string", True, True) for name in added)]
    assert added or after == FIRST
    # and a file without the new column follows, for a correction of an older period
    assert merged(after, schema(*BASE, required=("id",)), ("dt",), {"dt"}) == after


@pytest.mark.parametrize(
    ("columns", "required", "reason"),
    [
        (BASE[:1], ("id",), "column at is missing"),
        ((("id", "integer"), BASE[1]), ("id",), "column id has the type integer, not long"),
        (BASE, (), "column id can be null"),
        ((*BASE, ("venue", "string")), ("id", "venue"), "column venue is new and not null"),
        ((*BASE, ("AT", "string")), ("id",), "column AT is new and differs only in case"),
        ((*BASE, ("DT", "date")), ("id",), "a column DT, and the layout makes"),
    ],
)
def test_what_is_refused(columns: Any, required: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SchemaChange) as caught:
        merged(FIRST, schema(*columns, required=required), ("dt",), {"dt"})
    assert reason in str(caught.value)
    if "layout" not in reason:
        assert "The table has (id long not null, at timestamp). The file has (" in str(caught.value)


def test_nested_types_are_compared_and_named() -> None:
    array = {"type": "array", "elementType": "long", "containsNull": True}
    mapping = {"type": "map", "keyType": "string", "valueType": array, "valueContainsNull": True}
    inner = {"type": "struct", "fields": json.loads(schema(("x", mapping)))["fields"]}
    first = merged("", schema(("c", inner)), ())
    assert merged(first, schema(("c", inner)), ()) == first
    with pytest.raises(SchemaChange, match=r"not struct\(x map\(string, array\(long\)\)\)"):
        merged(first, schema(("c", array)), ())


def test_keys() -> None:
    keys = [log_key(ROOT, 12), checkpoint_key(ROOT, 12), hint_key(ROOT)]
    assert keys[0] == "xmode/us-daily/_delta_log/00000000000000000012.json"
    assert all(is_log_key(ROOT, key) for key in keys)
    others = [
        f"{ROOT}_delta_log/",
        f"{ROOT}_delta_log/x.json",
        f"x{keys[0]}",
        f"{keys[0]}\n",
        f"{keys[0]}.tmp",
    ]
    assert not any(is_log_key(ROOT, key) for key in others)


SEGMENT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12
).filter(lambda text: text not in (".", ".."))
MOMENTS = st.integers(0, 10**12).map(lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=n))
FILES = st.builds(
    lambda day, name, size, rows, at: TableFile(
        day, f"{ROOT}dt={day}/{name}", size, rows, f'{{"numRecords":{rows}}}', at
    ),
    st.dates().map(str),
    SEGMENT,
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    MOMENTS,
)
CHANGES = st.builds(
    lambda *values: Change(*values),
    st.dates().map(str),
    st.none() | st.integers(1, 999),
    st.lists(FILES, max_size=4),
    st.lists(FILES, max_size=4),
    st.sampled_from([FIRST, merged(FIRST, schema(*BASE, ("w", "timestamp_ntz"), required=("id",)), ("dt",))]),
)


@given(st.lists(CHANGES, min_size=1, max_size=4), MOMENTS)
def test_a_commit_is_read_as_it_was_written(changes: list[Change], at: datetime) -> None:
    table = BEGUN
    known = BEGUN._replace(id="", columns=(), created_at=AT + timedelta(1))  # the ledger is lost
    for change in changes:
        table, record, lines = commit(table, change, at)
        text = b"".join(lines)
        known, found, added, removed = parsed(known, text.splitlines())
        assert known == table
        assert found == record
        assert added == [item._replace(version=table.version) for item in change.added]
        assert removed == [item.key for item in change.removed]


def test_the_actions_of_a_commit() -> None:
    file = TableFile("2026-11-22", f"{ROOT}dt=2026-11-22/_r2/a b%.parquet", 9, 3, '{"numRecords":3}', AT)
    old = file._replace(key=f"{ROOT}dt=2026-11-22/a b%.parquet")
    change = Change("2026-11-22", 2, [file], [old], FIRST)
    table, _, lines = commit(BEGUN._replace(version=4, table_schema=FIRST), change, AT)
    actions = [json.loads(line) for line in lines]
    assert [next(iter(action)) for action in actions] == ["remove", "add", "txn", "commitInfo"]
    assert table.version == 5
    place = {"partitionValues": {"dt": "2026-11-22"}, "size": 9}
    millis = int(AT.timestamp() * 1000)
    assert actions[0]["remove"] == place | {
        "path": "dt=2026-11-22/a%20b%25.parquet",
        "deletionTimestamp": millis,
        "dataChange": True,
        "extendedFileMetadata": True,
    }
    assert actions[1]["add"] == place | {
        "path": "dt=2026-11-22/_r2/a%20b%25.parquet",
        "modificationTime": millis,
        "dataChange": True,
        "stats": '{"numRecords":3}',
        "tags": {"xmode.period": "2026-11-22"},
    }
    assert actions[2]["txn"] == {"appId": "xmode:us-daily/2026-11-22", "version": 2}


def _whole() -> list[dict[str, Any]]:
    file = TableFile("2026-11-22", f"{ROOT}dt=2026-11-22/a.parquet", 9, 3, '{"numRecords":3}', AT)
    change = Change("2026-11-22", 1, [file], [file._replace(key=f"{ROOT}b.parquet")], FIRST)
    return [json.loads(line) for line in commit(BEGUN, change, AT)[2]]


def _set(kind: str, name: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(actions: list[dict[str, Any]]) -> None:
        next(item for item in actions if kind in item)[kind][name] = value

    return change


PATHS = [
    "c:d",
    "../x",
    "a//b",
    "/a",
    "a%2Fb",
    "a b",
    "%ff",
    "%zz",
    "_delta_log/x",
    "",
    "x" * 2000,
    7,
    "s3://x/a",
    "\ud800",
]


HOSTILE: list[Callable[[list[dict[str, Any]]], Any]] = [
    *(_set("add", "path", path) for path in PATHS),
    *(_set("remove", "path", path) for path in PATHS[:4]),
    *(_set("add", "size", size) for size in (-1, 2**63, True, 1.5, None, "9")),
    *(_set("add", "stats", text) for text in ("", "[]", "{}", '{"numRecords":-1}', "[" * 100_000, None)),
    _set("add", "tags", None),
    _set("add", "tags", {"xmode.period": "x" * 2000}),
    _set("add", "modificationTime", 2**62),
    _set("protocol", "minReaderVersion", 9),
    _set("metaData", "schemaString", "{}"),
    _set("metaData", "schemaString", '{"fields":[{}]}'),
    _set("metaData", "partitionColumns", [7]),
    _set("txn", "version", 2),
    _set("txn", "appId", "xmode:us-daily/2026-11-23"),
    _set("commitInfo", "xmode", None),
    lambda actions: actions.pop(),
    lambda actions: actions.append(actions[-1]),
    lambda actions: actions.insert(0, {"cdc": {}}),
    lambda actions: actions.insert(0, {}),
    lambda actions: actions.insert(0, {"add": {}, "remove": {}}),
    lambda actions: actions.pop(1),
    lambda actions: actions.pop(-2),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_commit_is_refused(number: int) -> None:
    actions = _whole()
    parsed(BEGUN, [json.dumps(action).encode() for action in actions])
    HOSTILE[number](actions)
    with pytest.raises(ValueError) as caught:
        parsed(BEGUN, [json.dumps(action).encode() for action in actions])
    assert len(str(caught.value)) < 300


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_bytes_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(ValueError):
        parsed(BEGUN, lines)


def test_the_id_and_the_columns_stay() -> None:
    actions = [json.dumps(action).encode() for action in _whole()]
    with pytest.raises(ValueError, match="another table's"):
        parsed(BEGUN._replace(version=3, table_schema=FIRST, id="another"), actions)


def test_the_protocol_follows_the_types() -> None:
    assert protocol(FIRST) == {"minReaderVersion": 1, "minWriterVersion": 2}
    assert protocol(merged("", schema(("w", "timestamp_ntz")), ()))["readerFeatures"] == ["timestampNtz"]
