"""The fast engine by itself: every file below a directory, without plan, ledger and manifest."""

import gc
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Customer, Destination, Feed, Limits, Settled
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.transfer.large import part_size, split

LARGE_BYTES = 64 * 1024 * 1024


class Session:
    def get(self) -> Credentials:
        return Credentials("ASIA" + "B" * 16, "s" * 40, "t" * 400, datetime.now(UTC) + timedelta(hours=1))

    def invalidate(self, credentials: Credentials) -> None:
        pass


def main(directory: Path, bucket: str) -> None:
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # as bootstrap does
    clock = SystemClock()
    feed = Feed(name="set", source=str(directory), period=PeriodKind.NONE, complete=Settled(settle_seconds=0))
    customer = Customer(
        name="c0",
        company="C",
        external_id="c0",
        role_arn="arn:aws:iam::111100000000:role/XMode",
        destination=Destination(bucket=bucket, prefix="xmode/", region="us-east-1", addressing="path"),
        feeds=("set",),
    )
    source = LocalSource(feed, clock)
    stores = FastStores(Limits(), clock)
    store = stores.open(customer, Session(), "us-east-1")
    window = threading.BoundedSemaphore(64)
    failed = []
    for file in source.scan(Period.none()):
        assert isinstance(file, SourceFile)
        body = source.open(file)
        request = PutRequest(f"xmode/set/{file.name}", "token", file.size, "application/octet-stream")
        if file.size > LARGE_BYTES:
            upload_id, _ = store.create_upload(request)
            parts = [
                store.upload_part(request.key, upload_id, part.number, body, part.offset, part.length)
                for part in split(file.size, part_size(file.size))
            ]
            store.complete_upload(request.key, upload_id, [part.result() for part in parts], file.size)
            body.close()
            continue
        window.acquire()

        def finished(done, body=body) -> None:
            body.close()
            if done.exception() is not None:
                failed.append(done.exception())
            window.release()

        store.put(request, body).add_done_callback(finished)
    store.close()
    stores.close()
    if failed:
        raise SystemExit(f"{len(failed)} failed; first: {failed[0]}")


main(Path(sys.argv[1]), sys.argv[2])
