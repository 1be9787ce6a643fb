"""The file of recalls: what was withdrawn, also for a ledger that was lost or restored from an older backup.

A recall has a line for the recall, one for each withdrawn file, and a closing line with their number and
SHA-256. It is on disk before the ledger has it. A recall without a closing line was never begun.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from xmode_transfer import telemetry
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.manifest import canonical, timestamp
from xmode_transfer.model.recall import Recall, Withdrawn
from xmode_transfer.model.records import Checksum
from xmode_transfer.telemetry import Event

_CLOSING = b'{"closing":'


def append(path: Path, recall: Recall, files: Iterable[Withdrawn]) -> None:
    """Add a recall, unless the file has it. It is on disk afterwards. Raises ConfigError."""
    with _opened(path) as file:
        known, end = _read(path, file)
        if recall.id in known:
            return
        lines = _lines(recall, files)
        file.seek(end)
        file.truncate()  # what an append that was killed left
        file.writelines([*lines, _closing(lines)])
        file.flush()
        os.fsync(file.fileno())


def synchronise(ledger: Ledger, path: Path, now: datetime) -> None:
    """Record the file's recalls that the ledger lacks, for the customers that hold their files, and add
    those that the file lacks. Call it before anything is delivered. Raises ConfigError if the file cannot be
    read, and LedgerError."""
    recorded = ledger.recalls.ids()
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            known = _read(path, file)[0]
    except FileNotFoundError:
        known = {}
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from None
    for lines in (lines for number, lines in known.items() if number not in recorded):
        recall, files = _parsed(lines)
        customers = ledger.recalls.restore(recall, files, now)
        fields = {"recall": recall.id, "feed": recall.feed, "files": len(files), "customers": customers}
        telemetry.warn(Event.RECALL_RESTORED, **fields)
    for number in sorted(recorded - known.keys()):
        found = ledger.recalls.get(number)
        try:
            if found is not None:
                append(path, found, ledger.recalls.files(number))
        except ConfigError as error:  # the ledger has it: deliveries are safe
            telemetry.warn(Event.RECALLS_NOT_WRITTEN, **error.log_context())
            return


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        is_new = not path.exists()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        if is_new:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
    except OSError as error:
        raise _unusable(path, f"cannot be written: {error.strerror}") from None


def _lines(recall: Recall, files: Iterable[Withdrawn]) -> list[bytes]:
    head = {**asdict(recall), "started_at": timestamp(recall.started_at)}
    del head["finished_at"]
    lines: list[dict[str, Any]] = [{"recall": head}]
    for item in files:
        fields = {**item._asdict(), "checksum": item.checksum._asdict()}
        del fields["recall"]
        lines.append({"file": fields})
    return [(canonical(line) + "\n").encode() for line in lines]


def _closing(lines: Sequence[bytes]) -> bytes:
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    return (canonical({"closing": {"files": len(lines) - 1, "sha256": digest}}) + "\n").encode()


def _parsed(lines: Sequence[bytes]) -> tuple[Recall, list[Withdrawn]]:
    head, *rest = (json.loads(line) for line in lines)
    fields = head["recall"]
    recall = Recall(**{**fields, "started_at": datetime.fromisoformat(fields["started_at"])})
    files = [line["file"] for line in rest]
    return recall, [
        Withdrawn(**{**item, "recall": recall.id, "checksum": Checksum(**item["checksum"])}) for item in files
    ]


def _read(path: Path, file: BinaryIO) -> tuple[dict[str, list[bytes]], int]:
    """Return the lines of each complete recall by its recall, and where the last one ends. Only the first
    line of each is parsed."""
    found: dict[str, list[bytes]] = {}
    lines: list[bytes] = []
    end = 0
    for raw in file:
        if not raw.startswith(_CLOSING) or not raw.endswith(b"\n"):
            lines.append(raw)
            continue
        if not lines or raw != _closing(lines):
            raise _unusable(path, f"is damaged before byte {end + sum(map(len, lines)) + len(raw):,}")
        end += sum(map(len, lines)) + len(raw)
        found[json.loads(lines[0])["recall"]["id"]] = lines
        lines = []
    if lines:
        telemetry.warn(Event.RECALL_INCOMPLETE, file=str(path), lines=len(lines))
    return found, end


def _unusable(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"the file of recalls {path} {what}",
        hint="nothing is delivered or withdrawn without it. Restore it from a backup, or repair its "
        "permissions or its disk; `recalls` in service.yaml names another place (docs/recall.md)",
    )
