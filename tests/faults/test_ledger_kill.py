"""kill -9 at any moment, two processes at once: what was acknowledged is there, nothing is damaged."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import ledger_schema
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.ledger.database import this_process
from xmode_transfer.model.records import Checksum, Delivery, PlannedObject, Status
from xmode_transfer.telemetry import SystemClock

OBJECTS = 30_000  # more than can be acknowledged before the last kill

# What each child process begins with.
CHILD = """
import os, sys
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.ledger import open_ledger
from xmode_transfer.ledger.database import this_process
from xmode_transfer.model.records import Checksum, Delivery, PlannedObject, Receipt, Status

clock = SystemClock()
say = lambda word: os.write(1, (word + "\\n").encode())
def receipt(name):
    return Receipt(name, "key/" + name, 1, Checksum("crc32", "AAAAAQ=="), "etag of " + name, clock.now())
def delivery(period):
    now = clock.now()
    return Delivery("id " + period, "acme", "us-daily", period, 1, Status.RUNNING, now, now)
def plan(count):
    return (PlannedObject(f"{n:06}", f"key/{n:06}", 1, n, "inode") for n in range(count))
say("ready")
sys.stdin.readline()
ledger = open_ledger(sys.argv[1], clock)
"""

SENDING = """
lease = ledger.leases.claim("work", this_process(), 3600)
for item in ledger.objects.pending("id day"):
    ledger.objects.record_receipt(lease, "id day", receipt(item.name)).add_done_callback(
        lambda done, name=item.name: done.exception() or say(name)
    )
ledger.close()
"""

PLANNING = """
lease = ledger.leases.claim("work", this_process(), 3600)
say("planning")
ledger.objects.plan(lease, "id day", plan(int(sys.argv[2])))
say("planned")
ledger.close()
"""

SHARING = """
period = sys.argv[2]
token = "id " + period
for n in range(20):
    lease = ledger.leases.claim("work " + period, this_process(), 3600)
    ledger.deliveries.create(lease, delivery(period))
    ledger.objects.plan(lease, token, plan(n * 10 + 10))
    futures = [
        ledger.objects.record_receipt(lease, token, receipt(item.name))
        for item in ledger.objects.pending(token)
    ]
    [future.result() for future in futures]
    ledger.checks.learn("acme", ledger.checks.capabilities("acme"))
    ledger.leases.release(lease)
ledger.close()
say("done")
"""


@contextmanager
def child(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has imported everything and waits for a line to begin."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD + program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def kill_after(process: subprocess.Popen[bytes], first: bytes, seconds: float) -> list[str]:
    """Waits for the first word, then a while, then kills; answers all that was said."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    said = b""
    killing_at: float | None = None
    while killing_at is None or time.monotonic() < killing_at:
        readable, _, _ = select.select([output], [], [], 0.005)
        if readable:
            some = os.read(output, 65536)
            if not some:
                break
            said += some
        if killing_at is None and first in said:
            killing_at = time.monotonic() + seconds
    process.send_signal(signal.SIGKILL)
    said += process.communicate()[0]
    return said.decode().split()


def prepare(url: str, count: int) -> None:
    clock = SystemClock()
    ledger = open_ledger(url, clock)
    lease = ledger.leases.claim("work", this_process(), 3600)
    now = clock.now()
    ledger.deliveries.create(
        lease, Delivery("id day", "acme", "us-daily", "day", 1, Status.RUNNING, now, now)
    )
    ledger.objects.plan(
        lease, "id day", (PlannedObject(f"{n:06}", f"key/{n:06}", 1, n, "inode") for n in range(count))
    )
    ledger.leases.release(lease)
    ledger.close()


def claim_at_once(ledger: Ledger) -> None:
    """The dead process's lease would have lasted an hour."""
    ledger.leases.release(ledger.leases.claim("work", this_process(), 60))


def kill_while_sending(url: str, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    prepare(url, OBJECTS)
    acknowledged: set[str] = set()
    for _ in range(rounds):
        with child(SENDING, url) as process:
            begin(process)
            new = kill_after(process, b"0", dice.uniform(0, 0.12))
            assert new, "the process was killed before it had acknowledged anything"
            acknowledged.update(new)
        ledger = open_ledger(url, SystemClock())
        try:
            assert ledger_schema.damage(url) == ()
            claim_at_once(ledger)
            found = {
                item.name: receipt
                for item, receipt in ledger.objects.planned("id day")
                if receipt is not None
            }
            assert acknowledged <= found.keys()
            assert all(
                (receipt.key, receipt.etag, receipt.checksum)
                == (f"key/{name}", f"etag of {name}", Checksum("crc32", "AAAAAQ=="))
                for name, receipt in found.items()
            )
            assert len(found) + len(list(ledger.objects.pending("id day"))) == OBJECTS
        finally:
            ledger.close()


def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    kill_while_sending(f"sqlite:///{tmp_path}/ledger.db", rounds=3, seed=random.randrange(10**9))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_acknowledged_writes_survive_many_kills(tmp_path: Path) -> None:
    for seed in range(10):
        kill_while_sending(f"sqlite:///{tmp_path}/{seed}.db", rounds=6, seed=seed)


def test_a_plan_is_all_or_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    prepare(url, 0)
    dice = random.Random()
    planned = 0
    for count in (12_000, 16_000):
        with child(PLANNING, url, str(count)) as process:
            begin(process)
            said = kill_after(process, b"planning", dice.uniform(0, 0.3))
        ledger = open_ledger(url, SystemClock())
        try:
            assert ledger_schema.damage(url) == ()
            claim_at_once(ledger)
            found = len(list(ledger.objects.planned("id day")))
            assert found in ({count} if "planned" in said else {planned, count})
            planned = found
        finally:
            ledger.close()


def test_two_processes_create_a_ledger_and_write_at_once(tmp_path: Path) -> None:
    """They find no file: both make it, one migrates it, and neither loses a record or sees an error."""
    url = f"sqlite:///{tmp_path}/new/ledger.db"
    with child(SHARING, url, "day-1") as one, child(SHARING, url, "day-2") as two:
        for process in (one, two):
            begin(process)
        for process in (one, two):
            said, _ = process.communicate(timeout=300)
            assert (said, process.returncode) == (b"done\n", 0)
    ledger = open_ledger(url, SystemClock())
    try:
        assert ledger_schema.damage(url) == ()
        for period in ("day-1", "day-2"):
            names = [item.name for item, _ in ledger.objects.delivered("acme", "us-daily", period)]
            assert names == [f"{n:06}" for n in range(200)]
    finally:
        ledger.close()
