"""Values as text of other languages: JSON, YAML and HCL. Nothing of a customer's steps out of its quotes."""

import json
import re
from collections.abc import Mapping
from typing import Any

from xmode_transfer.domain.config.customer import Customer

_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})  # IAM has a key Null


def quoted(text: str) -> str:
    """As JSON and YAML write it between double quotes; every printable character stays itself."""
    return json.dumps(text, ensure_ascii=False)


def json_text(document: object) -> str:
    """A document as people read it, with a line break at its end. Characters beyond ASCII are escaped: IAM
    takes none beyond Latin-1 in a policy's text (IAM API reference, PutRolePolicy)."""
    return json.dumps(document, indent=2) + "\n"


def yaml_lines(value: Any, indent: str = "") -> list[str]:
    """Mappings and lists in block style, every text in double quotes, so that none turns into a number."""
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            bare = _BARE_KEY.fullmatch(key) and key.lower() not in _YAML_WORDS
            written = key if bare else quoted(key)
            if isinstance(item, Mapping | list) and item:
                lines += [f"{indent}{written}:", *yaml_lines(item, f"{indent}  ")]
            else:
                lines.append(f"{indent}{written}: {_scalar(item)}")
    else:
        for item in value:
            if isinstance(item, Mapping | list) and item:
                first, *rest = yaml_lines(item, f"{indent}  ")
                lines += [f"{indent}- {first.strip()}", *rest]
            else:
                lines.append(f"{indent}- {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def hcl(value: Any, indent: str = "") -> str:
    """An expression of Terraform's language. ``${`` and ``%{`` would be filled in by it: they are doubled."""
    inner = indent + "  "
    if isinstance(value, Mapping):
        # `terraform fmt` sets the equals signs of neighbouring one-line attributes in one column.
        written = {key: (hcl_key(key), hcl(item, inner)) for key, item in value.items()}
        lines = []
        group: list[tuple[str, str]] = []
        for key, text in [*written.values(), ("", "\n")]:
            if "\n" not in text:
                group.append((key, text))
                continue
            width = max((len(name) for name, _ in group), default=0)
            lines += [f"{inner}{name:<{width}} = {one}" for name, one in group]
            group = []
            if key:
                lines.append(f"{inner}{key} = {text}")
        return "\n".join(["{", *lines, f"{indent}}}"])
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value) and len(value) < 2:
            return f"[{', '.join(hcl(item) for item in value)}]"
        return "\n".join(["[", *(f"{inner}{hcl(item, inner)}," for item in value), f"{indent}]"])
    if isinstance(value, str):
        return quoted(value).replace("${", "$${").replace("%{", "%%{")
    return json.dumps(value)


def hcl_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else hcl(key)


def customer_file(customer: Customer) -> str:
    """The text of customers/<customer>.yaml."""
    place = customer.destination
    destination = {
        "bucket": place.bucket,
        "prefix": place.prefix,
        **({"region": place.region} if place.region is not None else {}),
        **({"kms_key_arn": place.kms_key_arn} if place.kms_key_arn is not None else {}),
    }
    return "\n".join(
        [
            "# yaml-language-server: $schema=../schema/customer.json",
            "#",
            "# Made by `xmode-transfer onboard`, with a kit for the customer to set its side up with. The",
            "# role then demands this external ID, so that it is not changed here alone.",
            "",
            f"company: {quoted(customer.company)}",
            f"external_id: {quoted(customer.external_id)}",
            f"role_arn: {quoted(customer.role_arn)}",
            "",
            "destination:",
            *yaml_lines(destination, "  "),
            "",
            "feeds:",
            *(f"  - {quoted(feed)}" for feed in customer.feeds),
            "",
            "# pending: access is checked, nothing is delivered. It is turned on by:",
            f"#   xmode-transfer onboard --confirm {customer.name}",
            f"state: {customer.state}",
            "",
        ]
    )
