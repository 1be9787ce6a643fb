"""The fast engine under load and under signals: limits that hold, a process that ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.sessions import Provider
from xmode_transfer.aws.s3_fast import engine
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import Unavailable
from xmode_transfer.telemetry import SystemClock


class Crowd:
    """Counts the requests that are inside at once, by bucket."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.inside: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.most_in_all = 0

    def __call__(self, asked: Any, reply: Any) -> Any:
        bucket = asked.path.split("/")[1]
        with self.lock:
            self.inside[bucket] = self.inside.get(bucket, 0) + 1
            self.most[bucket] = max(self.most.get(bucket, 0), self.inside[bucket])
            self.most_in_all = max(self.most_in_all, sum(self.inside.values()))
        time.sleep(self.seconds)
        with self.lock:
            self.inside[bucket] -= 1
        return reply


@pytest.fixture
def make_stores(
    stub: Any, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch, retry_rules: Callable[..., None]
) -> Iterator[Callable[..., FastStores]]:
    retry_rules(attempts=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    monkeypatch.setattr(engine, "FIRST_PAUSE_SECONDS", 0.01)
    made = []

    def make(**limits: Any) -> FastStores:
        made.append(FastStores(Limits(**limits), SystemClock()))
        return made[-1]

    yield make
    for stores in made:
        stores.close()


def put_of(number: int, size: int = 5) -> PutRequest:
    return PutRequest(f"xmode/{number}", "token-1", size, "text/plain")


def test_the_limits_hold_on_the_wire(
    make_stores: Any, stub: Any, reply: Any, customer_of: Callable[..., Customer], file_of: Any
) -> None:
    crowd = Crowd(0.2)
    stub.reply(lambda asked: crowd(asked, reply(200, headers={"ETag": '"e"'})))
    stores = make_stores(parallel_objects=6, parallel_objects_per_customer=4)
    opened = [
        stores.open(customer_of(name=name, destination={"bucket": f"{name}-data"}), Provider(), None)
        for name in ("acme", "globex")
    ]
    futures = [store.put(put_of(number), file_of(b"hello")) for number in range(40) for store in opened]
    for future in futures:
        future.result(120)
    assert 4 < crowd.most_in_all <= 6
    assert max(crowd.most.values()) <= 4


def test_slowdown_slows_this_customer_and_no_other(
    make_stores: Any, stub: Any, reply: Any, customer_of: Callable[..., Customer], file_of: Any
) -> None:
    crowd = Crowd(0.3)
    refusals = iter(range(20))
    slow_down = b"<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>"

    def answer(asked: Any) -> Any:
        refused = asked.path.startswith("/acme") and next(refusals, None) is not None
        return crowd(asked, reply(503, slow_down) if refused else reply(200, headers={"ETag": '"e"'}))

    stub.reply(answer)
    stores = make_stores(parallel_objects=32, parallel_objects_per_customer=8)
    acme, globex = (
        stores.open(customer_of(name=name, destination={"bucket": f"{name}-data"}), Provider(), None)
        for name in ("acme", "globex")
    )
    for future in [acme.put(put_of(number), file_of(b"hello")) for number in range(8)]:
        future.result(120)
    crowd.most.clear()
    later = [acme.put(put_of(number), file_of(b"hello")) for number in range(8, 16)]
    later += [globex.put(put_of(number), file_of(b"hello")) for number in range(24)]
    for future in later:
        future.result(120)
    # halved three times and more, and won back by one a round; 8 in flight is the limit of both
    assert crowd.most["acme-data"] <= 5 < crowd.most["globex-data"] <= 8


def test_what_takes_too_long_for_its_size_is_ended(
    make_stores: Any,
    stub: Any,
    reply: Any,
    customer_of: Callable[..., Customer],
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "deadline_seconds", lambda length: 2.0)
    monkeypatch.setattr(engine, "_WATCH_SECONDS", 0.1)
    monkeypatch.setattr(engine, "ATTEMPTS", 2)
    gate = threading.Event()

    def answer(asked: Any) -> Any:
        gate.wait(120)
        return reply(200)

    stub.reply(answer)
    future = make_stores().open(customer_of(), Provider(), None).put(put_of(1), file_of(b"hello"))
    with pytest.raises(Unavailable, match="no answer within"):
        future.result(120)
    gate.set()
    assert len(stub.asked) == 2


@pytest.mark.slow
def test_a_connection_on_which_nothing_moves_is_ended(
    make_stores: Any,
    stub: Any,
    reply: Any,
    customer_of: Callable[..., Customer],
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the CRT's own monitor, after half a minute, long before the deadline."""
    monkeypatch.setattr(engine, "ATTEMPTS", 1)
    gate = threading.Event()
    stub.reply(lambda asked: reply(200 if gate.wait(60) else 500))
    future = make_stores().open(customer_of(), Provider(), None).put(put_of(1), file_of(b"hello"))
    started = time.monotonic()
    with pytest.raises(Unavailable, match="throughput"):
        future.result(120)
    assert 20 < time.monotonic() - started < 45
    gate.set()


SCRIPT = """
import signal, sys, threading, time
from datetime import UTC, datetime
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.aws.s3_fast import FastStores
from xmode_transfer.config import Customer, Destination, Limits
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import PutRequest

class Provider:
    def get(self):
        return Credentials("ASIA", "secret", "token", datetime(2099, 1, 1, tzinfo=UTC))

class Body:
    size = 5
    def read_at(self, offset, length):
        return b"hello"
    def check_unchanged(self):
        pass

customer = Customer(
    name="acme", company="Acme", external_id="AcmeCorp", role_arn="arn:aws:iam::111122223333:role/X",
    destination=Destination(bucket="acme-data", region="us-east-1"), feeds=("f",),
)
stores = FastStores(Limits(), SystemClock())
store = stores.open(customer, Provider(), None)
futures = [store.put(PutRequest(f"k{n}", "t", 5, "x/y"), Body()) for n in range(40)]
print("sent", flush=True)
how = sys.argv[1]
if how == "finished":
    for future in futures:
        future.result(120)
    store.close()
    stores.close()
elif how == "interrupted":
    try:
        print("closing", flush=True)
        store.close()
    except KeyboardInterrupt:
        stores.close()
        print("interrupted", flush=True)
elif how == "unclosed":
    for future in futures:
        future.result(120)
"""


@pytest.mark.parametrize("how", ["finished", "interrupted", "unclosed"])
def test_a_process_ends_without_hanging(stub: Any, reply: Any, how: str) -> None:
    gate = threading.Event()
    if how != "interrupted":
        gate.set()

    def answer(asked: Any) -> Any:
        gate.wait(60)
        return reply(200, headers={"ETag": '"e"'})

    stub.reply(answer)
    environment = os.environ | {"AWS_ENDPOINT_URL_S3": stub.url}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if how == "interrupted":
            while not stub.asked:
                time.sleep(0.01)
            assert process.stdout is not None
            while process.stdout.readline() != "closing\n":
                pass
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        gate.set()
        process.kill()
    assert process.returncode == 0, err
    assert err == ""
    assert ("interrupted" in out) == (how == "interrupted")
