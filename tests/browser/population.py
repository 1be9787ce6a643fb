"""Customers by the thousand, in a configuration and a ledger: healthy ones, and every kind of trouble.

The rows go into the tables directly: through the port, a year of deliveries would take minutes.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy

from tests.fakes.clock import MemoryClock
from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.alerting.watch import Watch
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.config import Configuration, Customer, Feed, Problem, Service
from xmode_transfer.ledger import open_ledger, tables
from xmode_transfer.model.findings import AccessReport, passed
from xmode_transfer.model.health import SourceScan, Waiting
from xmode_transfer.model.jobs import JobState, QueueEntry
from xmode_transfer.model.process import DaemonRecord

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
TODAY = NOW.replace(hour=0)
DAYS = 21
FEW_DAYS = 4  # of those who have no name
FEEDS = ("us-daily", "eu-daily", "prices")
FEED_OBJECTS = {
    "us-daily": Feed(name="us-daily", source="/data/us-daily", period="day", partition="%Y/%m/%d"),
    "eu-daily": Feed(name="eu-daily", source="/data/eu-daily", period="day", partition="%Y/%m/%d"),
    "prices": Feed(name="prices", source="/data/prices", period="day", partition="dt=%Y-%m-%d"),
    "ticks": Feed(name="ticks", source="/data/ticks", period="hour", partition="%Y/%m/%d/%H"),
    "weekly": Feed(name="weekly", source="/data/weekly", period="week", partition="%G/%V"),
    "monthly": Feed(name="monthly", source="/data/monthly", period="month", partition="%Y/%m"),
    "drops": Feed(name="drops", source="/data/drops", period="none"),
}
HOSTILE = '<script>alert("x")</script> & \'Söhne\' "GmbH"'
RIGHT_TO_LEFT = "شركة البيانات"
COMPANIES = {
    "acme": "Acme Corp",
    "globex": "Globex",
    "initech": "Initech",
    "hostile": HOSTILE,
    "shirka": RIGHT_TO_LEFT,
}


def a_customer(name: str, number: int, **changes: Any) -> Customer:
    values: dict[str, Any] = {
        "name": name,
        "company": COMPANIES.get(name, f"{name.capitalize()} Holdings"),
        "external_id": f"{name}Data",
        "role_arn": f"arn:aws:iam::{number:012}:role/XMode",
        "destination": {"bucket": f"{name}-data", "prefix": "xmode/", "region": "us-east-1"},
        "feeds": FEEDS,
    }
    return Customer(**{**values, **changes})


def configuration(count: int) -> Configuration:
    """The named ones first: acme has a feed of each kind, old is retired, soon is pending."""
    named = [
        a_customer(
            "acme",
            1,
            feeds=("us-daily", "ticks", "weekly", "monthly", "drops"),
            schedule={"cron": "30 6 * * *", "timezone": "America/New_York"},
        ),
        *(
            a_customer(name, 10 + number)
            for number, name in enumerate(("globex", "initech", "hostile", "shirka"))
        ),
        a_customer("old", 20, state="retired"),
        a_customer("soon", 21, state="pending"),
    ]
    rest = [a_customer(f"customer-{number:04}", 1000 + number) for number in range(count - len(named) - 1)]
    problem = Problem(
        "customers/umbrella.yaml", 17, 3, "destination.prefx", "unknown key (did you mean prefix?)"
    )
    customers = {item.name: item for item in (*named, *rest)}
    return Configuration(Service(), FEED_OBJECTS, customers, {"umbrella": (problem,)}, (problem,))


class Ledgerful:
    """Rows, until they are written."""

    def __init__(self) -> None:
        names = ("periods", "deliveries", "runs", "objects", "receipts")
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.looks: list[SourceScan] = []

    def deliver(
        self,
        customer: str,
        feed: str,
        period: str,
        at: datetime,
        *,
        revision: int = 1,
        objects: int = 60,
        **failure: Any,
    ) -> str:
        """One delivery with its run; ``failure`` is what stops it: status, cause, responsible, message..."""
        identity = hashlib.sha256(f"{customer}/{feed}/{period}/{revision}".encode()).hexdigest()[:32]
        status = failure.pop("status", "delivered")
        done = status == "delivered"
        if revision == 1:
            self.rows["periods"].append(
                {
                    "id": len(self.rows["periods"]) + 1,
                    "customer": customer,
                    "feed": feed,
                    "period": period,
                }
            )
        number = len(self.rows["periods"])
        told = {
            f"failure_{name}": failure.get(name)
            for name in ("cause", "responsible", "message", "hint", "retryable", "request_id")
        }
        began, ended = at - timedelta(seconds=12), at
        self.rows["deliveries"].append(
            {
                "period_id": number,
                "revision": revision,
                "id": identity,
                "status": status,
                "created_at": began,
                "updated_at": ended,
                "marker": "",
                "object_count": objects,
                "total_bytes": objects * 1_747_626,
                "manifest_key": f"xmode/{feed}/_manifests/{period}/{revision:06}.json" if done else None,
                "manifest_checksum": None,
                "delivered_at": ended if done else None,
                **told,
                "attempts": 1 if done else 3,
                "next_attempt_at": None if done else at + timedelta(hours=1),
                "missing_count": 0,
            }
        )
        seconds = 2 + int(identity[:2], 16) / 16
        self.rows["runs"].append(
            {
                "id": f"run-{identity}",
                "delivery_id": identity,
                "started_at": began,
                "holder": "host/boot/1/1",
                "engine": "fast",
                "finished_at": ended,
                "outcome": status,
                "uploaded": objects if done else 0,
                "skipped": 0,
                "failed": 0 if done else 1,
                "bytes": objects * 1_747_626 if done else 0,
                "seconds": seconds,
                **told,
            }
        )
        return identity

    def hold(self, objects: int, *, names: tuple[str, ...] = (), received: int | None = None) -> None:
        """Objects and receipts of the delivery that came last."""
        delivery = self.rows["deliveries"][-1]
        place = {"period_id": delivery["period_id"], "revision": delivery["revision"]}
        for number, name in enumerate((*names, *(f"2026/11/23/part-{n:07}.parquet" for n in range(objects)))):
            key = f"xmode/us-daily/{name}"
            self.rows["objects"].append(
                {
                    **place,
                    "name": name,
                    "key": key,
                    "size": 1_747_626,
                    "modified_ns": 17,
                    "identity": "i",
                    "carried": number == 3,
                }
            )
            if received is None or number < received:
                self.rows["receipts"].append(
                    {
                        **place,
                        "name": name,
                        "key": key,
                        "size": 1_747_626,
                        "algorithm": "crc64nvme",
                        "checksum": "rosUhgp5mIg=",
                        "etag": '"0cc175b9c0f1b6a831c399e269772661"',
                        "delivered_at": delivery["updated_at"],
                        "version_id": "3HL4kqtJvjVBH40Nrjfkd",
                        "sha256": None,
                    }
                )
        delivery["object_count"] = objects + len(names)

    def write(self, path: Path) -> None:
        engine = sqlalchemy.create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            for name, rows in self.rows.items():
                if rows:
                    connection.execute(sqlalchemy.insert(getattr(tables, name)), rows)
        engine.dispose()


REFUSED = {
    "status": "blocked",
    "cause": "role_refused",
    "responsible": "customer",
    "retryable": False,
    "request_id": "8f6b3c1e-52a7-4c0e-9f6e-0d0c3c0d6a11",
    "message": "AWS refuses to let us assume arn:aws:iam::000000000011:role/XMode under its external ID",
    "hint": "send the customer the trust policy that `xmode-transfer check-access --customer initech` prints",
}
FAILED = {
    "status": "failed",
    "cause": "unavailable",
    "responsible": "aws",
    "retryable": True,
    "message": "S3 did not answer in time",
    "hint": "nothing: the next run goes on",
    "request_id": None,
}


def populate(path: Path, count: int, objects: int = 250) -> None:
    """A ledger of so many customers; acme's newest daily delivery has so many objects."""
    clock = MemoryClock(NOW)
    ledger = open_ledger(f"sqlite:///{path}", clock)
    made = Ledgerful()
    for name, customer in configuration(count).customers.items():
        for feed in customer.feeds:
            if customer.state != "pending":
                _one(made, name, feed, objects)
    made.write(path)
    with ledger._database.writing() as connection:
        values = [tables.SCAN.values(look.after(None)) for look in made.looks]
        connection.execute(tables.scans.insert(), values)
    facts = SetupValues("InitechData", "arn:aws:iam::000000000011:role/XMode", "initech-data", "xmode/")
    ledger.checks.record(
        AccessReport(
            "initech",
            NOW - timedelta(hours=4),
            (
                passed("identity", "we are arn:aws:iam::366810793500:user/xmode-data-transfer"),
                finding(
                    Cause.ROLE_REFUSED,
                    "assume",
                    facts,
                    request_id="8f6b3c1e",
                    said="is not authorized to perform: sts:AssumeRole",
                ),
                finding(Cause.VERSIONED_BUCKET, "versioning", facts),
            ),
            (),
            1.4,
        )
    )
    ledger.checks.record(
        AccessReport(
            "acme", NOW - timedelta(hours=4), (passed("put", "an object with our ACL is taken"),), (), 2.2
        )
    )
    _alert(path, configuration(count))
    ledger.close()


