"""What the command does with stdin, stdout and stderr, whatever they are."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from tests import bucket, commands
from tests.forms import IS_SOAK
from tests.functional.conftest import COMMAND, Answer, Project
from tests.terminal import on_terminal, screen
from xmode_transfer import cli
from xmode_transfer.cli import streams
from xmode_transfer.sandbox.model import CustomerSetup

NAME = "Zürich ✓ 𝕏 AG"
CUSTOMER = """\
company: "{name}"
external_id: AcmeCorp
role_arn: arn:aws:iam::111122223333:role/XMode
destination: {{bucket: acme-data, prefix: xmode/, region: us-east-1}}
feeds: [daily]
state: pending
"""
LOST = "the output could not be written: No space left on device"
# stdout's own failures, as the shell says them; a closed pipe is made by ``streams``
REDIRECTIONS = [
    "2>&-",
    "2>/dev/full",
    "<&-",
    ">&-",
    ">&- 2>&- <&-",
    ">/dev/full",
    ">/dev/full 2>/dev/full",
    "|",
]


# Where a shell starts the command: the interpreter finds the streams, of which a fork is told.
OF_A_SHELL = REDIRECTIONS if IS_SOAK else [">&- 2>&- <&-", ">/dev/full 2>/dev/full", "|"]


@pytest.fixture
def here(tmp_path: Path) -> Project:
    """One pending customer, with letters that not every encoding has."""
    config = tmp_path / "config"
    (config / "feeds").mkdir(parents=True)
    (config / "customers").mkdir()
    (config / "service.yaml").write_text("ledger: sqlite:///var/ledger.db\n")
    (config / "feeds" / "daily.yaml").write_text(
        f'source: {tmp_path}\nperiod: day\npartition: "%Y/%m/%d"\ncomplete: {{marker: _SUCCESS}}\n'
    )
    (config / "customers" / "acme.yaml").write_text(CUSTOMER.format(name=NAME), encoding="utf-8")
    return Project(config, {})


@contextmanager
def pipe_without_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


def redirected(here: Project, redirection: str, *arguments: str) -> Answer:
    """The command under a shell that redirects its streams; ``|`` is a pipe whose reader has gone."""
    line = f'exec "$@" {redirection.removeprefix("|")}'
    with pipe_without_reader() as nobody:
        done = subprocess.run(
            ["/bin/sh", "-c", line, "sh", COMMAND, "--config", str(here.directory), *arguments],
            env={**os.environ, **here.environment},
            stdout=nobody if redirection == "|" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    return Answer(done.returncode, done.stdout or "", done.stderr)


def redirected_fork(here: Project, redirection: str, *arguments: str) -> Answer:
    """The same without a shell: a fork is told what the interpreter would have found."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with pipe_without_reader() as nobody, Path("/dev/full").open("w") as full:
        if ">/dev/full" in redirection.replace("2>/dev/full", ""):
            streams["stdout"] = full
        if "2>/dev/full" in redirection:
            streams["stderr"] = full
        if redirection == "|":
            streams["stdout"] = nobody
        closed = [number for number, said in enumerate(("<&-", ">&-", "2>&-")) if said in redirection.split()]
        done = commands.run(
            [COMMAND, "--config", str(here.directory), *arguments],
            env={**os.environ, **here.environment},
            closed=closed,
            text=True,
            timeout=120,
            **streams,
        )
    return Answer(done.returncode, done.stdout or "", done.stderr or "")


ALIKE = [(["config", "check", "--json"], 0), (["run", "--json"], 2)]


@pytest.mark.short
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_whatever_its_streams_are_it_ends_quietly(here: Project, redirection: str) -> None:
    for arguments, code in (
        (["--help"], 0),
        (["status"], 0),
        (["run", "--customer", "nobody", "--json"], 2),
        *(ALIKE if IS_SOAK else []),
    ):
        answer = redirected_fork(here, redirection, *arguments)
        lost = ">/dev/full" in redirection and not redirection.startswith("2")
        assert answer.code == (141 if redirection == "|" else 3 if lost else code), (arguments, answer)
        assert not re.search("Traceback|a bug in xmode-transfer|Exception ignored", answer.out + answer.err)
        if redirection in ("2>&-", "2>/dev/full", "<&-"):
            assert answer.out
        if redirection == ">/dev/full":
            assert answer.err.rstrip().splitlines()[-1].startswith(LOST)


