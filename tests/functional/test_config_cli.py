"""``xmode-transfer config``, as an operator runs it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests import commands
from tests.commands import COMMAND

EXAMPLE = Path(__file__).parents[2] / "config"


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run(
        [COMMAND, "--config", str(directory), "config", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the example."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "config"))


@pytest.fixture
def broken(directory: Path) -> Path:
    """The example with one mistake at acme."""
    path = directory / "customers" / "acme.yaml"
    path.write_text(path.read_text().replace("  prefix:", "  prefx:"))
    return directory


def test_the_example_passes_with_a_line_a_customer(directory: Path) -> None:
    answer = run(directory, "check")
    assert answer.returncode == 0
    assert answer.stdout.splitlines() == [
        "active    acme    us-daily to s3://acme-data/xmode/",
        "                    us-daily: xmode/us-daily/2026/11/22/part-0.parquet",
        "active    globex  us-daily, drops to s3://globex-landing/incoming/xmode/",
        "                    us-daily: incoming/xmode/us-daily/2026/11/22/part-0.parquet",
        "                    drops: incoming/xmode/drops/part-0",
        "2 customers, 2 feeds: no problems",
    ]


def test_a_mistake_is_told_first_and_exits_with_2(broken: Path) -> None:
    answer = run(broken, "check")
    assert answer.returncode == 2
    first, *rest = answer.stdout.splitlines()
    line = (broken / "customers" / "acme.yaml").read_text().split("prefx")[0].count("\n") + 1
    assert first == f"customers/acme.yaml:{line}:3: destination.prefx: unknown key (did you mean prefix?)"
    assert "broken    acme    1 problem; nothing is delivered until it is fixed" in rest
    assert any(text.startswith("active    globex") for text in rest)


def test_json_is_one_document(broken: Path) -> None:
    answer = run(broken, "check", "--json")
    assert answer.returncode == 2
    document = json.loads(answer.stdout)
    assert document["outcome"] == "broken"
    acme, globex = document["customers"]
    assert (acme["customer"], acme["outcome"], acme["destination"]) == ("acme", "broken", None)
    assert (globex["outcome"], globex["feeds"]) == ("ok", ["us-daily", "drops"])
    (problem,) = document["problems"]
    assert (problem["file"], problem["column"], problem["path"]) == (
        "customers/acme.yaml",
        3,
        "destination.prefx",
    )


def test_a_service_with_mistakes_does_not_hide_the_others(broken: Path) -> None:
    (broken / "service.yaml").write_text("engine: fsat\n")
    answer = run(broken, "check", "--json")
    assert answer.returncode == 2
    document = json.loads(answer.stdout)
    assert [problem["path"] for problem in document["problems"]] == ["destination.prefx", "engine"]
    assert [customer["outcome"] for customer in document["customers"]] == ["broken", "stopped"]
    lines = run(broken, "check").stdout.splitlines()
    assert "stopped   globex  no problems of its own; nothing is delivered until service.yaml is fixed" in (
        lines
    )
    assert not any(line.startswith("active") for line in lines)


def test_a_region_of_another_store_is_a_hint(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    path = directory / "customers" / "acme.yaml"
    path.write_text(path.read_text().replace("region: us-east-1", "region: us-est-1"))
    answer = run(directory, "check")
    assert answer.returncode == 0
    assert answer.stdout.startswith("hint: customers/acme.yaml:")
    (hint,) = json.loads(run(directory, "check", "--json").stdout)["hints"]
    assert hint["path"] == "destination.region"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_missing_directory_says_what_to_do(tmp_path: Path, as_json: bool) -> None:
    answer = run(tmp_path / "nowhere", "check", *(["--json"] if as_json else []))
    assert answer.returncode == 2
    assert "--config" in (json.loads(answer.stdout)["error"]["hint"] if as_json else answer.stderr)


def test_the_directory_may_come_from_the_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMODE_CONFIG", str(directory))
    monkeypatch.chdir(directory.parent.parent)
    answer = commands.run([COMMAND, "config", "check"], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0


def test_schemas_are_written_and_then_current(directory: Path) -> None:
    shutil.rmtree(directory / "schema")
    assert run(directory, "schema", "--check").returncode == 2
    assert run(directory, "schema").returncode == 0
    assert sorted(path.name for path in (directory / "schema").iterdir()) == [
        "customer.json",
        "feed.json",
        "service.json",
    ]
    assert run(directory, "schema", "--check").returncode == 0
    (directory / "schema" / "feed.json").write_text("{}")
    answer = run(directory, "schema", "--check")
    assert answer.returncode == 2
    assert f"stale    {directory}/schema/feed.json" in answer.stdout
    assert (directory / "schema" / "feed.json").read_text() == "{}"
    (directory / "schema" / "customer.json").unlink()
    answer = run(directory, "schema", "--check", "--json")
    told = json.loads(answer.stdout)
    assert (answer.returncode, told["outcome"]) == (2, "stale")
    assert {Path(item["file"]).name: item["state"] for item in told["files"]} == {
        "service.json": "current",
        "feed.json": "stale",
        "customer.json": "missing",
    }
    told = json.loads(run(directory, "schema", "--json").stdout)
    assert (told["outcome"], [item["state"] for item in told["files"]].count("written")) == ("ok", 2)


def test_the_committed_schemas_fit_the_example() -> None:
    for pattern, kind in (
        ("service.yaml", "service"),
        ("feeds/*.yaml", "feed"),
        ("customers/*.yaml", "customer"),
    ):
        schema: dict[str, Any] = json.loads((EXAMPLE / "schema" / f"{kind}.json").read_text())
        files = list(EXAMPLE.glob(pattern))
        assert files
        for file in files:
            text = file.read_text()
            jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))
            assert text.startswith("# yaml-language-server: $schema=")
            named = text.splitlines()[0].partition("=")[2]
            assert (file.parent / named).resolve() == EXAMPLE / "schema" / f"{kind}.json"
