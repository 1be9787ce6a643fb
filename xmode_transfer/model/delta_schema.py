"""The schema of a Delta table, and how files may change it: columns that can be null are added, nothing else.

Source: Delta's transaction log protocol (delta-io/delta, PROTOCOL.md, "Schema Serialization Format").
"""

import json
from collections.abc import Collection, Sequence
from typing import Any


class SchemaChange(ValueError):
    """A file does not have the table's schema. The message has both in words."""


def merged(
    table_schema: str, file_schema: str, columns: Sequence[str], date_columns: Collection[str] = ()
) -> str:
    """Return the schema of a table with one more file; ``table_schema`` is empty for the first file. Raises
    SchemaChange."""
    found = {item["name"]: item for item in json.loads(file_schema)["fields"]}
    partitions = {name.lower() for name in columns}
    for name in found:
        if name.lower() in partitions:
            raise SchemaChange(
                f"the file has a column {name}, and the layout makes a partition column of that name"
            )
    if not table_schema:
        kinds = {name: "date" if name in date_columns else "string" for name in columns}
        added = [
            {"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in kinds.items()
        ]
        return _schema([*found.values(), *added])
    fields = [item for item in json.loads(table_schema)["fields"] if item["name"].lower() not in partitions]
    known = {item["name"]: item for item in fields}
    new = [{**item, "metadata": {"xmode.added": True}} for name, item in found.items() if name not in known]
    names = {name.lower() for name in known}
    reasons = [
        f"column {item['name']} is new and {'not null' if not item['nullable'] else 'differs only in case'}"
        for item in new
        if not item["nullable"] or item["name"].lower() in names
    ]
    for name, item in known.items():
        other = found.get(name)
        if other is None:
            if not item["metadata"].get("xmode.added"):
                reasons.append(f"column {name} is missing")
        elif other["type"] != item["type"]:
            reasons.append(f"column {name} has the type {_words(other['type'])}, not {_words(item['type'])}")
        elif other["nullable"] and not item["nullable"]:
            reasons.append(f"column {name} can be null")
    if reasons:
        raise SchemaChange(
            f"{'; '.join(reasons[:5])}. The table has {_columns(fields)}. The file has "
            f"{_columns(list(found.values()))}"
        )
    if not new:
        return table_schema
    return _schema([*json.loads(table_schema)["fields"], *new])


def _schema(fields: list[Any]) -> str:
    return compact({"type": "struct", "fields": fields})


def _columns(fields: list[Any]) -> str:
    words = ", ".join(
        f"{item['name']} {_words(item['type'])}{'' if item['nullable'] else ' not null'}" for item in fields
    )
    return f"({words if len(words) <= 2000 else f'{words[:2000]} ...'})"


def _words(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    if kind["type"] == "struct":
        return f"struct{_columns(kind['fields'])}"
    if kind["type"] == "map":
        return f"map({_words(kind['keyType'])}, {_words(kind['valueType'])})"
    return f"array({_words(kind['elementType'])})"


def compact(value: Any) -> str:
    """Return JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
