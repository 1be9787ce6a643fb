"""The installed command against an endpoint that is no S3: its memory stays bounded, it ends with a reason,
and one signal is enough to stop it, whatever it waits for."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import commands, hostile
from tests.commands import COMMAND
from tests.hostile import Mode, serving

ENOUGH_BYTES = 2_000_000_000
"""A process that holds what it reads has far too much by then."""
COMMANDS = {
    "run": ["run", "--customer", "acme"],
    "list": ["list", "--customer", "acme"],
    "verify": ["verify", "--customer", "acme"],
    "check-access": ["check-access", "--customer", "acme"],
}


@dataclass(slots=True)
class Started:
    """A command under way; its log goes into a file."""

    process: subprocess.Popen[bytes]
    log: Path
    peak_bytes: int = 0

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether it came true while the command was at work."""
        end = time.monotonic() + seconds
        while not condition():
            if self.process.returncode is not None or time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    @property
    def told(self) -> str:
        return self.log.read_text()[-3000:]

    def has_ended(self) -> bool:
        """Looks at its memory too: what the system says once it is gone counts the tests' own memory, which
        Linux takes over into a process that they start."""
        status = Path(f"/proc/{self.process.pid}/status")
        if self.process.returncode is None and status.exists():
            peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            self.peak_bytes = int(peak[1]) * 1024 if peak else self.peak_bytes
        return self.process.poll() is not None

    def ended(self, seconds: float) -> int:
        """The exit code; fails when it has not ended by then."""
        self.until(self.has_ended, seconds)
        assert self.has_ended(), f"it did not end within {seconds} s: {self.told}"
        return int(self.process.returncode)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts a command: ``start("list", url, engine="fast")``. Two files wait to be delivered."""
    started: list[Started] = []
    day = tmp_path / "exports" / "us-daily" / "2026" / "11" / "28"
    for directory in (day, tmp_path / "feeds", tmp_path / "customers"):
        directory.mkdir(parents=True)
    for name in ("a.csv", "b.csv", "_SUCCESS"):
        (day / name).write_text("x" * 1000)
    (tmp_path / "feeds" / "us-daily.yaml").write_text(
        'source: exports/us-daily\nperiod: day\npartition: "%Y/%m/%d"\ncomplete: {marker: _SUCCESS}\n'
    )
    (tmp_path / "customers" / "acme.yaml").write_text(
        "company: Acme Corp\nexternal_id: AcmeCorp\n"
        f"role_arn: arn:aws:iam::{hostile.ACCOUNT}:role/XMode\nfeeds: [us-daily]\n"
        "destination: {bucket: acme-data, prefix: xmode/, region: us-east-1, addressing: path}\n"
    )

    def make(name: str, url: str, engine: str) -> Started:
        (tmp_path / "service.yaml").write_text(f"engine: {engine}\nledger: sqlite:///var/ledger.db\n")
        arguments = [*COMMANDS[name], *(["--period", "2026-11-28"] if name == "run" else [])]
        log = tmp_path / "log"
        with log.open("wb") as stderr:
            process = commands.Started(
                [COMMAND, "--config", str(tmp_path), *arguments],
                env={
                    **os.environ,
                    "AWS_ENDPOINT_URL": url,
                    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
                    "AWS_SECRET_ACCESS_KEY": "s" * 40,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        started.append(Started(process, log))
        return started[-1]

    yield make
    for one in started:
        if not one.has_ended():
            one.process.kill()
            one.process.wait()


def ledger_is_sound(directory: Path) -> bool:
    done = commands.run(
        [COMMAND, "--config", str(directory), "ledger", "check"], capture_output=True, check=False, timeout=60
    )
    return done.returncode == 0


ENDLESS: list[tuple[Mode, str, str]] = [
    (hostile.endless_list, "list", "portable"),
    (hostile.endless_error, "list", "portable"),
    (hostile.announced_error, "run", "portable"),
    (hostile.announced_error, "run", "fast"),
    (hostile.endless_line, "run", "fast"),
    (hostile.endless_headers, "list", "portable"),
    (hostile.for_ever_continue, "list", "portable"),
    (hostile.endless_error, "check-access", "portable"),
]


@pytest.mark.parametrize(
    ("mode", "command", "engine"), ENDLESS, ids=[f"{m.__name__}-{c}-{e}" for m, c, e in ENDLESS]
)
def test_an_answer_without_end_fills_no_memory(
    start: Callable[..., Started], tmp_path: Path, mode: Mode, command: str, engine: str
) -> None:
    with serving(mode) as server:
        begun = start(command, server.url, engine)
        assert begun.until(server.asked.is_set, 180), begun.told
        again = 4 if engine == "fast" else 2  # it asks for two files at once

        def has_read_enough() -> bool:
            return begun.has_ended() or server.sent_bytes > ENOUGH_BYTES or server.met >= again

        begun.until(has_read_enough, 15 if engine == "fast" else 5)
        codes = {3, 4, 130}
        if not begun.has_ended():  # a process that still reads is asked to stop
            begun.process.send_signal(signal.SIGINT)
            codes.add(-signal.SIGINT)  # it has just ended, and Python no longer handles signals
        code = begun.ended(180)
    assert code in codes, begun.told
    assert 0 < begun.peak_bytes < 1_200_000_000
    assert ledger_is_sound(tmp_path)


@pytest.mark.parametrize("engine", ["portable", "fast"])
@pytest.mark.parametrize("mode", [hostile.laughing_error, hostile.redirect], ids=lambda mode: mode.__name__)
def test_a_strange_answer_ends_with_a_reason(start: Callable[..., Started], mode: Mode, engine: str) -> None:
    with serving(mode) as server:
        begun = start("run", server.url, engine)
        assert begun.ended(240) in (1, 3, 4), begun.told
        assert len(server.requests) < 100
    assert 0 < begun.peak_bytes < 600_000_000
    assert "Traceback" not in begun.told


WAITS: list[tuple[str, Mode, str, str]] = [
    ("bucket", hostile.silent, "run", "portable"),
    ("bucket", hostile.silent, "run", "fast"),
    ("bucket", hostile.silent, "check-access", "portable"),
    ("bucket", hostile.trickled_body, "list", "portable"),
    ("bucket", hostile.trickled_body, "run", "fast"),
    ("bucket", hostile.trickled_headers, "list", "fast"),
    ("bucket", hostile.busy, "list", "portable"),
    ("bucket", hostile.endless_list, "list", "portable"),
    ("STS", hostile.silent, "verify", "portable"),
    ("STS", hostile.trickled_body, "check-access", "portable"),
]


@pytest.mark.parametrize(
    ("who", "mode", "command", "engine"), WAITS, ids=[f"{w}-{m.__name__}-{c}-{e}" for w, m, c, e in WAITS]
)
def test_the_first_signal_ends_any_wait(
    start: Callable[..., Started], tmp_path: Path, who: str, mode: Mode, command: str, engine: str
) -> None:
    with serving(mode, sts_too=who == "STS") as server:
        begun = start(command, server.url, engine)
        assert begun.until(server.asked.is_set, 180), begun.told
        begun.process.send_signal(signal.SIGTERM if engine == "fast" else signal.SIGINT)
        assert begun.ended(90) == 130, begun.told
    assert ledger_is_sound(tmp_path)


@pytest.mark.parametrize("engine", ["portable", "fast"])
def test_the_first_signal_ends_the_wait_for_a_connection(
    start: Callable[..., Started], tmp_path: Path, engine: str
) -> None:
    with hostile.deaf() as url:
        begun = start("run", url, engine)
        assert begun.until(lambda: "engine.chosen" in begun.told, 180), begun.told
        begun.process.send_signal(signal.SIGINT)
        assert begun.ended(90) == 130, begun.told
    assert ledger_is_sound(tmp_path)
