"""A directory of YAML files: what loads, what breaks whom, and where each mistake is told."""

import errno
import os
import re
import shutil
import socket
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmode_transfer.config import Problem
from xmode_transfer.config.files import load, read_directory, schema_files
from xmode_transfer.model.errors import ConfigError, ExitCode

EXAMPLE = Path(__file__).parents[3] / "config"
FEED = "source: exports/us-daily\nperiod: day\npartition: '%Y/%m/%d'\n"
ACME = """\
company: Acme Corp
external_id: AcmeCorp
role_arn: arn:aws:iam::111122223333:role/XMode
destination:
  bucket: acme-data
  prefix: xmode/
  region: us-east-1
feeds: [us-daily]
"""
GLOBEX = """\
company: Globex
external_id: Globex
role_arn: arn:aws:iam::444422223333:role/XMode
destination:
  bucket: globex-data
  prefix: xmode/
  region: us-east-1
feeds: [us-daily]
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration in order, then the files given: ``write({"customers/acme.yaml": text})``."""

    def make(files: dict[str, str | bytes | None] | None = None) -> Path:
        directory = tmp_path / "config"
        whole: dict[str, str | bytes | None] = {
            "service.yaml": "",
            "feeds/us-daily.yaml": FEED,
            "customers/acme.yaml": ACME,
            "customers/globex.yaml": GLOBEX,
            **(files or {}),
        }
        for name, text in whole.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return directory

    return make


def problems(directory: Path) -> list[str]:
    return [str(problem) for problem in read_directory(directory)[0].problems]


def test_the_example_is_in_order() -> None:
    configuration = load(EXAMPLE)
    assert sorted(configuration.customers) == ["acme", "globex"]
    assert sorted(configuration.feeds) == ["drops", "us-daily"]
    assert configuration.problems == ()
    assert configuration.customers["globex"].account_id == "012345678901"


def test_what_the_example_says_is_the_default_is_the_default(write: Write) -> None:
    bare = load(write())
    full = load(EXAMPLE)
    places = {"ledger": "", "recalls": ""}
    assert full.service.model_copy(update=places) == bare.service.model_copy(update=places)
    assert full.feeds["us-daily"].exclude == bare.feeds["us-daily"].exclude


def test_a_configuration_in_order_loads(write: Write) -> None:
    directory = write()
    configuration = load(directory)
    assert configuration.service.ledger == f"sqlite:///{directory}/var/ledger.db"
    assert configuration.feeds["us-daily"].source == str(directory / "exports/us-daily")
    assert sorted(configuration.customers) == ["acme", "globex"]
    assert configuration.broken == {}
    with pytest.raises(TypeError):
        configuration.customers["evil"] = configuration.customers["acme"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("said", "recalls"),
    [
        ("", "{directory}/var/recalls.jsonl"),
        ("ledger: sqlite:////srv/xmode/ledger.db?timeout=5\n", "/srv/xmode/recalls.jsonl"),
        ("ledger: postgresql://db.internal/xmode\n", "{directory}/var/recalls.jsonl"),
        ("ledger: env:LEDGER_URL\n", "{directory}/var/recalls.jsonl"),
        ("ledger: sqlite:////srv/xmode/ledger.db\nrecalls: kept/r.jsonl\n", "{directory}/kept/r.jsonl"),
        ("recalls: /srv/xmode/r.jsonl\n", "/srv/xmode/r.jsonl"),
    ],
)
def test_the_file_of_recalls_is_beside_a_ledger_in_sqlite(write: Write, said: str, recalls: str) -> None:
    directory = write({"service.yaml": said})
    assert load(directory).service.recalls == recalls.format(directory=directory)


