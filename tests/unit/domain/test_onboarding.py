"""A sign-up, the file that is made of it, and the kit: whatever a company is called, nothing of it steps out
of its quotes."""

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

from xmode_transfer.domain.config import Customer, CustomerState
from xmode_transfer.domain.onboarding import (
    FROM_COMPANY,
    PROGRAMS,
    SignUp,
    customer_file,
    drafted,
    guide_external_id,
    kit,
    slug_of,
)
from xmode_transfer.domain.policy import VENDOR_PRINCIPAL, corrected_permission_policy, corrected_trust_policy
from xmode_transfer.domain.policy_lint import Source, Told, lint

SIGN_UP = SignUp("Acme Corp", "111122223333", "acme-data", ("us-daily",))
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TOKEN = "0123456789abcdef0123456789abcdef"


def made(**changes: Any) -> Customer:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition="aws", token=lambda: TOKEN)
    assert mistakes == ()
    assert customer is not None
    return customer


def mistakes_of(partition: str = "aws", **changes: Any) -> list[str]:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition=partition, token=lambda: TOKEN)
    assert customer is None
    return list(map(str, mistakes))


# --- The sign-up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("company", "slug"),
    [
        ("Acme Corp", "acme"),
        ("Acme, Inc.", "acme"),
        ("Globex GmbH & Co. KG", "globex"),
        ("Société Générale S.A.", "societe-generale"),
        ("Müßig & Söhne AG", "mussig-sohne"),
        ("L'Oréal", "loreal"),
        ("3M", "3m"),
        ("AG", "ag"),
        ("Corp Inc", "corp"),
        ("  spaced   out  ", "spaced-out"),
        ("x" * 80, "x" * 40),
        ("日本株式会社", ""),
        ("---", ""),
        ("", ""),
    ],
)
def test_a_short_name_is_made_of_the_companys(company: str, slug: str) -> None:
    assert slug_of(company) == slug


def test_the_guides_external_id_keeps_what_the_guide_keeps() -> None:
    assert guide_external_id("Acme Corp") == "AcmeCorp"
    assert guide_external_id("A+B {x} =,.@:/-_ é!") == "ABx=,.@:/-_"


def test_a_sign_up_becomes_a_pending_customer() -> None:
    customer = made()
    assert customer.name == "acme"
    assert customer.state is CustomerState.PENDING
    assert customer.external_id == f"acme-{TOKEN}"
    assert customer.role_arn == "arn:aws:iam::111122223333:role/XMode"
    assert (customer.destination.bucket, customer.destination.prefix) == ("acme-data", "xmode/")
    assert made(external_id=FROM_COMPANY).external_id == "AcmeCorp"
    assert made(external_id="Their-Own:1").external_id == "Their-Own:1"
    assert made(name="acme-eu").name == "acme-eu"


def test_the_region_follows_from_the_key() -> None:
    assert made(kms_key_arn=KEY).destination.region == "eu-central-1"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"company": "  "}, "--company: write the company's name"),
        ({"company": "a\nb"}, "--company: write the company's name on one line"),
        ({"company": "x" * 300}, "--company: write the company's name on one line"),
        ({"company": "日本"}, "--name: no short name can be made of this company's"),
        ({"name": "Acme"}, "--name: 'Acme' cannot be a name"),
        ({"account": "11112222333"}, "did you mean 011112222333?"),
        ({"account": "1111-2222-3333"}, "did you mean 111122223333?"),
        ({"account": ""}, "--account: '' is no AWS account ID"),
        ({"bucket": "Acme-Data"}, "did you mean acme-data?"),
        ({"bucket": "s3://acme-data/in"}, "did you mean bucket: acme-data"),
        ({"bucket": ""}, "--bucket: a bucket's name has 3 to 63 characters"),
        ({"prefix": "xmode"}, "did you mean xmode/?"),
        ({"prefix": "../x/"}, "--prefix: empty, '.' and '..' folders"),
        ({"region": "us-east-1a"}, "did you mean the region us-east-1?"),
        ({"region": "cn-north-1"}, "--region: cn-north-1 does not lie in aws"),
        ({"role_name": "path/XMode"}, "--role-name: 'path/XMode' is no name of a role"),
        ({"kms_key_arn": "1234abcd"}, "--kms-key: '1234abcd' is no ARN of a KMS key"),
        ({"kms_key_arn": KEY, "region": "us-east-1"}, "only keys of the bucket's own region"),
        ({"feeds": ()}, "--feed: select at least one feed"),
        ({"feeds": ("us-daily", "us-daily")}, "--feed: us-daily stands twice"),
        ({"external_id": "Acme Corp"}, "did you mean AcmeCorp?"),
        ({"external_id": "x"}, "--external-id: AWS takes external IDs of 2 to 1,224 characters"),
        ({"external_id": "a+b"}, "--external-id: '+' is not allowed"),
        (
            {"company": "é é", "name": "e", "external_id": FROM_COMPANY},
            "--external-id: the company's name has fewer",
        ),
    ],
)
def test_a_mistake_is_told_at_its_option(changes: dict[str, Any], told: str) -> None:
    (mistake,) = mistakes_of(**changes)
    assert told in mistake


