"""Trust, tried in the negative: a role must let us in with its external ID, and with no other.

AWS advises vendors to try both, and not to keep a role that lets them in without (IAM User Guide, "Access to
AWS accounts owned by third parties").
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import Party, RoleRefused, VendorIdentityError, XmodeError
from xmode_transfer.domain.findings import (
    Cause,
    Facts,
    Finding,
    finding,
    passed,
    skipped,
    unanswered,
)
from xmode_transfer.domain.findings.denials import denial_in, party_of
from xmode_transfer.ports import Prober

ASSUME = "assume_role"
NONE = "external_id_none"
RANDOM = "external_id_random"
SIMILAR = "external_id_similar"
CASE = "external_id_case"
AGAIN = "assume_again"
PROBES = (ASSUME, NONE, RANDOM, SIMILAR, CASE, AGAIN)

_REFUSED = frozenset({"AccessDenied", "AccessDeniedException"})


@dataclass(slots=True)
class Trust:
    """What the trials found; ``assumed`` is true when the role lets us in with its own external ID."""

    findings: list[Finding] = field(default_factory=list)
    assumed: bool = False


def try_trust(prober: Prober, customer: Customer, facts: Facts, nonce: str) -> Iterator[Trust]:
    """With the right ID, wrong ones, none, and right again; yields after each trial, so that the caller can
    stop in between. ``nonce`` is random. Raises VendorIdentityError."""
    trust = Trust()
    error = _trial(prober, customer, customer.external_id)
    yield trust
    if error is not None:
        trust.findings.append(told(ASSUME, error, facts))
        why = "the role cannot be assumed with its own external ID, so a refusal would prove nothing"
        trust.findings += [skipped(probe, why) for probe in PROBES[1:]]
        yield trust
        return
    trust.assumed = True
    trust.findings.append(passed(ASSUME, "the role lets us in with its external ID"))
    trials: list[tuple[str, str | None]] = [
        (RANDOM, f"xm-{nonce}"),
        (SIMILAR, f"{customer.external_id}-{nonce}"),
        (NONE, None),
        (CASE, customer.external_id.swapcase()),
    ]
    answers: dict[str, XmodeError | None] = {}
    for probe, external_id in trials:
        if probe == CASE and external_id == customer.external_id:
            continue
        answers[probe] = _trial(prober, customer, external_id)
        yield trust
    control = _trial(prober, customer, customer.external_id)
    trust.findings += _judged(answers, facts, control)
    if control is None:
        trust.findings.append(passed(AGAIN, "the role lets us in again with its external ID"))
    else:
        trust.findings.append(told(AGAIN, control, facts))
    yield trust


def told(probe: str, error: XmodeError, facts: Facts) -> Finding:
    """A failed AssumeRole as a finding. AWS's own words decide only where they name a policy of ours."""
    said, request_id = error.message, error.request_id
    if isinstance(error, RoleRefused):
        cause = Cause.ROLE_REFUSED
        if error.aws_code == "RegionDisabledException":
            cause = Cause.STS_REGION_DISABLED
        elif (denial := denial_in(said)) and party_of(denial, assuming=True) is Party.US:
            cause = Cause.VENDOR_POLICY_DENIES_ASSUME
        return finding(cause, probe, facts, request_id=request_id, said=said)
    return unanswered(probe, said, error.party, request_id)


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
    """A role that lets us in has said so for good. That it refuses proves something only when it lets us in
    again afterwards: else STS was busy, or the role had just gone."""
    accepted = {probe for probe, error in answers.items() if error is None}
    any_value = accepted & {RANDOM, SIMILAR}
    for probe in (NONE, RANDOM, SIMILAR, CASE):
        if probe not in answers:
            yield skipped(probe, "the external ID has no letters")
        elif probe in accepted:
            yield _accepted(probe, accepted, bool(any_value), facts)
        else:
            yield _refused(probe, answers[probe], control)


def _accepted(probe: str, accepted: set[str], any_value: bool, facts: Facts) -> Finding:
    if probe == NONE:
        return finding(Cause.EXTERNAL_ID_NOT_REQUIRED, probe, facts)
    if NONE in accepted and RANDOM in accepted:
        return skipped(probe, "the role demands no external ID at all, so it takes any")
    if probe in (RANDOM, SIMILAR):
        if probe == SIMILAR and RANDOM in accepted:
            return skipped(probe, "the role takes any external ID, so also a similar one")
        detail = "" if probe == RANDOM else "it takes one that only begins with the right one"
        return finding(Cause.EXTERNAL_ID_ANY_VALUE, probe, facts, detail=detail)
    if any_value and RANDOM in accepted:
        return skipped(probe, "the role takes any external ID, so also one in other letter case")
    return finding(Cause.EXTERNAL_ID_CASE_INSENSITIVE, probe, facts)


def _refused(probe: str, error: XmodeError | None, control: XmodeError | None) -> Finding:
    assert error is not None
    if not isinstance(error, RoleRefused) or error.aws_code not in _REFUSED:
        party = Party.AWS if error.retryable else Party.US
        words = f"only AccessDenied proves something, and STS said: {error.message}"
        return unanswered(probe, words, party, error.request_id)
    if control is not None:
        return skipped(probe, "the role did not let us in again afterwards, so this refusal proves nothing")
    what = {
        NONE: "without an external ID",
        RANDOM: "with an external ID that was never issued",
        SIMILAR: "with an external ID that only begins with the right one",
        CASE: "with the external ID in other letter case",
    }[probe]
    return passed(probe, f"the role refuses us {what}, as it should", request_id=error.request_id)
