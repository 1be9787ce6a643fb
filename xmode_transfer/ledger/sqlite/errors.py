"""What SQLite says, as errors that a person can act on."""

import errno
import os
import sqlite3
from pathlib import Path

from xmode_transfer.ledger.errors import OTHER, Said
from xmode_transfer.model.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerReadOnly,
    XmodeError,
)

LOCKED = Said(
    LedgerLocked,
    "The ledger {where} is locked by another process",
    "Nothing was written, and it is tried again. If it goes on, find the process that holds the file open "
    "(`fuser -v {where}`), often a database shell or a backup, and end it.",
)
READ_ONLY = Said(
    LedgerReadOnly,
    "The ledger {where} cannot be written",
    "Nothing was written. The operator has to give the service's user write permission on the file and on "
    "its directory ({directory}), or mount the file system read-write, and start again.",
)
FULL = Said(
    LedgerFull,
    "There is no room left for the ledger {where}",
    "Nothing was written. The operator has to free space on the file system of {directory} (`df -h`); the "
    "deliveries then go on from what is recorded.",
)
CORRUPT = Said(
    LedgerCorrupt,
    "The ledger {where} is damaged or is not a ledger",
    "Do not delete it: it is the record of what was delivered. The operator has to check the path, stop the "
    "service, copy {where} with its -wal and -shm files, and restore the last backup (docs/ledger.md). The "
    "ledger must lie on a local disk, not on a network file system.",
)
_NO_FILE = Said(
    LedgerError,
    "The ledger {where} cannot be opened",
    "Set `ledger:` in service.yaml to a file (not a directory) in a directory that the service's user may "
    "write, and check that the process may open more files (`ulimit -n`).",
)
_DISK = Said(
    LedgerError,
    "The disk under the ledger {where} failed",
    "Nothing was written. The operator has to look at the disk (`dmesg`); the ledger must lie on a local "
    "disk, not on a network file system.",
)
# By the primary result codes of SQLite (https://www.sqlite.org/rescode.html); extended codes carry them in
# the low byte.
_BY_CODE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_PERM: READ_ONLY,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_AUTH: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CORRUPT: CORRUPT,
    sqlite3.SQLITE_NOTADB: CORRUPT,
    sqlite3.SQLITE_CANTOPEN: _NO_FILE,
    sqlite3.SQLITE_IOERR: _DISK,
}
_BY_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.EROFS: READ_ONLY,
}


def replaced(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} was moved, removed or replaced while it was in use.",
        hint="Nothing was written. The operator has to stop the service, put the right file in its place "
        "(without the -wal and -shm files of another), and start again.",
    )


def from_sqlite(error: BaseException, where: str) -> XmodeError:
    """The domain error for a ``sqlite3.Error``."""
    detail = str(error).rstrip(".") or type(error).__name__
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.DatabaseError) and "not a database" in detail:
        code = sqlite3.SQLITE_NOTADB  # Python's own module raises this one without a result code
    said = OTHER if code is None else _BY_CODE.get(code & 0xFF, OTHER)
    if said is _NO_FILE:
        # SQLite has one code for every reason why a file cannot be opened, so the reason is looked up.
        path, effective = Path(where), os.access in os.supports_effective_ids
        for asked, wanted in ((path, os.W_OK), (path.parent, os.W_OK | os.X_OK)):
            if asked.exists() and not os.access(asked, wanted, effective_ids=effective):
                return READ_ONLY.error(where, f"{asked} is not writable for this user")
    return said.error(where, detail)


def from_os(error: OSError, where: str) -> XmodeError:
    """The domain error for an OSError while the ledger's file or directory is made."""
    detail = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return _BY_ERRNO.get(error.errno or 0, _NO_FILE).error(where, detail)
