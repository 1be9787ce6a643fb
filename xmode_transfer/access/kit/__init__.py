"""The setup kit for a customer: templates filled in with its values.

All ways create the same role: the trust policy and the inline permission policy of ``aws/policy``. The kit
is a directory, there whole or not at all; it has the external ID in it, so only its owner may read it.
"""

import json
import re
import shlex
import shutil
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from xmode_transfer.access.fixes import POLICY_NAME
from xmode_transfer.aws.policy.documents import (
    corrected_permission_policy,
    corrected_trust_policy,
    s3_service,
)
from xmode_transfer.config.customer import Customer
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.errors import ConfigError

PROGRAMS = frozenset({"setup.sh"})
"""The files that are run."""

_CONSOLES = {
    "aws-cn": "https://console.amazonaws.cn/iam/",
    "aws-us-gov": "https://console.amazonaws-us-gov.com/iam/",
    "aws-eusc": "https://console.amazonaws-eusc.eu/iam/",
}
_CONSOLE = "https://console.aws.amazon.com/iam/"


def kit(customer: Customer, principal: str) -> dict[str, str]:
    """The files of the kit by name. ``principal`` is the ARN of our own user."""
    place = customer.destination
    # The bucket's, where it is known. S3 takes only keys of the bucket's own region.
    region = place.region or (place.kms_key_arn.split(":")[3] if place.kms_key_arn else None)
    values: dict[str, Any] = {
        "customer": customer,
        "principal": principal,
        "bucket": place.bucket,
        "prefix": place.prefix,
        "place": f"s3://{place.bucket}/{place.prefix}",
        "region": region,
        "kms_key_arn": place.kms_key_arn,
        "role": parse_iam(customer.role_arn, "role"),
        "policy_name": POLICY_NAME,
        "description": "Lets XMode deliver data files (made with its setup kit)",
        "lifecycle_rule": "abort-incomplete-xmode-uploads",
        "lifecycle_days": 7,
        "console": _CONSOLES.get(customer.partition, _CONSOLE),
        "key_policy_statement": None,
    }
    permission = corrected_permission_policy(
        place.bucket, place.prefix, place.kms_key_arn, region, partition=customer.partition
    )
    files = {
        "trust-policy.json": _json(corrected_trust_policy(customer.external_id, principal)),
        "permission-policy.json": _json(permission),
        "lifecycle.json": _filled("lifecycle.json", **values),
    }
    values |= {name.removesuffix(".json").replace("-", "_"): text for name, text in files.items()}
    if place.kms_key_arn is not None and region is not None:
        values["s3_service"] = s3_service(region, customer.partition)
        statement = _filled("key-policy-statement.json", **values)
        values["key_policy_statement"] = files["key-policy-statement.json"] = statement
    files |= {name: _filled(name, **values) for name in ("README.md", "setup.sh", "template.yaml", "main.tf")}
    return {**files, "index.html": _page(values["place"], files["README.md"])}


def customer_file(customer: Customer) -> str:
    """The text of customers/<customer>.yaml."""
    return _filled("customer.yaml", customer=customer, destination=customer.destination)


class KitDirectory:
    """Where a kit goes."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def write(self, customer: Customer, principal: str) -> tuple[str, ...]:
        """Returns the names of the files. Raises ConfigError when something is there already, and when the
        kit cannot be written; then nothing is left."""
        files = kit(customer, principal)
        partial: Path | None = None
        try:
            if self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
                raise ConfigError(
                    f"{self._path} already exists and is not empty; nothing in it is overwritten",
                    hint="give a new directory with --out",
                )
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self._path.stat().st_mode & 0o7777 if self._path.exists() else 0o700
            partial = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
            for name, text in files.items():
                file = partial / name
                file.write_text(text, encoding="utf-8", newline="\n")
                file.chmod(0o700 if name in PROGRAMS else 0o600)
            partial.chmod(mode)
            partial.rename(self._path)
        except OSError as error:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            raise ConfigError(
                f"the kit cannot be written to {self._path}: {error.strerror or error}",
                hint="give another directory with --out",
            ) from error
        return tuple(files)

    def remove(self) -> None:
        """Removes what ``write`` created, if the customer was not created."""
        shutil.rmtree(self._path)


# --- Templates -----------------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__name__),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": lambda text: re.sub(r"([\\`*_\[\]<>|&~])", r"\\\1", text),
        "code": _code,
        "cell": lambda text: text.replace("|", "\\|"),
        "shell": lambda value: shlex.quote(str(value)),
        "json": json.dumps,
        # As YAML and Terraform write it between double quotes; every printable character stays itself.
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
        # Terraform would fill ``${`` and ``%{`` in, between quotes and in a here-document.
        "hcl": lambda text: text.replace("${", "$${").replace("%{", "%%{"),
        "yaml": lambda text: yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True).rstrip(),
    }
    return environment


def _filled(name: str, **values: Any) -> str:
    return _environment().get_template(f"{name}.j2").render(values)


def _json(document: object) -> str:
    """A document as people read it, with a line break at its end. Characters beyond ASCII are escaped: IAM
    takes none beyond Latin-1 in a policy's text (IAM API reference, PutRolePolicy)."""
    return json.dumps(document, indent=2) + "\n"


def _code(text: str) -> str:
    """Words to type or to look for, exactly, in Markdown."""
    if "`" not in text:
        return f"`{text}`"
    ticks = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{ticks} {text} {ticks}"


def _page(place: str, readme: str) -> str:
    """The README as a page of its own: no script, nothing loaded, fit for a screen reader and for paper."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("fence", _figure)
    tokens = markdown.parse(readme)
    headings = []
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            anchor = re.sub(r"[^a-z0-9]+", "-", inline.content.lower()).strip("-")
            token.attrSet("id", anchor)
            headings.append((anchor, inline.content))
    title, content = (
        Markup(markdown.renderer.render(part, markdown.options, {})) for part in (tokens[:3], tokens[3:])
    )
    return _filled("index.html", place=place, title=title, headings=headings, content=content)


def _figure(_: Any, tokens: Any, index: int, *__: Any) -> str:
    """Something to copy. A box that scrolls is reached by the keyboard only when it takes the focus."""
    title = escape(tokens[index].info.partition(" ")[2])
    return (
        f'<figure><figcaption>{title}</figcaption><pre tabindex="0" role="region" aria-label="{title}">'
        f"<code>{escape(tokens[index].content)}</code></pre></figure>\n"
    )
