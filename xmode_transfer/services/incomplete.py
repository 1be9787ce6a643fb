"""The error of a delivery of which some files did not arrive."""

from xmode_transfer.domain.errors import ExitCode, Party, XmodeError
from xmode_transfer.domain.records import Failure, SourceProblem


class Incomplete(XmodeError):
    """Some files did not arrive; the manifest waits for them."""

    code = "incomplete"

    def __init__(self, message: str, *failures: Failure, problems: list[SourceProblem]) -> None:
        first = problems[0] if problems else None
        if first is not None:
            message += f"; first: {first.name}: {first.message}"
        elif failures:
            message += f"; first: {failures[0].message}"
        super().__init__(
            message,
            hint="the files that arrived stay; the manifest follows when the rest has arrived. "
            "The names are in the log and in --json",
        )


class TheirsToMend(Incomplete):
    """Whatever did not arrive, only the customer can let in."""

    party = Party.CUSTOMER
    exit_code = ExitCode.BLOCKED

    def __init__(self, message: str, *failures: Failure, problems: list[SourceProblem]) -> None:
        super().__init__(message, *failures, problems=problems)
        if failures:
            self.hint = f"{failures[0].hint}; {self.hint}"