def test_a_relative_directory_gives_absolute_paths(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write({"feeds/us-daily.yaml": FEED.replace("exports", "../data")})
    monkeypatch.chdir(directory.parent)
    configuration = load(Path("config"))
    assert configuration.feeds["us-daily"].source == str(directory.parent / "data/us-daily")
    assert configuration.service.ledger == f"sqlite:///{directory}/var/ledger.db"


@pytest.mark.parametrize("source", ["/data/x", "s3://exports-of-ours/us"])
def test_an_absolute_source_and_ledger_stay_as_they_are(write: Write, source: str) -> None:
    ledger = "sqlite:////srv/ledger.db?timeout=5"
    files = {"feeds/us-daily.yaml": FEED.replace("exports/us-daily", source)}
    configuration = load(write({**files, "service.yaml": f"ledger: {ledger}"}))
    assert (configuration.feeds["us-daily"].source, configuration.service.ledger) == (source, ledger)


@pytest.mark.parametrize("company", ["NO", "1:30", "012345670123", "1e3", "2026-11-22"])
def test_text_stays_what_was_written(write: Write, company: str) -> None:
    files = {
        "customers/acme.yaml": ACME.replace("Acme Corp", company).replace(
            "prefix: xmode/", f"prefix: {company}/"
        )
    }
    acme = load(write(files)).customers["acme"]
    assert (acme.company, acme.destination.prefix) == (company, f"{company}/")


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", True), ("True", True), ("off", False), ("'false'", False)],
)
def test_the_models_decide_what_is_true(write: Write, text: str, value: bool) -> None:
    assert load(write({"feeds/us-daily.yaml": f"{FEED}sha256: {text}"})).feeds["us-daily"].sha256 is value


