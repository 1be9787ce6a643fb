"""One order of names, whatever bytes they are made of: that of a source is that of every ledger."""

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fakes import MemoryClock
from tests.forms import examples
from xmode_transfer.config import Feed
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import Delivery, PlannedObject, SourceFile, Status
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.transfer.plan import Kind, diff

NOW = datetime(2126, 11, 24, tzinfo=UTC)  # what a test writes has settled by then
ATOMS = [os.fsdecode(bytes([byte])) for byte in b"ab0-._ \\~\t\n\x7f\x80\xe9\xff"]
ATOMS += ["\xe9", "e\u0301", "\x85", "\ue000", "\uff5e", "\U0001f600"]
segments = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=4).map("".join)
paths = st.lists(segments.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)


def make(path: Path, elsewhere: Path, *, is_link: bool) -> None:
    """A file of that path, or a link to a directory outside; nothing where another one is in its way."""
    with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_link:
            path.symlink_to(elsewhere)
        else:
            path.touch(exist_ok=False)


def test_any_names_have_one_order(ledger_url: str, tmp_path: Path) -> None:
    root, elsewhere, number = tmp_path / "source", tmp_path / "elsewhere", count(1)
    elsewhere.mkdir()
    feed = Feed.model_validate(
        {
            "name": "drops",
            "source": str(root),
            "period": "none",
            "complete": {"settle_seconds": 0},
            "exclude": [],
        }
    )
    clock = MemoryClock(NOW)
    ledger = open_ledger(ledger_url, clock)
    lease = ledger.leases.claim("delivery/acme/drops/none", "here", 1e9)

    @settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(paths, st.booleans(), max_size=12))
    @example({"ok.csv": False, "\udcff.csv": False, "_SUCCESS": False})
    @example({"a\tb.csv": False, "a b.csv": False})
    @example({"\xe9": False, "\udce9": False, "e\u0301": False})
    @example({"a": True, "a-b": False, "a.b": False, "a0/b": False})
    def check(wanted: dict[str, bool]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for path, is_link in wanted.items():
            make(root / path, elsewhere, is_link=is_link)

        found = list(LocalSource(feed, clock).scan(Period.none()))
        names = [item.name for item in found]
        assert names == sorted(set(names))
        there = {path for path in root.rglob("*") if path.is_symlink() or path.is_file()}
        assert {root / name.rstrip("/") for name in names} == there

        revision = next(number)
        delivery = Delivery(f"id-{revision}", "acme", "drops", "none", revision, Status.PLANNED, NOW, NOW)
        ledger.deliveries.create(lease, delivery)
        files = [item for item in found if isinstance(item, SourceFile)]
        planned = (PlannedObject(file.name, f"p/{file.name}", *file[1:]) for file in files)
        ledger.objects.plan(lease, delivery.id, planned)
        assert [item.name for item, _ in ledger.objects.planned(delivery.id)] == [file.name for file in files]
        differences = list(diff(found, ledger.objects.planned(delivery.id), ()))
        assert [(item.name, item.kind) for item in differences] == [
            (item.name, Kind.PENDING if isinstance(item, SourceFile) else Kind.PROBLEM) for item in found
        ]

    try:
        check()
    finally:
        ledger.close()
