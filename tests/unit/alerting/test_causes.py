"""Every cause has a summary for alerts, and a row in the docs with its fix."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import xmode_transfer
from xmode_transfer.alerting.alerts import SUMMARIES, URGENT
from xmode_transfer.model.errors import Responsible, XmodeError

MANUAL = Path(__file__).parents[3] / "docs" / "operations.md"
# They end a run or a command, and are never recorded as the cause of a delivery that waits.
NEVER_ALERTS = {
    "error",
    "interrupted",
    "already_running",
    "notification_failed",
    "sandbox",
    "demo_failed",
    "receipt_refused",
    "rejected",  # a person's decision
}
# Recorded by alerting/health.
OF_HEALTH = {
    *("no_source", "late", "not_looked", "access_drift", "orphaned_uploads", "delivered_changed"),
    *("superseded_left", "config_invalid", "daemon_silent", "ledger_disk_low"),
    *("quarantined", "check_warned"),
}


def all_errors(kind: type[XmodeError] = XmodeError) -> Iterator[type[XmodeError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


def causes() -> set[str]:
    for module in pkgutil.walk_packages(xmode_transfer.__path__, "xmode_transfer."):
        if "__main__" not in module.name and "migrations" not in module.name:
            importlib.import_module(module.name)
    ours = {kind.code for kind in all_errors() if kind.__module__.startswith("xmode_transfer.")}
    return (ours - NEVER_ALERTS) | OF_HEALTH


def test_every_cause_has_a_summary() -> None:
    assert set(SUMMARIES) == causes()
    assert set(SUMMARIES) >= URGENT
    assert all(words and words == words.strip() and len(words) < 70 for words in SUMMARIES.values())


def test_every_cause_has_a_row_in_the_docs() -> None:
    rows: dict[str, list[str]] = {}
    for line in MANUAL.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 4:
            for cause in re.findall(r"`([a-z_]+)`", cells[0]):
                rows[cause] = cells
    missing = set(SUMMARIES) - set(rows)
    assert not missing, f"docs/operations.md has no row for {sorted(missing)}"
    for cause, (_, meaning, who, what) in rows.items():
        assert meaning, cause
        assert what, cause
        assert who in set(Responsible), cause
