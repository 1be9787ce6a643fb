import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from xmode_transfer import telemetry
from xmode_transfer.model.errors import AccessDenied
from xmode_transfer.telemetry import Event

Log = Callable[..., io.StringIO]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_fields_in_the_order_in_which_people_look_for_them(log: Log) -> None:
    stream = log()
    before = datetime.now(UTC)  # noqa: TID251 - the log's own time is the machine's
    with telemetry.bind(customer="acme", feed="us-daily"), telemetry.bind(run_id="r1"):
        telemetry.log(Event.DELIVERY_STARTED, objects=2, name="é")
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "customer", "feed", "run_id", "objects", "name"]
    assert line["event"] == "delivery.started"
    assert line["name"] == "é"
    assert line["timestamp"].endswith("Z")
    assert abs((datetime.fromisoformat(line["timestamp"]) - before).total_seconds()) < 5


def test_what_is_bound_ends_with_its_block_and_the_line_wins(log: Log) -> None:
    stream = log()
    with telemetry.bind(customer="acme", step="outer"):
        with telemetry.bind(step="inner"):
            telemetry.log("run.started", customer="globex")
        with pytest.raises(KeyError), telemetry.bind(step="raised"):
            raise KeyError
        telemetry.log("run.started")
    telemetry.log("run.started")
    assert [(line.get("customer"), line.get("step")) for line in lines(stream)] == [
        ("globex", "inner"),
        ("acme", "outer"),
        (None, None),
    ]


def test_what_is_bound_stays_in_its_thread_unless_it_is_carried(log: Log) -> None:
    stream = log()
    with telemetry.bind(customer="acme"), ThreadPoolExecutor(1) as pool:
        pool.submit(telemetry.log, "run.started").result()
        pool.submit(telemetry.carry(telemetry.log), "run.started", objects=1).result()
        assert pool.submit(telemetry.carry(max), 1, 2).result() == 2
    assert [line.get("customer") for line in lines(stream)] == [None, "acme"]


def test_what_is_carried_may_be_called_by_many_at_once(log: Log) -> None:
    stream = log()
    together = threading.Barrier(3)

    def write(number: int) -> None:
        together.wait()
        telemetry.log("object.failed", number=number)
        together.wait()

    with telemetry.bind(customer="acme"):
        carried = telemetry.carry(write)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(carried, range(3)))
    assert sorted((line["customer"], line["number"]) for line in lines(stream)) == [
        ("acme", n) for n in range(3)
    ]


def test_threads_do_not_mix_what_they_have_bound(log: Log) -> None:
    stream = log()
    start = threading.Barrier(4)

    def work(customer: str) -> None:
        start.wait()
        with telemetry.bind(customer=customer):
            for number in range(25):
                telemetry.log("object.failed", name=f"{customer}-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["a", "b", "c", "d"]))
    written = lines(stream)
    assert len(written) == 100
    assert all(line["name"].split("-")[0] == line["customer"] for line in written)


def test_an_error_tells_itself_in_fields(log: Log) -> None:
    stream = log()
    error = AccessDenied("no", hint="ask", aws_code="AccessDenied", http_status=403, request_id="4442")
    telemetry.warn(Event.OBJECT_FAILED, **error.log_context())
    (line,) = lines(stream)
    assert line["level"] == "warning"
    assert (line["message"], line["cause"], line["responsible"], line["request_id"]) == (
        "no",
        "access_denied",
        "customer",
        "4442",
    )


def test_fields_that_would_hide_the_lines_own_are_renamed(log: Log) -> None:
    stream = log()
    telemetry.log("run.started", level="x", timestamp="y", logger="z", exception="e", message="stays")
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["message"]) == ("info", "run.started", "stays")
    assert (line["level_"], line["timestamp_"], line["logger_"], line["exception_"]) == ("x", "y", "z", "e")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("DEBUG", ["debug", "info", "warning", "error", "error"]),
        ("INFO", ["info", "warning", "error", "error"]),
        ("ERROR", ["error", "error"]),
    ],
)
def test_levels(log: Log, level: str, expected: list[str]) -> None:
    stream = log(level=level)
    for write in (telemetry.debug, telemetry.log, telemetry.warn, telemetry.error):
        write("run.started")
    try:
        raise KeyError("x")
    except KeyError:
        telemetry.exception("defect")
    assert [line["level"] for line in lines(stream)] == expected


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        telemetry.configure(io.StringIO(), level="LOUD")


