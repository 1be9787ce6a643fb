"""The kit and the customer's file: whatever a company is called, nothing of it steps out of its quotes."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.access.kit import PROGRAMS, customer_file, kit
from xmode_transfer.access.lint import Source, lint
from xmode_transfer.access.onboard import SignUp, drafted
from xmode_transfer.aws.policy.documents import (
    VENDOR_PRINCIPAL,
    corrected_permission_policy,
    corrected_trust_policy,
    setup_values,
)
from xmode_transfer.config import Customer

SIGN_UP = SignUp("Acme Corp", "111122223333", "acme-data", ("us-daily",))
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TOKEN = "0123456789abcdef0123456789abcdef"


def made(**changes: Any) -> Customer:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition="aws", token=lambda: TOKEN)
    assert mistakes == []
    assert customer is not None
    return customer


def files(**changes: Any) -> dict[str, str]:
    return kit(made(**changes), VENDOR_PRINCIPAL)


def test_the_kit_is_whole() -> None:
    assert set(files()) == {
        "README.md",
        "READING.md",
        "index.html",
        "trust-policy.json",
        "permission-policy.json",
        "lifecycle.json",
        "setup.sh",
        "template.yaml",
        "main.tf",
    }
    assert set(files(kms_key_arn=KEY)) - set(files()) == {"key-policy-statement.json"}
    assert set(files()) > PROGRAMS


AWKWARD = {
    "company": 'O\'Brien "& Sons" <b>$(id)`id`${x}%{y} *_# | \\ 日本',
    "name": "obrien",
    "prefix": "it's a & b;(c)/日本/",
}


def unfilled(text: str) -> str:
    """What Terraform reads: it fills in what begins with ${ or %{, and undoes their doubling."""
    return text.replace("$${", "${").replace("%%{", "%{")


@pytest.mark.parametrize("changes", [{}, {"prefix": ""}, {"kms_key_arn": KEY}, AWKWARD])
def test_every_way_creates_the_same_policies(changes: dict[str, Any]) -> None:
    customer, made_files = made(**changes), files(**changes)
    place = customer.destination
    trust = corrected_trust_policy(customer.external_id)
    permission = corrected_permission_policy("acme-data", place.prefix, place.kms_key_arn, place.region)
    assert json.loads(made_files["trust-policy.json"]) == trust
    assert json.loads(made_files["permission-policy.json"]) == permission
    role = yaml.safe_load(made_files["template.yaml"])["Resources"]["XModeRole"]["Properties"]
    assert role["AssumeRolePolicyDocument"] == trust
    assert [one["PolicyDocument"] for one in role["Policies"]] == [permission]
    # Terraform fills in what begins with ${ or %{, and undoes their doubling.
    in_terraform = re.findall(r"policy = <<DOCUMENT\n(.*?)\nDOCUMENT$", made_files["main.tf"], re.S | re.M)
    assert not any(re.search(r"(?<!\$)\$\{|(?<!%)%\{", text) for text in in_terraform)
    undone = [json.loads(unfilled(text)) for text in in_terraform]
    assert undone == [trust, permission]
    in_script = dict(
        re.findall(
            r"-d '' (\w+) <<'DOCUMENT' \|\| true\n(.*?)\nDOCUMENT$", made_files["setup.sh"], re.S | re.M
        )
    )
    assert json.loads(in_script["trust_policy"]) == trust
    assert json.loads(in_script["permission_policy"]) == permission
    assert json.loads(in_script["lifecycle"]) == json.loads(made_files["lifecycle.json"])
    for page in ("README.md", "index.html"):
        assert customer.external_id in made_files[page]


@pytest.mark.parametrize("changes", [{}, {"kms_key_arn": KEY}, AWKWARD])
def test_the_lint_finds_no_issue_to_fix_in_the_kit(changes: dict[str, Any]) -> None:
    customer, made_files = made(**changes), files(**changes)
    sources = [Source(name, made_files[name]) for name in ("trust-policy.json", "permission-policy.json")]
    report = lint(sources, setup_values(customer, VENDOR_PRINCIPAL))
    assert report.outcome == "ok"
    assert not report.issues


def matches(pattern: Any, event: Any) -> bool:
    """EventBridge's rules, as far as the kit uses them: exact values and wildcards."""
    if isinstance(pattern, dict):
        return all(name in event and matches(wanted, event[name]) for name, wanted in pattern.items())
    for wanted in pattern:
        if isinstance(wanted, str) and wanted == event:
            return True
        if isinstance(wanted, dict):
            (text,) = [wanted["wildcard"]]
            assert "\\" not in text
            assert "**" not in text
            if re.fullmatch(".*".join(map(re.escape, text.split("*"))), event, re.DOTALL):
                return True
    return False


def created(bucket: str, key: str, **changes: str) -> dict[str, Any]:
    """A sample event (Amazon S3 User Guide, "EventBridge event message structure")."""
    detail = {
        "version": "0",
        "bucket": {"name": bucket},
        "object": {"key": key, "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184"},
        "reason": "PutObject",
    }
    common = {"version": "0", "source": "aws.s3", "detail-type": "Object Created", "region": "us-east-1"}
    return {**common, **changes, "detail": detail}


@pytest.mark.parametrize("prefix", ["xmode/", "", AWKWARD["prefix"]])
def test_the_rule_is_off_by_default_and_matches_new_manifests_alone(prefix: str) -> None:
    made_files = files(**{**AWKWARD, "prefix": prefix})
    template = yaml.safe_load(made_files["template.yaml"])
    rule = template["Resources"]["XModeDelivered"]
    assert rule["Condition"] == "HasDeliveredTarget"
    assert template["Parameters"]["DeliveredTargetArn"]["Default"] == ""
    assert template["Conditions"] == {
        "HasDeliveredTarget": {"Fn::Not": [{"Fn::Equals": [{"Ref": "DeliveredTargetArn"}, ""]}]}
    }
    pattern = rule["Properties"]["EventPattern"]
    (in_terraform,) = re.findall(
        r"event_pattern = <<DOCUMENT\n(.*?)\nDOCUMENT$", made_files["main.tf"], re.S | re.M
    )
    assert json.loads(unfilled(in_terraform)) == pattern
    assert made_files["main.tf"].count('count = var.delivered_target_arn == "" ? 0 : 1') == 1
    assert made_files["main.tf"].count('count       = var.delivered_target_arn == "" ? 0 : 1') == 1

    manifest = f"{prefix}us-daily/_manifests/2026-11-22/000001.json"
    assert matches(pattern, created("acme-data", manifest))
    assert not matches(pattern, created("acme-data", manifest, **{"detail-type": "Object Deleted"}))
    assert not matches(pattern, created("acme-data", manifest, source="aws.ec2"))
    assert not matches(pattern, created("other", manifest))
    assert not matches(pattern, created("acme-data", f"{prefix}us-daily/2026/11/22/a.csv"))
    assert not matches(pattern, created("acme-data", f"{prefix}us-daily/_delta_log/00000.json"))
    if prefix:
        assert not matches(pattern, created("acme-data", f"elsewhere/{manifest.removeprefix(prefix)}"))


def test_the_kit_has_no_placeholders() -> None:
    for name, text in files(**AWKWARD).items():
        assert not re.search(r"BUCKET|EXTERNAL-ID|bucket-name|replace with|<your|YOUR_", text), name


def test_the_templates_pass_cfn_lint(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("cfn-lint")
    if not program.exists():
        pytest.skip("cfn-lint, which comes with moto, is not installed")
    templates = []
    for number, changes in enumerate(({}, {**AWKWARD, "kms_key_arn": KEY})):
        templates.append(tmp_path / f"template-{number}.yaml")
        templates[-1].write_text(files(**changes)["template.yaml"], encoding="utf-8")
    done = subprocess.run([program, *templates], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("changes", [{}, AWKWARD])
def test_the_script_is_bash(changes: dict[str, Any]) -> None:
    text = files(**changes)["setup.sh"]
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Page(HTMLParser):
    """Notes what a page holds, and whether its elements are closed in order."""

    EMPTY = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def attributes(self, name: str) -> list[str | None]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def test_the_page_is_self_contained_and_accessible() -> None:
    page = Page(files()["index.html"])
    assert page.open == []
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "form"} & set(tags)
    assert page.attributes("src") == []
    assert all(str(link).startswith("#") for link in page.attributes("href"))
    anchors = page.attributes("id")
    assert {str(link)[1:] for link in page.attributes("href")} <= set(anchors)
    assert len(anchors) == len(set(anchors))
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
    assert "<th></th>" not in files()["index.html"]
    assert all(
        {"tabindex", "aria-label"} <= attributes.keys() for tag, attributes in page.tags if tag == "pre"
    )
    assert "@media print" in files()["index.html"]


def test_a_company_name_is_escaped() -> None:
    made_files = files(**AWKWARD)
    page = Page(made_files["index.html"])
    assert page.open == []
    assert AWKWARD["company"] in "".join(page.text)
    assert "b" not in {tag for tag, _ in page.tags}
    assert "\\<b\\>" in made_files["README.md"]


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_company_name_survives_the_customer_file(company: str) -> None:
    customer, mistakes = drafted(
        replace(SIGN_UP, company=company, name="acme"), partition="aws", token=lambda: TOKEN
    )
    if customer is None:
        assert mistakes
        return
    read = yaml.safe_load(customer_file(customer))
    assert Customer.model_validate({**read, "name": "acme"}) == customer
    page = Page(kit(customer, VENDOR_PRINCIPAL)["index.html"])
    assert page.open == []
    assert customer.company in "".join(page.text)
