"""Why a delivery cannot be published now, after what could be sent was sent."""

from xmode_transfer.domain.errors import ExitCode, Interrupted, Party, XmodeError
from xmode_transfer.domain.records import Failure, SourceProblem
from xmode_transfer.services.planning import Plan
from xmode_transfer.services.sending import Sent
from xmode_transfer.services.workbench import Workbench


def obstacle(bench: Workbench, plan: Plan, sent: Sent) -> XmodeError | None:
    """None when everything of the plan has arrived."""
    if sent.halted is not None:
        return sent.halted
    if bench.stop.is_set():
        return Interrupted(
            "stopped on request", hint="what was sent is recorded; the next run goes on from there"
        )
    count = sent.failed + len(plan.problems)
    if not count:
        return None
    if sent.passing is not None and not (sent.uploaded or sent.adopted or plan.problems):
        return sent.passing  # nothing got through: that is the destination's trouble, not these files'
    of_all = plan.skipped + plan.upload_count + len(plan.problems)
    failures = [failure.failure for failure in sent.failures]
    theirs = {item.party for item in failures} == {Party.CUSTOMER} and not plan.problems
    return (_TheirsToMend if theirs else Incomplete)(
        f"{count} of {of_all} files could not be delivered",
        *failures,
        problems=plan.problems,
    )


class Incomplete(XmodeError):
    """Some files did not arrive; the manifest waits for them."""

    code = "incomplete"

    def __init__(self, message: str, *failures: Failure, problems: list[SourceProblem]) -> None:
        first = problems[0] if problems else None
        if first is not None:
            message += f"; first: {first.name}: {first.message}"
        elif failures:
            message += f"; first: {failures[0].message}"
        hint = (
            "the files that arrived stay; the manifest follows when the rest has arrived. "
            "The names are in the log and in --json"
        )
        if first is None and failures and failures[0].hint:
            hint = f"{failures[0].hint}; {hint}"
        super().__init__(message, hint=hint)


class _TheirsToMend(Incomplete):
    """Whatever did not arrive, only the customer can let in."""

    party = Party.CUSTOMER
    exit_code = ExitCode.BLOCKED
