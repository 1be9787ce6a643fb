"""A reader of Delta tables in plain Python: it replays the commits of a log, and checks each."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = "xmode/us-daily/"


@dataclass
class Replayed:
    """``files`` has the adds by key, ``deliveries`` the last version of each application, ``versions`` the
    keys of each version."""

    version: int = -1
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    versions: list[set[str]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return [item["name"] for item in json.loads(self.metadata["schemaString"])["fields"]]


def parquet(**columns: list[Any]) -> bytes:
    """Return a Parquet file with these columns."""
    return parquet_of(pa.table(columns))


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def replay(contents: Mapping[str, bytes], root: str = ROOT) -> Replayed:
    """Replay the whole log. Each removed file must be in the table, each added one not, and no delivery may
    be committed twice."""
    table = Replayed()
    while (body := contents.get(f"{root}_delta_log/{table.version + 1:020d}.json")) is not None:
        table.version += 1
        actions = [json.loads(line) for line in body.splitlines()]
        assert list(actions[-1]) == ["commitInfo"]
        for action in actions:
            ((kind, value),) = action.items()
            if kind == "remove":
                del table.files[root + unquote(value["path"])]
        for action in actions:
            ((kind, value),) = action.items()
            if kind == "add":
                key = root + unquote(value["path"])
                assert key not in table.files
                assert len(contents.get(key, b" " * value["size"])) == value["size"]
                table.files[key] = value
            elif kind == "txn":
                assert table.deliveries.get(value["appId"], 0) < value["version"]
                table.deliveries[value["appId"]] = value["version"]
            elif kind == "metaData":
                table.metadata = value
        table.versions.append(set(table.files))
    logged = [key for key in contents if key.startswith(f"{root}_delta_log/") and key.endswith(".json")]
    assert len(logged) == table.version + 1
    return table


def keys_of_manifests(contents: Mapping[str, bytes]) -> set[str]:
    """Return the Parquet objects that the newest manifest of each period lists."""
    newest: dict[str, dict[str, Any]] = {}
    for key in sorted(contents):
        if "/_manifests/" in key:
            manifest = json.loads(contents[key])
            newest[manifest["period"]] = manifest
    objects = (item for manifest in newest.values() for item in manifest["objects"])
    return {item["key"] for item in objects if item["key"].endswith(".parquet")}


def rows(contents: Mapping[str, bytes], keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of objects, sorted."""
    found = [row for key in keys for row in pq.read_table(io.BytesIO(contents[key])).to_pylist()]
    return sorted(found, key=str)


def stored(contents: Mapping[str, bytes], folder: Path) -> Path:
    """Write a bucket's contents below a folder; return the folder."""
    for key, body in contents.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder
