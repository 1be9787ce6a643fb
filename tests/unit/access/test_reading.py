"""READING.md of the kit, and docs/reading.md, which is the same page for an example customer."""

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.access.kit import kit
from xmode_transfer.access.kit.reading import readings
from xmode_transfer.access.onboard import SignUp, drafted
from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL
from xmode_transfer.config import Customer, Feed

PAGE = Path(__file__).parents[3] / "docs" / "reading.md"
SIGN_UP = SignUp("Acme Corp", "111122223333", "acme-data", ("us-daily",), region="us-east-1")
DAILY = {"period": "day", "partition": "%Y/%m/%d"}
EXAMPLE = {
    "us-daily": {**DAILY, "include": ["*.csv.gz"], "manifests": ["redshift", "symlink"]},
    "places": {**DAILY, "layout": "{feed}/dt={period:%Y-%m-%d}/{path}", "table": "delta"},
    "drops": {"period": "none", "include": ["*.csv"]},
}


def feeds(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Feed]:
    return {
        name: Feed.model_validate({"name": name, "source": "/data", **it}) for name, it in described.items()
    }


def customer(names: tuple[str, ...], **changes: Any) -> Customer:
    made, mistakes = drafted(
        replace(SIGN_UP, feeds=names, **changes), partition="aws", token=lambda: "0" * 32
    )
    assert mistakes == []
    assert made is not None
    return made


def page(described: Mapping[str, Mapping[str, Any]] = EXAMPLE, **changes: Any) -> str:
    return kit(customer(tuple(described), **changes), VENDOR_PRINCIPAL, feeds(described))["READING.md"]


def test_the_documentation_has_the_page_of_an_example_customer() -> None:
    again = "PYTHONPATH=. python -m tests.unit.access.test_reading"
    assert PAGE.read_text(encoding="utf-8") == page(), f"write it again: {again}"


@pytest.mark.parametrize(
    ("described", "columns", "template"),
    [
        ({**DAILY}, {"period": "yyyy/MM/dd"}, "${period}/"),
        ({"period": "hour", "partition": "%Y-%m-%dT%H"}, {"period": "yyyy-MM-dd'T'HH"}, "${period}/"),
        ({"period": "month", "partition": "%Y%m"}, {"period": "yyyyMM"}, "${period}/"),
        ({"period": "week", "partition": "%G/W%V"}, None, None),
        ({**DAILY, "layout": "{feed}/dt={period:%Y-%m-%d}/{path}"}, {"dt": "yyyy-MM-dd"}, "dt=${dt}/"),
        (
            {**DAILY, "layout": "{feed}/v1/year={period:%Y}/month={period:%m}/day={period:%d}/{name}"},
            {"year": None, "month": None, "day": None},
            "v1/year=${year}/month=${month}/day=${day}/",
        ),
        (
            {**DAILY, "layout": "{feed}/kind=gold/dt={period:%Y-%m-%d}/{path}"},
            {"kind": None, "dt": "yyyy-MM-dd"},
            "kind=gold/dt=${dt}/".replace("gold", "${kind}"),
        ),
        ({**DAILY, "layout": "{feed}/{period:%Y}/dt={period:%m-%d}/{path}"}, None, None),
        (
            {**DAILY, "layout": "{feed}/{stem}-{period:%Y-%m-%d}{suffix}"},
            {"period": "yyyy-MM-dd"},
            "period=${period}/",
        ),
        ({"period": "none"}, None, None),
    ],
)
def test_a_projection_names_the_directories_of_the_symlink_files(
    described: dict[str, Any], columns: dict[str, str | None] | None, template: str | None
) -> None:
    (found,) = readings(customer(("us-daily",)), feeds({"us-daily": {**described, "manifests": ["symlink"]}}))
    if columns is None:
        assert found.symlinks is None
        return
    assert found.symlinks is not None
    assert {name: values.get("format") for name, values in found.symlinks.columns.items()} == columns
    assert found.symlinks.template == template


def test_the_data_is_projected_only_where_columns_name_its_directories() -> None:
    made = feeds({"us-daily": DAILY, "places": EXAMPLE["places"]})
    plain, places = readings(customer(("us-daily", "places")), made)
    assert plain.directories is None
    assert places.directories is not None
    assert tuple(places.directories.columns) == ("dt",)


def test_a_feed_that_is_not_configured_is_read_by_its_manifests() -> None:
    text = kit(customer(("unknown",)), VENDOR_PRINCIPAL)["READING.md"]
    assert "read_json('s3://acme-data/xmode/unknown/_manifests/*/*.json'" in text
    assert "delta_scan" not in text
    assert "`unknown` has nothing yet that Athena reads safely" in text


def test_each_way_is_shown_where_the_feed_has_it() -> None:
    text = page()
    assert "delta_scan('s3://acme-data/xmode/places/')" in text
    assert "delta.`s3://acme-data/xmode/places/`" in text
    assert "BASE_LOCATION = 'places/'" in text
    assert "'s3://acme-data/xmode/us-daily/_redshift/2026-11-22/000001.json'" in text
    assert '"s3://acme-data/xmode/us-daily/_symlink/${period}/"' in text
    assert "`drops` has no COPY manifests" in text


@pytest.mark.parametrize("prefix", ["", "it's a & b;(c)/日本/"])
def test_names_stay_within_their_quotes(prefix: str) -> None:
    text = page(prefix=prefix)
    fences = re.findall(r"^```(\w+) .*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert text.count("```") == 2 * len(fences)
    values = []
    for language, block in fences:
        if language == "python":
            values += [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
        else:
            # Whole strings, in either kind of quotes; nothing of the prefix is outside of them.
            bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`", "", block)
            assert "'" not in bare
            assert "日本" not in bare
    assert f"{prefix}us-daily/" in values
    assert prefix in values


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