def _alert(path: Path, configured: Configuration) -> None:
    """What the watch finds and tells in the half hour before, on a channel that takes everything; the
    unreadable file is seen last."""
    clock = MemoryClock(NOW - timedelta(minutes=30))
    ledger = open_ledger(f"sqlite:///{path}", clock)
    watch = Watch(ledger, clock, "host/boot/1/1", lambda _, message: f"took {message.event}", lambda _: None)
    pager = Service(alerts=[{"name": "on-call", "webhook": "env:PAGER"}])
    configured = replace(configured, service=pager)
    in_order = replace(configured, broken={}, problems=())
    for minutes, seen in ((0, in_order), (10, in_order), (19, configured)):
        clock.set(NOW - timedelta(minutes=30 - minutes))
        watch.run_once(seen)
    ledger.close()


def _one(made: Ledgerful, customer: str, feed: str, objects: int) -> None:
    look = SourceScan(customer, feed, NOW - timedelta(minutes=1), NOW - timedelta(days=DAYS - 1))
    if feed == "ticks":
        for hours in range(150, 2, -1):
            at = NOW - timedelta(hours=hours)
            made.deliver(
                customer,
                feed,
                f"{at:%Y-%m-%dT%H}",
                at + timedelta(hours=1, minutes=20 if hours % 37 else 300),
                objects=4,
            )
    elif feed in ("weekly", "monthly"):
        for back in range(12, 0, -1):
            at = NOW - timedelta(days=back * (7 if feed == "weekly" else 30))
            made.deliver(
                customer,
                feed,
                f"{at:%G-W%V}" if feed == "weekly" else f"{at:%Y-%m}",
                min(at + timedelta(days=8), NOW - timedelta(hours=2)),
                objects=3,
            )
    elif feed == "drops":
        for revision in range(1, 19):
            made.deliver(
                customer,
                feed,
                "none",
                NOW - timedelta(days=20 - revision),
                revision=revision,
                objects=revision % 5 + 1,
            )
    else:
        _days(made, customer, feed)
        if (customer, feed) == ("acme", "us-daily"):
            made.hold(
                objects,
                names=(
                    "2026/11/23/<img src=x onerror=alert(1)>.csv",
                    "2026/11/23/\u202eexe.csv",
                    "2026/11/23/مرحبا.csv",
                ),
                received=max(objects - 20, 3),
            )
        if customer == "customer-0003":
            look = replace(look, due=(f"{TODAY - timedelta(days=1):%Y-%m-%d}",), due_count=1)
        if customer == "globex" and feed == "prices":
            look = replace(look, waiting=(Waiting("2026-11-22", "no _SUCCESS yet"),), waiting_count=1)
    made.looks.append(look)


