"""The documentation names only files, modules, commands, options and headings that exist."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from xmode_transfer.cli import cli

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "xmode_transfer"
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("deploy/**/*.md")])

FOLDERS = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"config"}
FOLDERS |= {"tests", "docs", "deploy", "benchmarks", "requirements", "xmode_transfer"}
_PATH = re.compile(r"`([\w-]+/[\w./-]*)`")
_MODULE = re.compile(r"`xmode_transfer((?:\.\w+)+)`")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ANCHOR = re.compile(r'<a id="([^"]+)">')
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^ *(?:\$ )?(?:\S*/)?xmode-transfer ([^`|;&<>#\n]+)", re.MULTILINE)


def names(page: Path) -> Iterator[str]:
    """Paths and modules that a page names."""
    text = page.read_text(encoding="utf-8")
    for path in _PATH.findall(text):
        if path.split("/")[0] in FOLDERS and "..." not in path:
            yield path
    for module in _MODULE.findall(text):
        yield "xmode_transfer" + module.replace(".", "/")


def exists(name: str) -> bool:
    """A file, a folder or a module, below the checkout or the package."""
    return any(
        (root / f"{name.rstrip('/')}{suffix}").exists()
        for root in (CHECKOUT, PACKAGE)
        for suffix in ("", ".py")
    )


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives a page's headings, and those that it sets itself."""
    text = page.read_text(encoding="utf-8")
    headings = (
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text)
    )
    return frozenset([*headings, *_ANCHOR.findall(text)])


def broken_links(page: Path) -> Iterator[str]:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        other = (page.parent / target).resolve() if target else page
        if not other.exists() or (anchor and other.suffix == ".md" and anchor not in anchors(other)):
            yield f"{target}#{anchor}"


def calls(page: Path) -> Iterator[list[str]]:
    """The arguments of every call of the command that a page prints, in code blocks and in the text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks, rest = _FENCE.findall(text), _FENCE.sub("", text)
    for call in [*_CALL.findall("\n".join(blocks)), *re.findall(r"`xmode-transfer ([^`|;&<>#\n]+)`", rest)]:
        yield shlex.split(call.replace("[", " ").replace("]", " ").replace("'s", ""))


def unknown(arguments: list[str]) -> str | None:
    """The first word of a call that the command line does not know."""
    command: click.Command = cli
    flags = {"--help": True}
    words = iter(arguments)
    with click.Context(cli) as context:
        flags |= _options(command)
        for word in words:
            name, given, _ = word.partition("=")
            if word.startswith("--"):
                if name not in flags:
                    return word
                if not flags[name] and not given:
                    next(words, None)
            elif isinstance(command, click.Group) and not word.startswith("-"):
                if not re.fullmatch(r"[a-z][a-z-]+", word):
                    return None  # a placeholder, such as COMMAND or ...
                found = command.get_command(context, word)
                if found is None:
                    return None if command.invoke_without_command else word
                command = found
                flags |= _options(command)
    return None


def _options(command: click.Command) -> dict[str, bool]:
    """Each option of a command, and whether it is a flag."""
    return {
        name: parameter.is_flag
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts + parameter.secondary_opts
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_files_and_modules_that_exist(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert [name for name in names(page) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_only_to_pages_and_headings_that_exist(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_prints_only_commands_and_options_that_exist(page: Path) -> None:
    wrong = [(call, word) for call in calls(page) if (word := unknown(call))]
    assert wrong == []


def test_mistakes_are_found() -> None:
    assert unknown(["run", "--custmer", "acme"]) == "--custmer"
    assert unknown(["deliver"]) == "deliver"
    assert unknown(["--config", "etc", "ledger", "backup", "--json"]) is None
    assert not exists("delivery/nothing.py")
    assert sum(len(list(calls(page))) for page in PAGES) > 50