def test_all_mistakes_are_told_at_once() -> None:
    told = mistakes_of(company="", account="1", bucket="A", feeds=())
    assert [line.partition(":")[0] for line in told] == ["--company", "--account", "--bucket", "--feed"]


# --- The kit -------------------------------------------------------------------------------------------


def files(**changes: Any) -> dict[str, str]:
    return kit(made(**changes), VENDOR_PRINCIPAL)


def test_the_kit_is_whole() -> None:
    assert set(files()) == {
        "README.md",
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


@pytest.mark.parametrize("changes", [{}, {"prefix": ""}, {"kms_key_arn": KEY}, AWKWARD])
def test_every_way_makes_the_same_documents(changes: dict[str, Any]) -> None:
    customer, made_files = made(**changes), files(**changes)
    place = customer.destination
    trust = corrected_trust_policy(customer.external_id)
    permission = corrected_permission_policy("acme-data", place.prefix, place.kms_key_arn, place.region)
    assert json.loads(made_files["trust-policy.json"]) == trust
    assert json.loads(made_files["permission-policy.json"]) == permission
    role = yaml.safe_load(made_files["template.yaml"])["Resources"]["XModeRole"]["Properties"]
    assert role["AssumeRolePolicyDocument"] == trust
    assert [one["PolicyDocument"] for one in role["Policies"]] == [permission]
    assert terraform_documents(made_files["main.tf"]) == [trust, permission]
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
def test_the_lint_finds_nothing_to_mend_in_it(changes: dict[str, Any]) -> None:
    customer, made_files = made(**changes), files(**changes)
    place = customer.destination
    told = Told(
        external_id=customer.external_id,
        bucket=place.bucket,
        prefix=place.prefix,
        role_arn=customer.role_arn,
        region=place.region,
        kms_key_arn=place.kms_key_arn,
    )
    sources = [Source(name, made_files[name]) for name in ("trust-policy.json", "permission-policy.json")]
    report = lint(sources, told)
    assert report.outcome == "ok"
    assert not report.remarks


def test_nothing_is_left_to_replace() -> None:
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


def test_the_page_stands_alone_and_can_be_read_by_all() -> None:
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
    assert all(attributes.get("scope") == "row" for tag, attributes in page.tags if tag == "th")
    assert all(
        {"tabindex", "aria-label"} <= attributes.keys() for tag, attributes in page.tags if tag == "pre"
    )
    assert "@media print" in files()["index.html"]


def test_what_a_company_is_called_stays_text() -> None:
    made_files = files(**AWKWARD)
    page = Page(made_files["index.html"])
    assert page.open == []
    assert AWKWARD["company"] in "".join(page.text)
    assert "b" not in {tag for tag, _ in page.tags}
    assert "\\<b\\>" in made_files["README.md"]


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_company_comes_back_from_its_file(company: str) -> None:
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


# --- Terraform's language, as far as the kit uses it -----------------------------------------------------

_TOKEN = re.compile(
    r'\s*(?:#[^\n]*\n\s*)*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<name>[A-Za-z_][\w-]*)|(?P<sign>[{}\[\](),=]))'
)


def terraform_documents(text: str) -> list[Any]:
    """The argument of every ``jsonencode(...)``, in order."""
    return [_expression(_tokens(text, match.end()))[0] for match in re.finditer(r"jsonencode\(", text)]


def _tokens(text: str, position: int) -> list[tuple[str, str]]:
    found = []
    depth = 1
    while depth:
        match = _TOKEN.match(text, position)
        assert match is not None, text[position : position + 40]
        kind, value = next((kind, value) for kind, value in match.groupdict().items() if value is not None)
        depth += {"(": 1, ")": -1}.get(value, 0) if kind == "sign" else 0
        found.append((kind, value))
        position = match.end()
    return found


def _expression(tokens: list[tuple[str, str]]) -> tuple[Any, list[tuple[str, str]]]:
    (kind, value), *rest = tokens
    if kind == "text":
        text = json.loads(value)
        assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", text)
        return text.replace("$${", "${").replace("%%{", "%{"), rest
    if value == "{":
        mapping = {}
        while rest[0][1] != "}":
            (key_kind, key), (_, equals), *rest = rest
            assert equals == "="
            mapping[json.loads(key) if key_kind == "text" else key], rest = _expression(rest)
        return mapping, rest[1:]
    assert value == "["
    listed = []
    while rest[0][1] != "]":
        item, rest = _expression(rest)
        listed.append(item)
        rest = rest[1:] if rest[0][1] == "," else rest
    return listed, rest[1:]