def _days(made: Ledgerful, customer: str, feed: str) -> None:
    for back in range(DAYS if customer in COMPANIES else FEW_DAYS, 0, -1):
        day = TODAY - timedelta(days=back)
        label, at = f"{day:%Y-%m-%d}", day + timedelta(days=1, hours=6, minutes=31)
        if customer == "initech" and back <= 3:
            made.deliver(customer, feed, label, at, **REFUSED)
        elif customer == "customer-0007" and back == 1:
            made.deliver(customer, feed, label, at, **FAILED)
        elif customer == "globex" and feed == "prices" and back <= 2:
            continue  # the source has nothing
        elif customer == "customer-0003" and back == 1:
            continue  # complete, and waits
        else:
            late = timedelta(days=2) if back == 9 and customer in ("acme", "globex") else timedelta()
            made.deliver(customer, feed, label, at + late)
            if back == 5 and customer == "acme":
                made.deliver(customer, feed, label, at + timedelta(days=1), revision=2)


class OneDaemon:
    """A daemon in a fixed state: one customer at work, two in the queue, the others at rest."""

    def __init__(self, names: Mapping[str, Customer], now: datetime = NOW) -> None:
        self._turns = list(_turns(sorted(names), now))
        self._now = now

    def jobs(self) -> list[QueueEntry]:
        return self._turns

    def status(self) -> DaemonRecord:
        started_at = self._now - timedelta(hours=31)
        return DaemonRecord("host/boot/1/2", started_at, self._now, 60, 16, 1, started_at)


def _turns(names: list[str], now: datetime) -> Iterator[QueueEntry]:
    for number, name in enumerate(names):
        if name == "acme":
            yield QueueEntry(
                name, JobState.RUNNING, now - timedelta(minutes=2), None, "us-daily", "2026-11-23"
            )
        elif name == "initech":
            yield QueueEntry(
                name,
                JobState.SUSPENDED,
                now - timedelta(hours=3),
                now + timedelta(minutes=48),
                "us-daily",
                "2026-11-21",
                "the role is refused",
            )
        elif name in ("customer-0003", "customer-0007"):
            yield QueueEntry(name, JobState.QUEUED, now - timedelta(seconds=50 + number))
        else:
            yield QueueEntry(
                name, JobState.RESTING, now - timedelta(hours=1), now + timedelta(minutes=3 + number % 240)
            )
