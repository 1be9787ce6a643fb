"""The files that onboarding writes: a customer's setup kit, and its file in the configuration. All ways of
the kit create the same role. The kit contains the external ID, so only its owner may read it."""

import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from xmode_transfer.access.fixes import POLICY_NAME
from xmode_transfer.access.kit.reading import reader_role, readings
from xmode_transfer.aws.policy import documents
from xmode_transfer.config import Customer, CustomerState, Feed
from xmode_transfer.config.configuration import Claim
from xmode_transfer.config.files import CUSTOMERS, ConfigFile, claim_of, customer_names, read_directory
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.keys import MANIFESTS

PROGRAMS = frozenset({"setup.sh"})
_TEMPLATES = ("README.md", "READING.md", "setup.sh", "template.yaml", "main.tf")

_CONSOLES = {
    "aws-cn": "https://console.amazonaws.cn/iam/",
    "aws-us-gov": "https://console.amazonaws-us-gov.com/iam/",
    "aws-eusc": "https://console.amazonaws-eusc.eu/iam/",
}


def kit(customer: Customer, principal: str, feeds: Mapping[str, Feed] | None = None) -> dict[str, str]:
    """Return the files of the kit by name. ``principal`` is the ARN of our own user, ``feeds`` are those
    that are configured."""
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
        "console": _CONSOLES.get(customer.partition, "https://console.aws.amazon.com/iam/"),
        "key_policy_statement": None,
        "feeds": readings(customer, feeds or {}),
        "reader_role": reader_role(customer),
        "delivered_event": _json(delivered_event(place.bucket, place.prefix)),
    }
    permission = documents.corrected_permission_policy(
        place.bucket, place.prefix, place.kms_key_arn, region, partition=customer.partition
    )
    files = {
        "trust-policy.json": _json(documents.corrected_trust_policy(customer.external_id, principal)),
        "permission-policy.json": _json(permission),
        "lifecycle.json": _filled("lifecycle.json", **values),
    }
    values |= {name.removesuffix(".json").replace("-", "_"): text for name, text in files.items()}
    if place.kms_key_arn is not None and region is not None:
        values["s3_service"] = documents.s3_service(region, customer.partition)
        statement = _filled("key-policy-statement.json", **values)
        values["key_policy_statement"] = files["key-policy-statement.json"] = statement
    files |= {name: _filled(name, **values) for name in _TEMPLATES}
    return {**files, "index.html": _page(values["place"], files["README.md"])}


def delivered_event(bucket: str, prefix: str) -> dict[str, Any]:
    """Return EventBridge's pattern of a new manifest. A prefix has none of a wildcard's own characters."""
    return {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": [bucket]},
            "object": {"key": [{"wildcard": f"{prefix}*/{MANIFESTS}/*"}]},
        },
    }


def customer_file(customer: Customer) -> str:
    """Return the text of customers/<customer>.yaml."""
    return _filled("customer.yaml", customer=customer, destination=customer.destination)


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
        "sql": lambda text: "'" + text.replace("'", "''") + "'",
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
    """In ASCII: IAM takes no characters beyond Latin-1 in a policy (IAM API reference, PutRolePolicy)."""
    return json.dumps(document, indent=2) + "\n"


def _code(text: str) -> str:
    if "`" not in text:
        return f"`{text}`"
    ticks = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{ticks} {text} {ticks}"


def _page(place: str, readme: str) -> str:
    """No script, nothing loaded, fit for a screen reader and for paper."""
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
    """The keyboard reaches a box that scrolls only when it takes the focus."""
    title = escape(tokens[index].info.partition(" ")[2])
    return (
        f'<figure><figcaption>{title}</figcaption><pre tabindex="0" role="region" aria-label="{title}">'
        f"<code>{escape(tokens[index].content)}</code></pre></figure>\n"
    )


class KitDirectory:
    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def write(self, customer: Customer, principal: str, feeds: Mapping[str, Feed]) -> tuple[str, ...]:
        """Write the kit, whole or not at all; return the names of its files. Raises ConfigError."""
        files = kit(customer, principal, feeds)
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
        """Remove what ``write`` created."""
        shutil.rmtree(self._path)


class CustomerFiles:
    """The customers/ directory of a configuration."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def claims(self) -> Sequence[Claim]:
        """Return what every customer claims, retired ones and those with mistakes included."""
        files = ((name, self._file(name)) for name in customer_names(self._directory))
        return [claim_of(name, file.data) for name, file in files if file.data is not None]

    def illegible(self, text: str) -> str | None:
        """Return a customer that may claim this text: its file is no YAML and contains it, ignoring case."""
        for name in customer_names(self._directory):
            file = self._file(name)
            if file.data is None and text.casefold() in file.text.casefold():
                return name
        return None

    def add(self, customer: Customer) -> str:
        """Return the name of the new file. Raises ConfigError, also when the configuration with the file is
        invalid; then the file is removed."""
        name = f"{CUSTOMERS}/{customer.name}.yaml"
        path = self._directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _partial(path, customer_file(customer)) as partial:
                os.link(partial, path)  # fails when the name is taken, unlike a rename
        except FileExistsError:
            raise ConfigError(
                f"there is a file {name} already; it is left as it is",
                hint="give the customer another name with --name",
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        configuration, _ = read_directory(self._directory)
        if configuration.customers.get(customer.name) != customer:
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{customer.name} does not fit into the configuration; its file was not kept",
                hint="another person may have changed the configuration meanwhile: try again",
                problems=tuple(map(str, configuration.broken.get(customer.name, ()))),
            )
        return name

    def set_state(self, customer: Customer, state: CustomerState) -> None:
        """Change the value of ``state:`` in the customer's file and nothing else. Raises ConfigError."""
        name, file = f"{CUSTOMERS}/{customer.name}.yaml", self._file(customer.name)
        path = self._directory / name
        if file.data is None or file.data.get("state") != str(customer.state):
            raise ConfigError(
                f"{name} does not say `state: {customer.state}` (any more)",
                hint="another person may have changed it meanwhile: look at it, and try again",
            )
        line, column = file.position(("state",))
        before = path.read_bytes()
        lines = before.decode("utf-8-sig").splitlines(keepends=True)
        head, rest = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
        quote = rest[0] if rest[0] in "\"'" else ""
        written = f"{quote}{customer.state}{quote}"
        if not rest.startswith(written):
            raise ConfigError(
                f"the state of {customer.name} is written in a way that is not changed by itself",
                hint=f"write `state: {state}` into {name} by hand",
            )
        lines[line - 1] = f"{head}{quote}{state}{quote}{rest[len(written) :]}"
        mark = "\ufeff" if before.startswith(b"\xef\xbb\xbf") else ""
        try:
            with _partial(path, mark + "".join(lines)) as partial:
                partial.chmod(path.stat().st_mode & 0o7777)
                partial.replace(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        configuration, _ = read_directory(self._directory)
        if configuration.customers.get(customer.name) != customer.model_copy(update={"state": state}):
            path.write_bytes(before)
            raise ConfigError(
                f"{name} was not as expected after the change; it was put back",
                hint=f"write `state: {state}` into it by hand",
                problems=tuple(map(str, configuration.broken.get(customer.name, ()))),
            )

    def _file(self, name: str) -> ConfigFile:
        return ConfigFile(self._directory, f"{CUSTOMERS}/{name}.yaml")


@contextlib.contextmanager
def _partial(path: Path, text: str) -> Iterator[Path]:
    """Write a file beside ``path``, hidden from readers of the configuration; remove it afterwards."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)
