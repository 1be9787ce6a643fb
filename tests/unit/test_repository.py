"""What holds for the repository as a whole: nothing that does not belong, no two places that disagree."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = ("run", "build", "dev")
MOST_LINES = 400
LONG_MODULES: dict[str, str] = {}

# Spelt in pieces, so that this file passes its own test.
INDEX_HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "pypi" + ".python.org",
    "registry." + "npmjs.org",
    "registry." + "yarnpkg.com",
    "proxy." + "golang.org",
    "crates" + ".io",
    "anaconda" + ".org",
    "deb." + "debian.org",
    "archive." + "ubuntu.com",
    "docker" + ".io",
    "ghcr" + ".io",
    "quay" + ".io",
]
INDEX_OPTIONS = ["--index" + "-url", "--extra" + "-index", "--find" + "-links", "index" + "-url ="]
MACHINE_PATH = re.compile(r"(?<![\w.$}~*-])/(?:ro{2}t|wor{1}k|hom{1}e/\w+|User{1}s/\w+)(?:/|\b(?![\w-]))")
UNFINISHED = re.compile(r"\b(?:TOD{1}O|FIXM{1}E|X{3}|HAC{1}K|NotImplemented{1}Error)\b")


class Text(NamedTuple):
    """A committed file that is text."""

    name: str
    content: str


@cache
def committed() -> tuple[str, ...]:
    """What git has or would take: the files of this checkout that are not ignored."""
    listing = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    try:
        done = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this is not a git checkout, so nothing says what is committed: {error}")
    return tuple(name for name in done.stdout.split("\0") if name and (CHECKOUT / name).is_file())


@cache
def texts() -> tuple[Text, ...]:
    found = []
    for name in committed():
        try:
            found.append(Text(name, (CHECKOUT / name).read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return tuple(found)


def lines_with(pattern: "re.Pattern[str]") -> list[str]:
    return [
        f"{text.name}:{number}: {line.strip()[:120]}"
        for text in texts()
        for number, line in enumerate(text.content.splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_listing_is_of_this_repository() -> None:
    assert {"pyproject.toml", "Makefile", "tests/unit/test_repository.py"} <= set(committed())


def test_no_file_names_a_package_index() -> None:
    assert lines_with(re.compile("|".join(map(re.escape, INDEX_HOSTS + INDEX_OPTIONS)))) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_with(MACHINE_PATH) == []


@pytest.mark.parametrize("path", ["root/.cache", "work/shared", "home/ann/x", "Users/bo/", "root"])
def test_a_path_of_one_machine_is_recognised(path: str) -> None:
    assert MACHINE_PATH.search(f"see '/{path}'")


@pytest.mark.parametrize(
    "path", ["/data/exports", "units/work/x", "~/work/x", "/var/lib", "$DIR/work/", "/homes", "/workers"]
)
def test_a_path_of_any_machine_is_allowed(path: str) -> None:
    assert not MACHINE_PATH.search(path)


def test_nothing_is_left_unfinished() -> None:
    assert lines_with(UNFINISHED) == []


def test_no_lock_file_with_hosts_is_committed() -> None:
    named = [
        name
        for name in committed()
        if re.search(r"(^|/)(uv\.lock|pylock.*\.toml|poetry\.lock|Pipfile\.lock)$", name)
    ]
    assert named == []


def test_nothing_large_is_committed() -> None:
    assert [name for name in committed() if (CHECKOUT / name).stat().st_size > 1_000_000] == []


def test_no_merge_is_left_open() -> None:
    assert lines_with(re.compile(r"^(<{7} |>{7} |={7}$)")) == []


def test_text_ends_with_a_line_break() -> None:
    assert [text.name for text in texts() if text.content and not text.content.endswith("\n")] == []


def test_modules_are_small() -> None:
    long = {
        text.name
        for text in texts()
        if text.name.startswith("xmode_transfer/")
        and text.name.endswith(".py")
        and len(text.content.splitlines()) > MOST_LINES
    }
    assert long == set(LONG_MODULES)


def test_there_is_no_drawer_of_odds_and_ends() -> None:
    assert [name for name in committed() if Path(name).stem in {"utils", "util", "helpers", "misc"}] == []


# --- Requirements --------------------------------------------------------------------------------------


def pins_of(content: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of a file, with its hashes. A line that is neither fails the test."""
    for line in re.sub(r"\\\n", "", content).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *options = re.split(r"\s+(?=--)", line.strip())
        assert all(option.startswith("--hash=sha256:") for option in options), line
        yield Requirement(requirement), options


