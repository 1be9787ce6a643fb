"""JSON Schemas of the three kinds of file, for editors: completion and red lines while one types.

They say less than the loader knows, and ``config check`` has the last word. In one thing they are stricter:
an editor takes ``company: 123`` for a number and asks for quotes, where the loader reads text anyway.
"""

from typing import Any

from xmode_transfer.config.base import Model
from xmode_transfer.config.customer import Customer
from xmode_transfer.config.feed import Feed
from xmode_transfer.config.service import Service

_FILES: dict[str, tuple[type[Model], str]] = {
    "service": (Service, "service.yaml"),
    "feed": (Feed, "feeds/<feed>.yaml"),
    "customer": (Customer, "customers/<customer>.yaml"),
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """By kind (service, feed, customer), the schema of such a file (JSON Schema 2020-12)."""
    return {kind: _schema(model, file) for kind, (model, file) in _FILES.items()}


def _schema(model: type[Model], file: str) -> dict[str, Any]:
    schema = model.model_json_schema()
    # A name is the file's own and does not stand in it.
    schema["properties"].pop("name", None)
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name != "name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": file,
        **{key: value for key, value in _tidy(schema).items() if key != "title"},
    }


def _tidy(node: Any) -> Any:
    """Without pydantic's made-up titles and its own words, with descriptions on one line."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {
        key: value if key in ("default", "examples") else _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and key != "ge"
    }
    if isinstance(tidied.get("description"), str):
        tidied["description"] = " ".join(tidied["description"].split())
    return tidied