def test_libraries_lines_take_the_same_form(log: Log) -> None:
    stream = log()
    with telemetry.bind(customer="acme"):
        logging.getLogger("apscheduler.scheduler").warning("Job %s was missed by %d s", "a", 3)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "customer", "logger"]
    assert line["event"] == "Job a was missed by 3 s"
    assert line["logger"] == "apscheduler.scheduler"


@pytest.mark.parametrize(
    "name", ["botocore", "botocore.auth", "urllib3.connectionpool", "s3transfer.tasks", "boto3"]
)
def test_what_shows_signed_requests_is_never_written(log: Log, name: str) -> None:
    stream = log(level="DEBUG")
    logger = logging.getLogger(name)
    logger.debug("StringToSign")
    before = logger.level
    logger.setLevel(logging.DEBUG)  # as boto3.set_stream_logger does
    logger.debug("StringToSign")
    logger.info("told")
    logger.setLevel(before)
    assert [line["event"] for line in lines(stream)] == ["told"]


def test_on_a_terminal_it_is_text_and_elsewhere_json(log: Log) -> None:
    terminal = log(json=None, terminal=True)
    telemetry.log("run.started", objects=3)
    assert "run.started" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
    pipe = log(json=None)
    telemetry.log("run.started", objects=3)
    assert lines(pipe)[0]["objects"] == 3
    text = log(json=False)
    telemetry.log("run.started", objects=3)
    assert "objects=3" in text.getvalue()
    assert "\x1b[" not in text.getvalue()


def test_our_own_keys_are_known_from_the_start(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours-and-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-ours")
    stream = log()
    telemetry.log("run.started", note="ours-and-secret token-of-ours")
    assert lines(stream)[0]["note"] == "*** ***"


def test_configuring_again_replaces_and_does_not_double(log: Log) -> None:
    first, second = log(), log()
    telemetry.log("run.started")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


@pytest.mark.parametrize("form", ["json", "text"])
def test_text_from_outside_cannot_forge_a_line_or_speak_to_the_terminal(log: Log, form: str) -> None:
    stream = log(json=form == "json")
    telemetry.warn("source.problem", name='a\n{"event": "run.finished"}', other="\x1b[2J\x9b31m\u202e\udcff")
    telemetry.warn("forged\nrun.finished\r\x1b[2J", **{"na\nme": 1})
    logging.getLogger("library").warning("forged\u2028run.finished %s", "\x1b]0;title\x07")
    assert len(stream.getvalue().splitlines()) == 3
    assert stream.getvalue().replace("\n", "").isprintable()


def test_a_line_that_cannot_be_written_ends_nothing(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    stream = log()
    stream.close()
    telemetry.log("run.started")
    assert capsys.readouterr().err == ""


def test_a_line_is_written_when_no_file_can_be_opened() -> None:
    """The formatter is imported with the first line; at the limit of open files that fails."""
    program = """
import os, resource, sys
from xmode_transfer import telemetry
telemetry.protect("planted-secret")
telemetry.configure(json=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    os.open("/dev/null", os.O_RDONLY)
except OSError:
    telemetry.exception("source.failed", note="planted-secret")
"""
    # coverage.py, too, could open no file
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.returncode == 0
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["event"], line["note"]) == ("source.failed", "***")
    assert "Too many open files" in line["exception"]


def test_starting_up_does_not_wait_for_the_formatter() -> None:
    program = """
import sys
from xmode_transfer import telemetry
telemetry.configure(json=True)
assert "structlog" not in sys.modules and "rich" not in sys.modules
telemetry.log("run.started")
assert "structlog" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)


def test_nothing_is_written_where_nobody_asked_for_a_log() -> None:
    program = "from xmode_transfer import telemetry; telemetry.log('run.started', note='x')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
