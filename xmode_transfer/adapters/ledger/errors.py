"""What every ledger says in the same words, whatever database it lies in."""

from xmode_transfer.domain.errors import LedgerError


def closed(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} is closed.",
        hint="Nothing was written. A part of the program went on after the end; report it as a defect.",
    )


def unstorable(where: str, error: Exception) -> LedgerError:
    return LedgerError(
        f"The ledger {where} cannot hold a value: {error}.",
        hint="Nothing of it was written. A file name has to be Unicode text; rename the file at the source.",
    )


def other(where: str, detail: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} refused an operation: {detail}.",
        hint="Nothing of it was written. If it happens again, keep the log and report it as a defect.",
    )