def pinned(name: str) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for requirement, _ in pins_of((CHECKOUT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_each_requirements_file_is_known() -> None:
    here = {name for name in committed() if name.startswith("requirements/")}
    assert here == {f"requirements/{name}.txt" for name in PINS}


def test_every_requirement_is_one_version_with_its_hashes_and_no_url() -> None:
    files = [text for text in texts() if re.search(r"requirements(/\w+)?\.txt$", text.name)]
    assert {f"requirements/{name}.txt" for name in PINS} < {text.name for text in files}
    for text in files:
        assert "://" not in text.content
        found = list(pins_of(text.content))
        assert found
        for requirement, hashes in found:
            assert requirement.url is None
            assert re.fullmatch(r"==[\w.!+-]+", str(requirement.specifier)), f"{text.name}: {requirement}"
            assert hashes, f"{text.name}: {requirement} has no hash"


@pytest.mark.parametrize("name", ["run", "build"])
def test_the_development_set_has_the_same_versions(name: str) -> None:
    development = pinned("dev")
    for package, requirements in pinned(name).items():
        versions = {str(requirement.specifier) for requirement in requirements}
        assert versions <= {str(requirement.specifier) for requirement in development[package]}


@pytest.mark.parametrize("name", PINS)
def test_what_the_project_asks_for_is_pinned_within_its_range(name: str) -> None:
    """Fails when `make lock` was forgotten."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    asked = {
        "run": project["dependencies"] + extras,
        "build": groups["build"],
        "dev": project["dependencies"] + extras + groups["build"] + groups["dev"],
    }[name]
    pins = pinned(name)
    for text in asked:
        wanted = Requirement(text)
        for pin in pins[canonicalize_name(wanted.name)]:
            version = str(pin.specifier).removeprefix("==")
            assert wanted.specifier.contains(version, prereleases=True), (
                f"{pin} is not {wanted}: run `make lock`"
            )


# --- Version, changelog, make file, image --------------------------------------------------------------


def test_the_changelog_begins_with_the_version() -> None:
    headings = re.findall(
        r"^## \[(.+?)\] - (.+)$", (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    version, when = headings[0]
    assert version == PROJECT["project"]["version"]
    assert re.fullmatch(r"unreleased|\d{4}-\d{2}-\d{2}", when)


def test_make_says_what_there_is() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE) for name in line.split()}
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"^  make (\w+) +\S", done.stdout, re.MULTILINE)) == phony


def test_continuous_integration_runs_make_check() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text(encoding="utf-8").rstrip().endswith("make --no-print-directory check")


@cache
def dockerfile() -> list[tuple[str, str]]:
    """The image's instructions, each on one line, in order."""
    content = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", content, flags=re.MULTILINE))
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def test_the_image_has_two_stages_of_one_base_with_a_version() -> None:
    assert [rest.split()[0] for word, rest in dockerfile() if word == "FROM"] == ["${BASE}", "${BASE}"]
    assert dockerfile()[0][0] == "ARG"
    name, _, base = dockerfile()[0][1].partition("=")
    assert name == "BASE"
    assert re.fullmatch(r"python:3\.\d+-slim(@sha256:[0-9a-f]{64})?", base)


def test_the_image_installs_only_what_has_a_known_hash() -> None:
    installs = [
        part
        for word, rest in dockerfile()
        if word == "RUN"
        for part in rest.split("&&")
        if "install " in part
    ]
    for part in installs:
        assert any(safe in part for safe in ("--require-hashes", "--no-deps", "install -d")), part


def test_the_image_does_not_run_as_root() -> None:
    words = [word for word, _ in dockerfile()]
    last = len(words) - words[::-1].index("FROM")
    users = [rest for word, rest in dockerfile()[last:] if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert {"WORKDIR", "HEALTHCHECK", "ENTRYPOINT"} <= set(words[last:])


def test_the_image_says_which_version_it_is() -> None:
    label = next(rest for word, rest in dockerfile() if word == "LABEL")
    assert f'org.opencontainers.image.version="{PROJECT["project"]["version"]}"' in label


def test_the_image_is_built_from_what_it_needs_and_nothing_else() -> None:
    kept = [
        line.removeprefix("!")
        for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = [
        source.rstrip("/")
        for word, rest in dockerfile()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert sorted(kept) == sorted(copied)


def test_the_image_starts_the_daemon() -> None:
    last = {word: rest for word, rest in dockerfile() if word in ("ENTRYPOINT", "CMD")}
    assert (json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])) == (["xmode-transfer"], ["daemon"])
    assert "xmode-transfer" in PROJECT["project"]["scripts"]


def test_the_base_of_the_image_stands_in_one_place() -> None:
    content = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    instructions = "\n".join(line for line in content.splitlines() if not line.startswith("#"))
    assert instructions.count("python:3.") == 1
