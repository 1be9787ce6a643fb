"""One process of a crowd that writes in one ledger: ``python crowd.py URL SECONDS``. It does in seconds what
workers do in days: turns that begin and end, deliveries, receipts, parts, leases that are renewed; some of
each, however slow the machine. Prints what it did as JSON."""

import json
import random
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from itertools import islice
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from xmode_transfer.ledger import open_ledger
from xmode_transfer.ledger.database import this_process
from xmode_transfer.model.errors import LeaseLost
from xmode_transfer.model.jobs import JobRequest, JobResult
from xmode_transfer.model.process import WorkerRecord
from xmode_transfer.model.records import (
    Capabilities,
    Checksum,
    Delivery,
    Lease,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    Status,
    UploadedPart,
    UploadStatus,
)
from xmode_transfer.telemetry import SystemClock

if TYPE_CHECKING:
    from concurrent.futures import Future

CUSTOMERS = [f"customer-{number}" for number in range(6)]
OBJECTS, UPLOAD_OBJECTS, PARTS = 16, 4, 3
TTL_SECONDS = 45.0
CLOCK = SystemClock()


class Process:
    def __init__(self, url: str, seconds: float) -> None:
        self.holder = this_process()
        self.ledger = open_ledger(url, CLOCK, holder=self.holder)
        self.queue = self.ledger.queue
        self.did: Counter[str] = Counter()
        self.errors: list[str] = []
        self.leases: set[Lease] = set()
        self.lock = threading.Lock()
        self.until = time.monotonic() + seconds

    def live(self) -> dict[str, Any]:
        self.queue.register(dict.fromkeys(CUSTOMERS, 1))
        what = [self.turn, self.turn, self.turn, self.turn, self.renew, self.attend]
        threads = [threading.Thread(target=self.repeat, args=(one,)) for one in what]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ledger.close()
        return {"did": self.did, "errors": self.errors}

    def repeat(self, what: Any) -> None:
        chance = random.Random(token_hex(8))
        while not self.errors and not self.is_over():
            try:
                what(chance)
            except Exception:  # noqa: BLE001 - it is told, and the test fails
                self.errors.append(traceback.format_exc())

    def is_over(self) -> bool:
        return time.monotonic() > self.until and self.did.keys() >= {"turns", "uploads", "renewed"}

    def note(self, what: str) -> None:
        with self.lock:
            self.did[what] += 1

    @contextmanager
    def kept(self, lease: Lease) -> Any:
        with self.lock:
            self.leases.add(lease)
        try:
            yield
        finally:
            with self.lock:
                self.leases.discard(lease)

    # --- What each thread repeats

    def renew(self, _: random.Random) -> None:
        with self.lock:
            leases = list(self.leases)
        for lease in leases:
            with suppress(LeaseLost):  # given back meanwhile
                self.ledger.leases.renew(lease, TTL_SECONDS)
                self.note("renewed")
        time.sleep(0.01)

    def attend(self, chance: random.Random) -> None:
        now = CLOCK.now()
        self.queue.beat(WorkerRecord(self.holder, now, now, 2, 1, 0))
        self.queue.reap()
        self.queue.enqueue(map(JobRequest, chance.sample(CUSTOMERS, 2)))
        time.sleep(0.02)

    def turn(self, chance: random.Random) -> None:
        job = self.queue.next(self.holder, TTL_SECONDS, suspended=False)
        if job is None:
            time.sleep(0.01)
            return
        customer = job.customer
        with self.kept(job.lease):
            period = f"{time.time_ns()}"
            self.queue.delivers(job, "feed", period)
            lease = self.ledger.leases.claim(f"delivery/{customer}/feed/{period}", self.holder, TTL_SECONDS)
            with self.kept(lease):
                self.deliver(chance, customer, period, lease)
            self.ledger.leases.release(lease)
        self.queue.done(job, JobResult(again=True, looked=True))
        self.note("turns")

    def deliver(self, chance: random.Random, customer: str, period: str, lease: Lease) -> None:
        now = CLOCK.now()
        delivery = Delivery(token_hex(8), customer, "feed", period, 1, Status.RUNNING, now, now)
        self.ledger.deliveries.create(lease, delivery)
        run = Run(delivery.id, delivery.id, now, self.holder, "crowd")
        self.ledger.runs.start(lease, run)
        self.ledger.objects.plan(
            lease, delivery.id, [PlannedObject(f"{n:03}", f"k/{n:03}", 10, 1, "i") for n in range(OBJECTS)]
        )
        interrupted = chance.random() < 0.2
        while pending := list(islice(self.ledger.objects.pending(delivery.id), UPLOAD_OBJECTS)):
            self.send(delivery, lease, pending)
            if interrupted:
                break
        left = sum(1 for _ in self.ledger.objects.pending(delivery.id))
        assert left == (OBJECTS - UPLOAD_OBJECTS if interrupted else 0), left
        status = Status.PLANNED if interrupted else Status.DELIVERED
        self.ledger.deliveries.update(
            lease, Delivery(delivery.id, customer, "feed", period, 1, status, now, now)
        )
        self.ledger.runs.finish(lease, run)

    def send(self, delivery: Delivery, lease: Lease, pending: list[PlannedObject]) -> None:
        now, upload_id = CLOCK.now(), token_hex(8)
        name = pending[-1].name
        self.ledger.uploads.open(
            lease,
            MultipartUpload(
                upload_id, delivery.id, delivery.customer, name, "k", 10, 1, "i", 5, "crc32", now
            ),
        )
        proof = Checksum("crc32", "AAAAAA==")
        recorded: list[Future[None]] = [
            self.ledger.uploads.record_part(lease, upload_id, UploadedPart(number, 5, '"e"', "AAAAAA=="))
            for number in range(1, PARTS + 1)
        ]
        recorded += [
            self.ledger.objects.record_receipt(
                lease, delivery.id, Receipt(planned.name, planned.key, 10, proof, '"e"', now)
            )
            for planned in pending
        ]
        self.ledger.checks.learn(delivery.customer, Capabilities(multipart=True, learned_at=now))
        for future in recorded:
            future.result()
        self.ledger.uploads.close(lease, upload_id, UploadStatus.COMPLETED)
        self.note("uploads")


if __name__ == "__main__":
    json.dump(Process(sys.argv[1], float(sys.argv[2])).live(), sys.stdout)
