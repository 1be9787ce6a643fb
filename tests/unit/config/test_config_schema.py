"""The JSON Schemas say what the models say, and editors can use them."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from xmode_transfer.config.configuration import json_schemas


@pytest.mark.parametrize("kind", ["service", "feed", "customer"])
def test_a_schema_is_one(kind: str) -> None:
    schema = json_schemas()[kind]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert "name" not in schema["properties"]
    assert "name" not in schema.get("required", [])


def keys(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        for name, schema in node.get("properties", {}).items():
            found += [(f"{path}.{name}", schema), *keys(schema, f"{path}.{name}")]
        for name, schema in node.get("$defs", {}).items():
            found += keys(schema, name)
    return found


@pytest.mark.parametrize("kind", ["service", "feed", "customer"])
def test_every_key_is_described(kind: str) -> None:
    for path, schema in keys(json_schemas()[kind]):
        assert schema.get("description"), path
        assert "\n" not in schema["description"], path


@pytest.mark.parametrize(
    ("kind", "document", "wrong"),
    [
        ("service", {}, None),
        ("service", {"limits": {"memory_bytes": "16MiB", "bandwidth_bytes_per_second": 5}}, None),
        ("service", {"limits": {"memory_bytes": "16 parsecs"}}, "16 parsecs"),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"from": "8:00", "limit": "1MB"}]}}, None),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"from": "08:00", "limit": None}]}}, None),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"from": "25:00", "limit": 1}]}}, "25:00"),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"form": "08:00"}]}}, "form"),
        ("service", {"alerts": ["x"]}, "x"),
        ("service", {"alerts": [{"name": "ops", "webhook": "env:OPS"}]}, None),
        ("service", {"alerts": [{"name": "ops", "webhook": "https://x"}]}, "https://x"),
        (
            "feed",
            {"source": "x", "period": "day", "partition": "%Y/%m/%d", "complete": {"marker": "m"}},
            None,
        ),
        ("feed", {"source": "x", "period": "daily"}, "daily"),
        ("feed", {"source": "x", "period": "none", "complete": {"markr": "m"}}, "markr"),
        ("customer", {"company": "x"}, "required"),
    ],
)
def test_an_editor_marks_what_is_wrong(kind: str, document: dict[str, Any], wrong: str | None) -> None:
    errors = [
        error.message for error in jsonschema.Draft202012Validator(json_schemas()[kind]).iter_errors(document)
    ]
    if wrong is None:
        assert errors == []
    else:
        assert any(wrong in message for message in errors), errors


def test_the_manual_has_every_key_and_no_other() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", manual, re.MULTILINE))
    assert documented == {name for schema in json_schemas().values() for name in leaves(schema)}


def leaves(schema: dict[str, Any], path: str = "") -> set[str]:
    """Every key that takes a value, dotted: ``destination.bucket``. Some take keys below them instead."""
    found = set()
    for name, node in schema["properties"].items():
        inner = [
            definition
            for target in re.findall(r"#/\$defs/(\w+)", json.dumps(node))
            if "properties" in (definition := schema["$defs"][target])
        ]
        for definition in inner:
            found |= leaves({**definition, "$defs": schema["$defs"]}, f"{path}{name}.")
        forms = node.get("anyOf", ())
        if not inner or any(
            "$ref" not in form and form.get("type") not in ("null", "array") for form in forms
        ):
            found.add(f"{path}{name}")
    return found