@pytest.mark.short
@pytest.mark.sandbox
def test_a_delivery_is_made_whatever_becomes_of_its_streams(
    project: Callable[..., Project], acme: CustomerSetup
) -> None:
    here = project(acme)
    codes = {">/dev/full": 3, ">/dev/full 2>/dev/full": 3, "|": 141}
    for day, redirection in enumerate(REDIRECTIONS, start=1):
        period = f"2026/11/{day:02}"
        here.write(f"{period}/a.csv", b"a")
        here.write(f"{period}/_SUCCESS", b"")
        named = ["--customer", "acme", "--period", period.replace("/", "-")]
        start = redirected if redirection in OF_A_SHELL else redirected_fork
        answer = start(here, redirection, "run", *named)
        assert answer.code == codes.get(redirection, 0), answer
        keys = bucket.list_keys(acme)
        assert f"xmode/us-daily/{period}/a.csv" in keys
        assert f"xmode/us-daily/_manifests/2026-11-{day:02}/000001.json" in keys


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every_command(found, (*path, name))


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["xmode-transfer", *arguments])
    return cli._run(None)


@pytest.mark.parametrize("path", list(every_command(cli.cli)), ids=" ".join)
def test_a_usage_error_is_a_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    assert called(monkeypatch, *path, "--no-such-option", "--json") == 2
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    assert (error["cause"], error["responsible"], error["retryable"]) == ("usage", "vendor", False)
    assert "--no-such-option" in error["message"]
    assert "--help" in error["hint"]
    assert shown.err == ""
    assert called(monkeypatch, *path, "--no-such-option") == 2
    shown = capsys.readouterr()
    assert "--no-such-option" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("path", list(every_command(cli.cli)), ids=" ".join)
def test_help_fits_a_screen_and_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert called(monkeypatch, *path, "--help") == 0
    assert len(capsys.readouterr().out.splitlines()) <= 40
    monkeypatch.setenv("COLUMNS", "40")
    assert called(monkeypatch, *path, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: ")
    assert shown.isascii()


ENCODINGS: list[dict[str, str]] = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("environment", ENCODINGS, ids=str)
def test_what_the_encoding_does_not_have_is_escaped(here: Project, environment: dict[str, str]) -> None:
    def run(*arguments: str) -> tuple[int, bytes, bytes]:
        command = [COMMAND, "--config", str(here.directory), *arguments]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, check=False, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    encoding = "latin-1" if "latin-1" in environment.values() else "utf-8"
    code, out, err = run("status", "--json")
    assert code == 0, err
    (acme,) = json.loads(out.decode(encoding))["customers"]
    assert acme["company"] == NAME
    if "ascii" in environment.values():
        assert out.isascii()
    if "ascii" in environment.values():
        code, out, err = run("run", "--customer", NAME)
        assert code == 2
        assert b"Traceback" not in err
        assert b"Encode" not in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_document_stays_one_in_any_encoding(encoding: str) -> None:
    told = {"key": 'ä€✓𝕏\udcff\x7f\\u00e4"'}
    written = json.dumps(told, ensure_ascii=False).encode(encoding, streams.ESCAPES)
    assert json.loads(written.decode(encoding)) == told


COLOURS: list[tuple[dict[str, str], bool, bool]] = [
    # what is set; coloured on a terminal, coloured in a pipe
    ({}, True, False),
    ({"NO_COLOR": "1"}, False, False),
    ({"NO_COLOR": ""}, True, False),
    ({"TERM": "dumb"}, False, False),
    ({"FORCE_COLOR": "1"}, True, True),
    ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
    ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
]


def is_coloured(written: str) -> bool:
    return re.search(r"\x1b\[(?:\d+;)*[39][0-7]m", written) is not None


@pytest.mark.parametrize(("environment", "on_a_terminal", "in_a_pipe"), COLOURS, ids=str)
def test_colours_are_as_the_environment_says(
    here: Project, environment: dict[str, str], on_a_terminal: bool, in_a_pipe: bool
) -> None:
    variables = {**os.environ, "TERM": "xterm", **environment}
    command = [COMMAND, "--config", str(here.directory), "config", "check"]
    _, written = on_terminal(command, variables)
    assert is_coloured(written) == on_a_terminal, written
    piped = commands.run(command, env=variables, capture_output=True, text=True)
    assert is_coloured(piped.stdout) == in_a_pipe


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=str)
def test_errors_keep_to_it_too(here: Project, environment: dict[str, str], coloured: bool) -> None:
    command = [COMMAND, "--config", str(here.directory), "run", "--customer", "nobody"]
    code, written = on_terminal(command, {**os.environ, "TERM": "xterm", **environment})
    assert code == 2
    assert is_coloured(written) == coloured