def test_an_alias_stands_for_its_anchor(write: Write) -> None:
    text = ACME.replace("company: Acme Corp", "company: &name AcmeCorp").replace("id: AcmeCorp", "id: *name")
    assert load(write({"customers/acme.yaml": text})).customers["acme"].external_id == "AcmeCorp"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  prefix:", "  prefx:", "6:3: destination.prefx: unknown key (did you mean prefix?)"),
        ("prefix: xmode/", "prefix: xmode", "6:11: destination.prefix: a prefix ends with a slash"),
        ("  bucket: acme-data\n", "", "4:1: destination.bucket: is missing; write it like bucket: acme-data"),
        ("company: Acme Corp\n", "", "1:1: company: is missing; write it like company: Acme Corp"),
        ("feeds: [us-daily]\n", "", "1:1: feeds: is missing; write it like feeds: [us-daily]"),
        ("company: Acme Corp", "company:", "1:9: company: has no value; write it like company: Acme Corp"),
        ("prefix: xmode/", "prefix:", "6:10: destination.prefix: has no value; write one or remove the key"),
        ("feeds: [us-daily]", "feeds: []", "8:8: feeds: is an empty list; write at least one"),
        ("feeds: [us-daily]", "feeds: us-daily", "8:8: feeds: write a list, not a text (did you mean ["),
        ("feeds: [us-daily]", "feeds: [[a]]", "8:9: feeds[0]: write one text here, not a list"),
        ("feeds: [us-daily]", "feeds: [us-dayly]", "8:9: feeds[0]: there is no feed us-dayly"),
        ("feeds: [us-daily]", "feeds: [us-daily, us-daily]", "8:8: feeds: us-daily is listed twice"),
        (
            "feeds: [us-daily]",
            "feeds: [us-daily: {table: delta}]",
            "8:9: feeds[0]: a list has names only; write feeds as a mapping: {us-daily: {table: delta}}",
        ),
        ("feeds: [us-daily]", "feeds: {us-dayly: null}", "8:19: feeds.us-dayly: there is no feed us-dayly"),
        ("feeds: [us-daily]", "feeds:\n  us-dayly:", "9:12: feeds.us-dayly: there is no feed us-dayly"),
        ("feeds: [us-daily]", "feeds: {}", "8:8: feeds: is an empty list; write at least one"),
        (
            "feeds: [us-daily]",
            "feeds:\n  us-daily:\n    tabel: delta",
            "10:5: feeds.us-daily.tabel: unknown key (did you mean table?)",
        ),
        (
            "feeds: [us-daily]",
            "feeds: {us-daily: {table: iceberg}}",
            "8:27: feeds.us-daily.table: write one of delta, none",
        ),
        (
            "feeds: [us-daily]",
            'feeds: {us-daily: {layout: "{feed}/{name}"}}',
            "8:28: feeds.us-daily.layout: a feed by day needs %Y %m %d or %Y %j, so that",
        ),
        ("company: Acme Corp", "company: {a: b}", "1:10: company: write one text here, not keys"),
        ("feeds:", "state: Retired\nfeeds:", "8:8: state: write one of active, pending, retired (did"),
        ("feeds:", "state: [x]\nfeeds:", "8:8: state: write one of active, pending, retired"),
        ("feeds:", "region: x\nfeeds:", "8:1: region: unknown key (did you mean destination.region?)"),
        ("  region", "  feeds: [x]\n  region", "7:3: destination.feeds: unknown key (did you mean feeds at"),
        ("feeds:", "name: acme\nfeeds:", "8:1: name: unknown key; the name is the file's own name"),
        ("feeds:", "colour: red\nfeeds:", "8:1: colour: unknown key"),
        ("feeds:", "retention: {days: ten}\nfeeds:", "8:19: retention.days: should be a valid integer"),
        ("feeds:", "retention: {days: 0}\nfeeds:", "8:19: retention.days: should be greater"),
        ("feeds:", "retention: {days: 99999}\nfeeds:", "8:19: retention.days: should be less than"),
        ("feeds:", "retention: 30 days\nfeeds:", "8:12: retention: write keys below it (days, keep_last"),
        ("feeds:", "schedule: {}\nfeeds:", "8:11: schedule.cron: is missing; write it like cron: 30 6 * * *"),
        ("feeds:", "company: Twice\nfeeds:", "8:1: company: this key is already in line 1"),
        ("feeds:", "<<: {a: b}\nfeeds:", "8:1: << (merging) is not used here; write the keys out"),
        ("company: Acme Corp", "company: !secret x", "1:10: company: the tag !secret is not used here"),
        ("company: Acme Corp", "company: " + "x" * 300, "1:10: company: String should have at most 256"),
        ("feeds:", "? [a]\n: b\nfeeds:", "8:3: a key is one word, not a list or keys of its own"),
        ("XMode", "X Mode", "3:11: role_arn: 'X Mode' is not a valid role name"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_position_and_affects_only_its_customer(
    write: Write, old: str, new: str, told: str
) -> None:
    assert old in ACME
    directory = write({"customers/acme.yaml": ACME.replace(old, new, 1)})
    configuration = load(directory)
    (problem,) = configuration.broken["acme"]
    assert str(problem).startswith(f"customers/acme.yaml:{told}")
    assert configuration.problems == (problem,)
    assert list(configuration.customers) == ["globex"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("retention: {by: perod, days: 1}", "17: retention.by: write one of period, delivery (did you mean "),
        ("retention: {caps: {max_fraction: 0}}", "34: retention.caps.max_fraction: should be greater than 0"),
        ("retention: {caps: {max_fraction: x}}", "34: retention.caps.max_fraction: should be a valid number"),
        ("retention: {feeds: {us-daily: {kep_last: 7}}}", "32: retention.feeds.us-daily.kep_last: unknown k"),
        ("retention: {feeds: {us-daily: {by: x, days: 1}}}", "36: retention.feeds.us-daily.by: write one of"),
        ("retention: {feeds: {us-dayly: {days: 1}}}", "12: retention: us-dayly is none of the customer's fe"),
        ("hold: [us-dayly]", "7: hold: us-dayly is none of the customer's feeds (did you mean us-daily?)"),
        ("hold: [us-daily/2026-W01]", "8: hold[0]: us-daily/2026-W01: '2026-W01' is no period of a feed by "),
        ("hold: us-daily", "7: hold: write true, or a list (did you mean [us-daily]?)"),
        ("hold: []", "7: hold: an empty list holds nothing; write true, name what is held, or remove the ke"),
    ],
)  # fmt: skip
def test_a_mistake_about_what_may_be_removed_stops_the_customer(write: Write, line: str, told: str) -> None:
    directory = write({"customers/acme.yaml": ACME.replace("feeds:", f"{line}\nfeeds:", 1)})
    (problem,) = load(directory).broken["acme"]
    assert str(problem).startswith(f"customers/acme.yaml:8:{told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a:\n\tb: c\n", "2:1: a tab; YAML is indented with spaces"),
        (b"a: caf\xe9\n", "1:7: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"a: b\nc: \x07\n", "2:4: a control character (U+0007); remove it"),
        (
            b"a: b: c\n",
            "1:5: a colon where no key is allowed; fix the indentation or put the value in quotes",
        ),
        (b"a: *.csv\n", "1:5: * and & have a meaning in YAML; put a text that begins so in quotes"),
        (b"a: *csv\n", "1:4: * begins an alias in YAML, and no anchor has this name; put the text in quotes"),
        (b"a: %Y/%m\n", "1:4: % has a meaning in YAML; put the value in quotes"),
        (b"a: 'b\nc: d\n", "1:4: the quotation mark that begins here is never closed"),
        (b"a: [b\nc: d\n", "1:4: the list that begins here with [ lacks a comma or its ]"),
        (b"a: {b\n", "1:4: what begins here with { lacks a comma or its }"),
        (b"a: b\n---\nc: d\n", "2:1: one file holds one document; remove this --- and what follows it"),
        (b"- a\n", "1:1: the file has no keys; it is written in lines of key: value"),
        (b"a text\n", "1:1: the file has no keys; it is written in lines of key: value"),
        (
            b"a: &x [*x]\n",
            "1:4: nests deeper, or has more values, than any configuration; look at the aliases",
        ),
        (b"a: " + b"x" * 5000, "1:4096: the line is longer than 4,096 characters"),
        (b"a: " + b"- " * 200_000, "1:1: the file is too large; one of ours has 262,144 bytes at most"),
        (b"a: [\n" + b" [\n" * 80_000, "17:2: nests deeper"),
        (b"a: " + b"{b: " * 20, "1:68: nests deeper"),
        (b"- " * 2000, "1:1: the file has no keys"),
        (b"a:\n" + b"  " + b"- " * 2000, "nests deeper"),
    ],
)
def test_invalid_yaml_is_reported_with_its_position(write: Write, text: bytes, told: str) -> None:
    configuration = load(write({"customers/acme.yaml": text}))
    (problem,) = configuration.broken["acme"]
    assert told in str(problem)
    assert problem.line >= 1
    assert problem.column >= 1
    assert list(configuration.customers) == ["globex"]


