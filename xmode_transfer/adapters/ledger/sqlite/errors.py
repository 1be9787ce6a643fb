"""What SQLite says, as errors that a person can act on."""

import errno
import os
import sqlite3
from pathlib import Path

from xmode_transfer.adapters.ledger.errors import other
from xmode_transfer.domain.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerReadOnly,
)

# Primary result codes of SQLite (https://www.sqlite.org/rescode.html); extended codes carry them in the low
# byte.
_BUSY, _LOCKED = 5, 6
_PERM, _READONLY, _AUTH = 3, 8, 23
_CORRUPT, _NOTADB = 11, 26
_FULL, _CANTOPEN, _IOERR = 13, 14, 10

_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def locked(where: str, detail: str) -> LedgerLocked:
    return LedgerLocked(
        f"The ledger {where} is locked by another process: {detail}.",
        hint="Nothing was written, and it is tried again. If it goes on, find the process that holds the "
        f"file open (`fuser -v {where}`), often a database shell or a backup, and end it.",
    )


def read_only(where: str, detail: str) -> LedgerReadOnly:
    return LedgerReadOnly(
        f"The ledger {where} cannot be written: {detail}.",
        hint="Nothing was written. The operator has to give the service's user write permission on the file "
        f"and on its directory ({Path(where).parent}), or mount the file system read-write, and start again.",
    )


def full(where: str, detail: str) -> LedgerFull:
    return LedgerFull(
        f"There is no room left for the ledger {where}: {detail}.",
        hint=f"Nothing was written. The operator has to free space on the file system of "
        f"{Path(where).parent} (`df -h`); the deliveries then go on from what is recorded.",
    )


def corrupt(where: str, detail: str) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"The ledger {where} is damaged or is not a ledger: {detail}.",
        hint="Do not delete it: it is the record of what was delivered. The operator has to check the path, "
        f"stop the service, copy {where} with its -wal and -shm files, and restore the last backup "
        "(docs/ledger.md). The ledger must lie on a local disk, not on a network file system.",
    )


def replaced(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} was moved, removed or replaced while it was in use.",
        hint="Nothing was written. The operator has to stop the service, put the right file in its place "
        "(without the -wal and -shm files of another), and start again.",
    )


def from_sqlite(error: BaseException, where: str) -> LedgerError:
    """The domain error for a ``sqlite3.Error``."""
    detail = str(error).rstrip(".") or type(error).__name__
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else _guess(error, detail)
    if primary in (_BUSY, _LOCKED):
        return locked(where, detail)
    if primary in (_PERM, _READONLY, _AUTH):
        return read_only(where, detail)
    if primary == _FULL:
        return full(where, detail)
    if primary in (_CORRUPT, _NOTADB):
        return corrupt(where, detail)
    if primary == _CANTOPEN:
        return _cannot_open(where, detail)
    if primary == _IOERR:
        return LedgerError(
            f"The disk under the ledger {where} failed: {detail}.",
            hint="Nothing was written. The operator has to look at the disk (`dmesg`); the ledger must lie "
            "on a local disk, not on a network file system.",
        )
    return other(where, detail)


def from_os(error: OSError, where: str) -> LedgerError:
    """The domain error for an OSError while the ledger's file or directory is made."""
    detail = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    if error.errno in _READ_ONLY_ERRNOS:
        return read_only(where, detail)
    if error.errno in _FULL_ERRNOS:
        return full(where, detail)
    return LedgerError(
        f"The ledger {where} cannot be opened: {detail}.",
        hint="Set `ledger:` in service.yaml to a file in a directory that the service's user may write.",
    )


def _guess(error: BaseException, detail: str) -> int | None:
    # A few errors are raised by Python's own module without a result code.
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in detail:
        return _NOTADB
    return None


def _cannot_open(where: str, detail: str) -> LedgerError:
    """SQLite has one code for every reason why a file cannot be opened, so the reason is looked up."""
    path = Path(where)
    effective = os.access in os.supports_effective_ids
    for asked, wanted in ((path, os.W_OK), (path.parent, os.W_OK | os.X_OK)):
        if asked.exists() and not os.access(asked, wanted, effective_ids=effective):
            return read_only(where, f"{asked} is not writable for this user")
    return LedgerError(
        f"The ledger {where} cannot be opened: {detail}.",
        hint="Set `ledger:` in service.yaml to a file (not a directory) in a directory that the service's "
        "user may write, and check that the process may open more files (`ulimit -n`).",
    )