def test_a_dumb_terminal_is_not_painted_on(here: Project) -> None:
    command = [COMMAND, "--config", str(here.directory), "status", "--watch"]
    code, written = on_terminal(command, {**os.environ, "TERM": "dumb"})
    assert code == 2
    assert "--watch requires a terminal" in written


def test_lines_are_folded_on_a_narrow_terminal(here: Project) -> None:
    for arguments in (["config", "check"], ["status"], ["run", "--all"], ["run", "--customer", "nobody"]):
        command = [COMMAND, "--config", str(here.directory), *arguments]
        _, written = on_terminal(command, {**os.environ, "TERM": "xterm"}, columns=40)
        shown = screen(written)
        assert max(map(len, shown)) <= 40, shown
        assert "acme" in "".join(shown)


def test_where_nobody_is_active_run_says_so(here: Project) -> None:
    for arguments in (["run", "--all"], ["run", "--all", "--dry-run"]):
        answer = here.run(*arguments)
        assert answer.code == 0
        assert "pending: acme" in answer.out
        assert "no customer is active: nothing is delivered" in answer.out
        assert "onboard --confirm" in answer.out
    assert here.run("run", "--all", "--json").json == {"customers": []}
    (here.directory / "customers" / "acme.yaml").unlink()
    assert "no customers are configured" in here.run("run", "--all").out


# --- The progress line ----------------------------------------------------------------------------------


def files_told(written: str) -> list[tuple[int, int]]:
    return [(int(done), int(total)) for done, total in re.findall(r"(\d+)/(\d+) files", written)]


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "how",
    [[], ["--json"], ["--repair"], pytest.param(["--deep"], marks=pytest.mark.slow)],
    ids=str,
)
def test_the_progress_of_a_verification_counts_files_and_leaves_nothing(
    project: Callable[..., Project], acme: CustomerSetup, how: list[str]
) -> None:
    here = project(acme)
    for number in range(20):
        here.write(f"2026/11/22/{number:02}.csv", b"words")
    here.write("2026/11/22/_SUCCESS", b"")
    environment: dict[str, str] = {**os.environ, **here.environment, "TERM": "xterm"}
    command = [COMMAND, "--config", str(here.directory)]
    code, written = on_terminal([*command, "run", "--customer", "acme"], environment)
    assert code == 0
    assert files_told(written)[-1] == (20, 20)
    assert not files_told("\n".join(screen(written)))
    for number in (3, 14):
        bucket.delete_object(acme, f"xmode/us-daily/2026/11/22/{number:02}.csv")
    code, written = on_terminal([*command, "verify", "--customer", "acme", *how], environment)
    assert code == (0 if how == ["--repair"] else 4), written
    told = files_told(written)
    assert told[-1] == ((42, 42) if how == ["--repair"] else (20, 20))
    assert all(done <= total for done, total in told)
    shown = screen(written)
    assert not files_told("\n".join(shown))
    if how == ["--json"]:
        assert json.loads("".join(shown))["outcome"] == "differs"
        return
    assert [line for line in shown if "proven" in line or "differs" in line]
    assert sum(line.startswith("missing ") for line in shown) == (0 if how == ["--repair"] else 2)


@pytest.mark.sandbox
def test_a_dumb_terminal_gets_no_bar(project: Callable[..., Any], acme: CustomerSetup) -> None:
    here = project(acme)
    here.write("2026/11/22/a.csv", b"words")
    here.write("2026/11/22/_SUCCESS", b"")
    environment = {**os.environ, **here.environment, "TERM": "dumb"}
    command = [COMMAND, "--config", str(here.directory), "run", "--customer", "acme"]
    code, written = on_terminal(command, environment)
    assert code == 0
    assert "\x1b" not in written
    assert "1 file sent" in written
