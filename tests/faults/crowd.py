"""One process of a crowd that writes in one ledger: ``python crowd.py URL SECONDS``. It does in seconds what
workers do in days: turns that begin and end, divided deliveries that all help with, receipts, parts, leases
that are renewed. Prints what it did as JSON."""

import json
import random
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from xmode_transfer.adapters.clock import SystemClock
from xmode_transfer.adapters.ledger import open_ledger
from xmode_transfer.adapters.processes import this_process
from xmode_transfer.bootstrap.queue import LedgerQueue
from xmode_transfer.domain.errors import LeaseLost
from xmode_transfer.domain.fleet import FleetTurnEnd, WorkerRecord
from xmode_transfer.domain.records import (
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
from xmode_transfer.domain.sharing import Chunk, ChunkResult, Division, divide

if TYPE_CHECKING:
    from concurrent.futures import Future

CUSTOMERS = [f"customer-{number}" for number in range(6)]
OBJECTS, CHUNK_OBJECTS, PARTS = 48, 4, 3
TTL_SECONDS = 45.0
CLOCK = SystemClock()


class Process:
    def __init__(self, url: str, seconds: float) -> None:
        self.holder = this_process()
        self.ledger = open_ledger(url, CLOCK, holder=self.holder)
        self.fleet = self.ledger.fleet(LedgerQueue(), sweep_seconds=0.2)
        self.shares = self.ledger.shares(LedgerQueue())
        self.did: Counter[str] = Counter()
        self.errors: list[str] = []
        self.leases: set[Lease] = set()
        self.lock = threading.Lock()
        self.until = time.monotonic() + seconds

    def live(self) -> dict[str, Any]:
        self.fleet.seat(dict.fromkeys(CUSTOMERS, 1))
        what = [self.turn, self.turn, self.help, self.help, self.renew, self.attend]
        threads = [threading.Thread(target=self.repeat, args=(one,)) for one in what]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ledger.close()
        return {"did": self.did, "errors": self.errors}

    def repeat(self, what: Any) -> None:
        chance = random.Random(token_hex(8))
        while time.monotonic() < self.until and not self.errors:
            try:
                what(chance)
            except Exception:  # noqa: BLE001 - it is told, and the test fails
                self.errors.append(traceback.format_exc())

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
        self.fleet.beat(WorkerRecord(self.holder, now, now, 2, 1, 0))
        self.fleet.reap()
        for customer in chance.sample(CUSTOMERS, 2):
            self.fleet.call(customer)
        time.sleep(0.02)

    def turn(self, chance: random.Random) -> None:
        customer = chance.choice(CUSTOMERS)
        ticket = self.fleet.begin(customer, self.holder, TTL_SECONDS)
        if ticket is None:
            time.sleep(0.01)
            return
        with self.kept(ticket.lease):
            period = f"{time.time_ns()}"
            self.fleet.tell(ticket, "feed", period)
            lease = self.ledger.leases.claim(f"delivery/{customer}/feed/{period}", self.holder, TTL_SECONDS)
            with self.kept(lease):
                self.deliver(chance, customer, period, lease)
            self.ledger.leases.release(lease)
        self.fleet.end(ticket, FleetTurnEnd(again=True, looked=True))
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
        self.shares.withdraw(lease, delivery.id)
        division = Division(delivery.id, customer, lease, "fingerprint")
        ranges = list(divide(self.ledger.objects.pending(delivery.id), CHUNK_OBJECTS, 1 << 30))
        self.shares.divide(division, ranges, helpers=2)
        called_off = chance.random() < 0.2
        while True:
            chunk = self.shares.take(division, self.holder, TTL_SECONDS)
            if chunk is not None:
                self.send(chance, chunk)
            state = self.shares.state(delivery.id)
            assert state is not None
            if called_off and state.open_count < len(ranges) // 2:
                self.shares.call_off(division)
                break
            if not state.open_count:
                break
            self.shares.ask(division, 1)
        state = self.shares.state(delivery.id)
        assert state is not None
        sent = sum(chunk.result.uploaded for chunk in state.chunks)
        self.shares.withdraw(lease, delivery.id)
        left = sum(1 for _ in self.ledger.objects.pending(delivery.id))
        assert called_off or (sent, left) == (OBJECTS, 0), (sent, left)
        status = Status.PLANNED if called_off else Status.DELIVERED
        self.ledger.deliveries.update(
            lease, Delivery(delivery.id, customer, "feed", period, 1, status, now, now)
        )
        self.ledger.runs.finish(lease, run)

    def help(self, chance: random.Random) -> None:
        running = self.ledger.deliveries.find(statuses=[Status.RUNNING], limit=20)
        chance.shuffle(running)
        for delivery in running:
            state = self.shares.state(delivery.id)
            if state is not None and not state.ends:
                with suppress(LeaseLost):
                    while (chunk := self.shares.take(state.division, self.holder, TTL_SECONDS)) is not None:
                        self.send(chance, chunk)
        time.sleep(0.01)

    def send(self, chance: random.Random, chunk: Chunk) -> None:
        try:
            with self.kept(chunk.lease):
                self._send(chance, chunk)
        except LeaseLost:
            self.note("fenced off")

    def _send(self, chance: random.Random, chunk: Chunk) -> None:
        delivery_id, names = chunk.division.delivery_id, chunk.names
        now = CLOCK.now()
        pending = list(self.ledger.objects.pending(delivery_id, after=names.after, last=names.last))
        if chance.random() < 0.1:
            self.shares.give_back(chunk, ChunkResult())
            return
        upload_id = token_hex(8)
        self.ledger.uploads.open(
            chunk.lease,
            MultipartUpload(
                upload_id, delivery_id, chunk.division.customer, names.last, "k", 10, 1, "i", 5, "crc32", now
            ),
        )
        proof = Checksum("crc32", "AAAAAA==")
        recorded: list[Future[None]] = [
            self.ledger.uploads.record_part(
                chunk.lease, upload_id, UploadedPart(number, 5, '"e"', "AAAAAA==")
            )
            for number in range(1, PARTS + 1)
        ]
        recorded += [
            self.ledger.objects.record_receipt(
                chunk.lease, delivery_id, Receipt(planned.name, planned.key, 10, proof, '"e"', now)
            )
            for planned in pending
        ]
        self.shares.tell(chunk, 10)
        self.ledger.checks.learn(chunk.division.customer, Capabilities(multipart=True, learned_at=now))
        for future in recorded:
            future.result()
        self.ledger.uploads.close(chunk.lease, upload_id, UploadStatus.COMPLETED)
        self.shares.finish(chunk, ChunkResult(uploaded=len(pending)))
        self.note("chunks")


if __name__ == "__main__":
    json.dump(Process(sys.argv[1], float(sys.argv[2])).live(), sys.stdout)
