"""A sandbox as a value, and as the file by which another process finds it."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from xmode_transfer.sandbox.model import STATE_FILE, CustomerSetup, Keys, Sandbox, Variant

ACME = CustomerSetup(
    name="acme",
    company="Acme Corp",
    account="111122223333",
    external_id="AcmeCorp",
    role_arn="arn:aws:iam::111122223333:role/XMode",
    bucket="acme-data",
    prefix="xmode/",
    region="us-east-1",
    variant=Variant.ABORT_GRANTED,
    endpoint="http://127.0.0.1:1",
    root=Keys("111122223333", "s3cr3t-root"),
)


@pytest.fixture
def sandbox_value(tmp_path: Path) -> Sandbox:
    return Sandbox(
        id="sbx-0a1b2c",
        endpoint="http://127.0.0.1:1",
        pid=1,
        born="then",
        directory=tmp_path,
        root_secret="s3cr3t-root",
        vendor=Keys("AKIAVENDOR", "s3cr3t-vendor"),
        customers=[ACME, replace(ACME, name="globex", variant=Variant.NO_ROLE)],
    )


def test_what_is_saved_is_what_is_loaded(sandbox_value: Sandbox, tmp_path: Path) -> None:
    sandbox_value.save()
    assert Sandbox.load(tmp_path) == sandbox_value
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    assert stat.S_IMODE((tmp_path / STATE_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"vendor": {}, "customers": []}', '{"vendor": 1, "customers": [{}]}']
)
def test_a_file_of_something_else_is_no_sandbox(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"^(Expecting value|.* is not a sandbox)"):
        Sandbox.load(tmp_path)


def test_an_unknown_variant_is_no_sandbox(sandbox_value: Sandbox, tmp_path: Path) -> None:
    sandbox_value.save()
    document = json.loads((tmp_path / STATE_FILE).read_text())
    document["customers"][0]["variant"] = "of-a-later-version"
    (tmp_path / STATE_FILE).write_text(json.dumps(document))
    with pytest.raises(ValueError, match="of-a-later-version"):
        Sandbox.load(tmp_path)


def test_no_secret_is_in_its_representation(sandbox_value: Sandbox) -> None:
    assert "s3cr3t" not in repr(sandbox_value)
