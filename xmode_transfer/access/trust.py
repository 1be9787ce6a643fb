"""Trust, tried in the negative: a role must let us in with its external ID, and with no other.

AWS advises vendors to try both, and not to keep a role that lets them in without (IAM User Guide, "Access to
AWS accounts owned by third parties").
"""

import threading
from collections.abc import Iterator

from xmode_transfer.access.catalogue import (
    NO_ID,
    OTHER_CASE,
    RANDOM_ID,
    SIMILAR_ID,
    finding,
    wrongly_accepted,
)
from xmode_transfer.aws.denials import denial_in, responsible_of
from xmode_transfer.aws.facts import Facts
from xmode_transfer.aws.probes import Prober
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import Responsible, RoleRefused, VendorIdentityError, XmodeError
from xmode_transfer.model.findings import Cause, Finding, passed, skipped, unanswered

ASSUME = "assume_role"
AGAIN = "assume_again"
PROBES = (ASSUME, NO_ID, RANDOM_ID, SIMILAR_ID, OTHER_CASE, AGAIN)

_REFUSED = frozenset({"AccessDenied", "AccessDeniedException"})


def try_trust(
    prober: Prober, customer: Customer, facts: Facts, nonce: str, stop: threading.Event
) -> tuple[bool, list[Finding]]:
    """With the right ID, wrong ones, none, and right again: whether the role allows access with its own, and
    what was found; incomplete when it was told to stop. ``nonce`` is random. Raises VendorIdentityError."""
    error = _trial(prober, customer, customer.external_id)
    if error is not None:
        why = "the role cannot be assumed with its own external ID, so a denial would prove nothing"
        return False, [told(ASSUME, error, facts), *(skipped(probe, why) for probe in PROBES[1:])]
    findings = [passed(ASSUME, "the role allows access with its external ID")]
    trials: list[tuple[str, str | None]] = [
        (RANDOM_ID, f"xm-{nonce}"),
        (SIMILAR_ID, f"{customer.external_id}-{nonce}"),
        (NO_ID, None),
        (OTHER_CASE, customer.external_id.swapcase()),
    ]
    answers: dict[str, XmodeError | None] = {}
    for probe, external_id in trials:
        if stop.is_set():
            return True, findings
        if probe != OTHER_CASE or external_id != customer.external_id:
            answers[probe] = _trial(prober, customer, external_id)
    control = _trial(prober, customer, customer.external_id)
    findings += _judged(answers, facts, control)
    if control is None:
        findings.append(passed(AGAIN, "the role allows access again with its external ID"))
    else:
        findings.append(told(AGAIN, control, facts))
    return True, findings


def told(probe: str, error: XmodeError, facts: Facts) -> Finding:
    """A failed AssumeRole as a finding. AWS's own words decide only where they name a policy of ours."""
    said, request_id = error.message, error.request_id
    if isinstance(error, RoleRefused):
        cause = Cause.ROLE_REFUSED
        if error.aws_code == "RegionDisabledException":
            cause = Cause.STS_REGION_DISABLED
        elif (denial := denial_in(said)) and responsible_of(denial, assuming=True) is Responsible.VENDOR:
            cause = Cause.VENDOR_POLICY_DENIES_ASSUME
        return finding(cause, probe, facts, request_id=request_id, said=said)
    return unanswered(probe, said, error.responsible, request_id)


def _trial(prober: Prober, customer: Customer, external_id: str | None) -> XmodeError | None:
    try:
        prober.assume(customer, external_id)
    except VendorIdentityError:
        raise
    except XmodeError as error:
        return error
    return None


def _judged(
    answers: dict[str, XmodeError | None], facts: Facts, control: XmodeError | None
) -> Iterator[Finding]:
    """A role that allows access has said so for good. A refusal proves something only when it allows access
    again afterwards: else STS was busy, or the role had just gone."""
    accepted = {probe for probe, error in answers.items() if error is None}
    for probe in (NO_ID, RANDOM_ID, SIMILAR_ID, OTHER_CASE):
        if probe not in answers:
            yield skipped(probe, "the external ID has no letters")
        elif probe in accepted:
            yield wrongly_accepted(probe, accepted, facts)
        else:
            yield _refused(probe, answers[probe], control)


def _refused(probe: str, error: XmodeError | None, control: XmodeError | None) -> Finding:
    assert error is not None
    if not isinstance(error, RoleRefused) or error.aws_code not in _REFUSED:
        responsible = Responsible.AWS if error.retryable else Responsible.VENDOR
        words = f"only AccessDenied proves a denial; STS answered: {error.message}"
        return unanswered(probe, words, responsible, error.request_id)
    if control is not None:
        return skipped(probe, "the role did not allow access again afterwards, so this denial proves nothing")
    what = {
        NO_ID: "without an external ID",
        RANDOM_ID: "with an external ID that was never issued",
        SIMILAR_ID: "with an external ID that only begins with the right one",
        OTHER_CASE: "with the external ID in a different letter case",
    }[probe]
    return passed(probe, f"the role denies access {what}, as it should", request_id=error.request_id)
