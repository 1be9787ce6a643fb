"""What a ledger says of a database that cannot be used, as errors that a person can act on."""

from pathlib import Path
from typing import NamedTuple

from xmode_transfer.model.errors import LedgerError, LedgerMissing, XmodeError


class Said(NamedTuple):
    """An error, but for where the ledger is and the database's own words. Both texts may name ``{where}``,
    those about a file its ``{directory}`` too."""

    kind: type[XmodeError]
    message: str
    hint: str

    def error(self, where: str, detail: str) -> XmodeError:
        names = {"where": where, "directory": Path(where).parent}
        return self.kind(f"{self.message.format(**names)}: {detail}.", hint=self.hint.format(**names))


UNSTORABLE = Said(
    LedgerError,
    "The ledger {where} cannot hold a value",
    "Nothing of it was written. A file name has to be Unicode text; rename the file at the source.",
)
OTHER = Said(
    LedgerError,
    "The ledger {where} refused an operation",
    "Nothing of it was written. If it happens again, keep the log and report it as a defect.",
)


def closed(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} is closed.",
        hint="Nothing was written. A part of the program went on after the end; report it as a defect.",
    )


def missing(where: str) -> LedgerMissing:
    return LedgerMissing(
        f"There is no ledger at {where}.",
        hint="Check `ledger:` in service.yaml. The first `xmode-transfer run` or `daemon` makes a new one.",
    )