def test_a_small_file_with_many_aliases_is_refused_quickly(write: Write) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    configuration = load(write({"customers/acme.yaml": "\n".join(["l0: &l0 lol", *levels])}))
    assert "look at the aliases" in str(configuration.broken["acme"][0])


@pytest.mark.parametrize("endpoint", [None, "variable", "file"])
def test_a_misspelt_region_is_a_mistake_on_aws_and_a_hint_elsewhere(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str | None
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    if endpoint == "variable":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.internal")
    elif endpoint == "file":
        (tmp_path / "aws").write_text("[default]\nendpoint_url = http://store.internal\n")
    directory = write({"customers/acme.yaml": ACME.replace("us-east-1", "us-est-1")})
    configuration = load(directory)
    told = (
        "customers/acme.yaml:7:11: destination.region: us-est-1 is not a known AWS region "
        "(did you mean us-east-1 or us-west-1?)"
    )
    if endpoint is None:
        assert [str(problem) for problem in configuration.broken["acme"]] == [told]
        assert configuration.hints == ()
    else:
        assert "acme" in configuration.customers
        assert [str(hint) for hint in configuration.hints] == [told]
        assert configuration.problems == ()


def test_a_misspelt_region_frees_nothing_that_its_file_claims(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    directory = write(
        {"customers/acme.yaml": ACME.replace("us-east-1", "us-est-1"), "customers/twin.yaml": ACME}
    )
    assert set(load(directory).broken) == {"acme", "twin"}


def test_a_byte_order_mark_and_other_line_ends_are_no_mistake(write: Write) -> None:
    text = b"\xef\xbb\xbf" + ACME.replace("\n", "\r\n").encode()
    assert load(write({"customers/acme.yaml": text})).problems == ()


def test_an_empty_customer_lacks_each_needed_key(write: Write) -> None:
    configuration = load(write({"customers/acme.yaml": "# nothing yet\n"}))
    keys = [problem.path for problem in configuration.broken["acme"]]
    assert keys == ["company", "destination", "external_id", "feeds", "role_arn"]


def test_every_mistake_of_every_file_is_reported_at_once(write: Write) -> None:
    directory = write(
        {
            "feeds/torn.yaml": "source: ~/x\nperiod: daily\n",
            "customers/acme.yaml": ACME.replace("acme-data", "Acme").replace("xmode/", "/x"),
            "customers/globex.yaml": GLOBEX.replace("us-daily", "torn"),
        }
    )
    assert [line.split(": ", 2)[:2] for line in problems(directory)] == [
        ["customers/acme.yaml:5:11", "destination.bucket"],
        ["customers/acme.yaml:6:11", "destination.prefix"],
        ["customers/globex.yaml:8:9", "feeds[0]"],
        ["feeds/torn.yaml:1:9", "source"],
        ["feeds/torn.yaml:2:9", "period"],
    ]
    assert load(directory).customers == {}


def test_a_feed_that_nobody_uses_breaks_nobody(write: Write) -> None:
    configuration = load(write({"feeds/unused.yaml": "source: x\n"}))
    assert sorted(configuration.customers) == ["acme", "globex"]
    assert [problem.file for problem in configuration.problems] == ["feeds/unused.yaml"]


def test_both_who_claim_the_same_are_broken_and_named(write: Write) -> None:
    configuration = load(write({"customers/globex.yaml": GLOBEX.replace("Globex\nrole", "acmecorp\nrole")}))
    assert configuration.customers == {}
    for name, other in (("acme", "globex"), ("globex", "acme")):
        (problem,) = configuration.broken[name]
        assert (problem.file, problem.line, problem.column) == (f"customers/{name}.yaml", 2, 14)
        assert f"customers/{other}.yaml" in problem.message


def test_a_typing_error_does_not_free_what_a_file_claims(write: Write) -> None:
    torn = GLOBEX.replace("Globex\nrole", "AcmeCorp\nrole").replace("region:", "regoin:")
    configuration = load(write({"customers/globex.yaml": torn}))
    assert sorted(configuration.broken) == ["acme", "globex"]


@pytest.mark.parametrize(
    ("service", "told"),
    [
        ("engine: fsat", "service.yaml:1:9: engine: write one of auto, fast, portable (did you mean fast?)"),
        (
            "limits: {memory_bytes: 1KB}",
            "limits.memory_bytes: should be greater than or equal to 5242880",
        ),
        ("alerts: [a]", "service.yaml:1:10: alerts"),
        ("aws_secret_access_key: x", "credentials do not belong here"),
        ("name: x", "service.yaml:1:1: name: unknown key"),
        ("a: [", "service.yaml:2:1: a value is missing here, or a closing ] or }"),
    ],
)
def test_a_service_with_mistakes_stops_everything_and_reports_all(
    write: Write, service: str, told: str
) -> None:
    directory = write({"service.yaml": service, "customers/acme.yaml": "a: b"})
    with pytest.raises(ConfigError) as caught:
        load(directory)
    assert any(told in line for line in caught.value.problems)
    assert any(line.startswith("customers/acme.yaml") for line in caught.value.problems)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not any("own user" in line for line in caught.value.problems)


def test_a_missing_service_file_is_reported(write: Write) -> None:
    directory = write()
    (directory / "service.yaml").unlink()
    with pytest.raises(ConfigError) as caught:
        load(directory)
    (problem,) = caught.value.problems
    assert problem.startswith("service.yaml: the file is missing; an empty one will do")


def test_a_missing_directory_is_reported_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration directory") as caught:
        load(tmp_path / "nowhere")
    assert "--config" in caught.value.hint


def test_no_customers_and_no_feeds_are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").touch()
    configuration = load(tmp_path)
    assert (configuration.customers, configuration.feeds, configuration.problems) == ({}, {}, ())


def test_files_that_would_be_overlooked_are_reported(write: Write) -> None:
    directory = write(
        {"customers/initech.yml": ACME, "feeds/.us-daily.yaml.swp": b"\xff", "customers/README.md": "x"}
    )
    (directory / "customers" / "old").mkdir()
    (directory / "customers" / "loop").symlink_to("loop")
    assert problems(directory) == [
        "customers/initech.yml: is not read; name it initech.yaml",
        "customers/old: is a directory; files belong directly in customers/",
    ]
    assert sorted(load(directory).customers) == ["acme", "globex"]


def test_a_files_name_is_checked_too(write: Write) -> None:
    configuration = load(
        write({"customers/Initech Inc.yaml": GLOBEX.replace("lobex", "x").replace("4444", "5555")})
    )
    (problem,) = configuration.broken["Initech Inc"]
    assert str(problem).startswith("customers/Initech Inc.yaml: 'Initech Inc' cannot be a name")


def _a_directory(path: Path) -> None:
    path.mkdir()


def _a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # with a hole: it takes no room, unless somebody reads it


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "loop": (lambda path: path.symlink_to(path.name), "is a symbolic link that leads back to itself"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "is a symbolic link that leads nowhere"),
    "directory": (_a_directory, "is a directory, not a file"),
    "pipe": (os.mkfifo, "is a pipe, not a file"),
    "socket": (_a_socket, "is a socket or a device, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a socket or a device, not a file"),
    "large": (_a_large_file, "the file is too large"),
}
if Path("/proc/self/mem").exists():  # a file that nobody can read
    NO_FILES["failing"] = (
        lambda path: path.symlink_to("/proc/self/mem"),
        "cannot be read: Input/output error",
    )


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_file_that_cannot_be_read_is_that_file_s_problem(
    write: Write, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, told = NO_FILES[kind]
    directory = write({"feeds/drops.yaml": "source: drops\nperiod: none\n"})
    monkeypatch.chdir(directory / "customers")  # a socket's path is short
    Path("acme.yaml").unlink()
    make(Path("acme.yaml"))
    configuration = load(directory)
    assert list(configuration.customers) == ["globex"]
    (problem,) = configuration.broken["acme"]
    assert problem.file == "customers/acme.yaml"
    assert told in problem.message

    monkeypatch.chdir(directory / "feeds")
    Path("drops.yaml").unlink()
    make(Path("drops.yaml"))
    configuration = load(directory)
    assert list(configuration.customers) == ["globex"]
    assert any(problem.file == "feeds/drops.yaml" for problem in configuration.problems)

    monkeypatch.chdir(directory)
    Path("service.yaml").unlink()
    make(Path("service.yaml"))
    with pytest.raises(ConfigError) as caught:
        load(directory)
    assert any(line.startswith("service.yaml") and told in line for line in caught.value.problems)
    assert caught.value.hint == "fix service.yaml, then run: xmode-transfer config check"


def test_a_file_that_only_others_may_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write()
    opened = os.open

    def refuse(path: Path, *how: int) -> int:
        if Path(path).name == "acme.yaml":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *how)

    monkeypatch.setattr(os, "open", refuse)
    configuration = load(directory)
    assert list(configuration.customers) == ["globex"]
    assert [str(problem) for problem in configuration.broken["acme"]] == [
        "customers/acme.yaml: cannot be read: Permission denied; give the user that this runs as read access"
    ]


def test_a_file_whose_name_is_not_utf8(write: Write) -> None:
    directory = write({"customers/caf\udce9.yaml": GLOBEX})
    configuration = load(directory)
    assert sorted(configuration.broken) == ["caf\\xe9", "globex"]  # both claim the same
    assert all(str(problem).encode() for problem in configuration.problems)


@pytest.mark.parametrize("folder", ["feeds", "customers"])
@pytest.mark.parametrize("kind", ["loop", "dangling", "pipe"])
def test_a_folder_that_cannot_be_listed_stops_everything(write: Write, folder: str, kind: str) -> None:
    """Else all customers would be gone, and a daemon would stop what runs for them."""
    directory = write()
    shutil.rmtree(directory / folder)
    NO_FILES[kind][0](directory / folder)
    with pytest.raises(ConfigError) as caught:
        load(directory)
    assert any(line.startswith(f"{folder}: cannot be read: ") for line in caught.value.problems)
    assert caught.value.hint.startswith(f"fix {folder}, then")


def test_loading_calls_nobody(
    write: Write, loopback_only: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the configuration is read without any network")

    monkeypatch.setattr(socket, "socket", refuse)
    assert load(write()).problems == ()


def test_problems_print_like_a_compilers() -> None:
    assert str(Problem("a.yaml", 9, 3, "x.y", "is wrong")) == "a.yaml:9:3: x.y: is wrong"
    assert str(Problem("a.yaml", 0, 0, "", "is missing")) == "a.yaml: is missing"


def test_the_committed_schemas_are_current() -> None:
    for path, text in schema_files(EXAMPLE):
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale; run: xmode-transfer config schema"


keys = st.sampled_from(
    [
        "company",
        "external_id",
        "role_arn",
        "destination",
        "feeds",
        "schedule",
        "retention",
        "state",
        "bucket",
        "prefix",
        "region",
        "cron",
        "timezone",
        "days",
        "max_bytes",
        "source",
        "period",
        "partition",
        "include",
        "exclude",
        "complete",
        "marker",
        "settle_seconds",
        "look_back",
        "sha256",
        "name",
        "zebra",
    ]
)
leaves = st.sampled_from(
    [
        "x",
        "",
        "~",
        "1",
        "-5",
        "1.5",
        "99999999999999999999",
        "true",
        "day",
        "none",
        "'%Y'",
        "s3://a/b",
        "*",
        "[]",
        "{}",
        "é",
    ]
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(item or '~' for item in items)}]"),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=6,
)
documents = st.dictionaries(keys, values, max_size=6).map(
    lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs.items())
)
PYDANTIC = re.compile(r"Input should|Value error|validation|pydantic|Field required|<class|Extra inputs")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=documents, kind=st.sampled_from(["customers/x.yaml", "feeds/x.yaml", "service.yaml"]))
def test_any_content_is_answered_in_plain_words(write: Write, text: str, kind: str) -> None:
    directory = write({"feeds/x.yaml": FEED, "customers/x.yaml": ACME, "service.yaml": "", kind: text})
    configuration, _ = read_directory(directory)
    for problem in configuration.problems:
        assert not PYDANTIC.search(str(problem)), textwrap.indent(text, "  ")
        assert problem.line >= 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.binary(max_size=60))
def test_whatever_bytes_a_file_has_break_only_its_customer(write: Write, raw: bytes) -> None:
    configuration = load(write({"customers/acme.yaml": raw}))
    assert list(configuration.customers) == ["globex"]
    assert configuration.broken["acme"]
