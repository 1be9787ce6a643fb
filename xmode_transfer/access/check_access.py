"""Test a customer's access with real requests; report each problem with its cause, responsible and fix."""

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from xmode_transfer import telemetry
from xmode_transfer.access import catalogue, trying
from xmode_transfer.access.catalogue import Cause, error_finding, finding
from xmode_transfer.access.trying import attempt
from xmode_transfer.aws.policy.documents import SetupValues, setup_values
from xmode_transfer.aws.probing import Prober
from xmode_transfer.config import Configuration, Customer, CustomerState
from xmode_transfer.model import errors
from xmode_transfer.model.errors import Responsible, VendorIdentityError, XmodeError
from xmode_transfer.model.findings import (
    AccessReport,
    Finding,
    LeftoverKind,
    Result,
    Severity,
    changes,
    passed,
    skipped,
    unanswered,
    unknown,
)
from xmode_transfer.model.records import Capabilities
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.sending import defect_of

_WRONG_IDS = {
    catalogue.NO_ID: "without an external ID",
    catalogue.RANDOM_ID: "with an external ID that was never issued",
    catalogue.SIMILAR_ID: "with an external ID that only begins with the right one",
    catalogue.OTHER_CASE: "with the external ID in a different letter case",
}
_TRUST_PROBES = ("assume_role", *_WRONG_IDS, "assume_again")
_CUSTOMERS_AT_ONCE = 8


def checked_customers(configuration: Configuration, name: str | None) -> list[Customer]:
    """Return the named customer, or all except retired ones. Raises ConfigError."""
    if name is None:
        customers = configuration.customers.values()
        return [customer for customer in customers if customer.state is not CustomerState.RETIRED]
    customer = configuration.customer(name, "its access is not checked")
    if customer.state is CustomerState.RETIRED:
        raise errors.ConfigError(
            f"{name} is retired: its access is not checked",
            hint=f"set `state: pending` in customers/{name}.yaml if it comes back",
        )
    return [customer]


def check_customers(
    context: Context, prober: Prober, customers: Sequence[Customer], *, deep: bool = False
) -> list[AccessReport | XmodeError]:
    """Return a report or the error of each customer, in the order given. If our own identity is wrong, no
    customer is probed, each report says so, and the log once."""
    try:
        prober.verify_identity()
    except VendorIdentityError as error:
        telemetry.error(Event.ACCESS_CHECKED, **error.log_context())
        return [_identity_report(context, customer, error) for customer in customers]

    def check(customer: Customer) -> AccessReport | XmodeError:
        try:
            return check_access(context, prober, customer, deep=deep)
        except XmodeError as error:
            return error
        except Exception as error:  # noqa: BLE001 - it must not hide the reports of others
            telemetry.exception(Event.DEFECT)
            return defect_of(error)

    with ThreadPoolExecutor(_CUSTOMERS_AT_ONCE, thread_name_prefix="check") as threads:
        return list(threads.map(telemetry.carry(check), customers))


def check_access(context: Context, prober: Prober, customer: Customer, *, deep: bool = False) -> AccessReport:
    """Record the report and what was learnt; but if our own identity is wrong, report that alone and record
    nothing. ``deep`` tests for more rights that the role should not have. Raises LedgerError."""
    started = context.clock.monotonic()
    checks = context.ledger.checks
    with telemetry.bind(customer=customer.name):
        earlier = checks.last(customer.name)
        region = checks.capabilities(customer.name).region
        try:
            report, learned = _checked(context, prober, customer, region, earlier, deep)
        except VendorIdentityError as error:
            report = _identity_report(context, customer, error)
            report = replace(report, seconds=context.clock.monotonic() - started)
            telemetry.error(Event.ACCESS_CHECKED, **_fields(report), message=error.message)
            return report
        report = replace(report, seconds=context.clock.monotonic() - started)
        checks.record(report)
        if learned != Capabilities():
            checks.learn(customer.name, replace(learned, learned_at=context.clock.now()))
        for change in changes(earlier, report) if earlier is not None else ():
            telemetry.warn(Event.ACCESS_CHANGED, probe=change.probe, before=change.before, now=change.now)
        telemetry.log(Event.ACCESS_CHECKED, **_fields(report))
        return report


def _identity_report(context: Context, customer: Customer, error: VendorIdentityError) -> AccessReport:
    if isinstance(error, errors.OtherPrincipal):
        cause = Cause.VENDOR_IDENTITY_WRONG
    elif isinstance(error, errors.VendorClockSkew):
        cause = Cause.CLOCK_SKEW
    else:
        cause = Cause.VENDOR_KEY_INVALID
    facts = setup_values(customer, context.vendor.principal_arn)
    item = finding(cause, "identity", facts, detail=error.message, request_id=error.request_id)
    return AccessReport(customer.name, context.clock.now(), (item,))


def _checked(
    context: Context,
    prober: Prober,
    customer: Customer,
    region: str | None,
    earlier: AccessReport | None,
    deep: bool,
) -> tuple[AccessReport, Capabilities]:
    """Return the report and what was learnt; ``region`` is the bucket's, if known."""
    facts = setup_values(customer, context.vendor.principal_arn)
    nonce, stop = secrets.token_hex(8), context.stop
    # What an earlier check could not delete, and this one may.
    before = earlier.left if earlier is not None else ()
    left = tuple(item for item in before if item.kind is not LeftoverKind.VERSION)
    arn = prober.verify_identity()
    if arn is not None:
        identity = passed("identity", f"we are {arn}")
    else:
        words = f"vendor.verify_identity is false: no proof that our access key belongs to {facts.principal}"
        identity = Finding("identity", Result.UNKNOWN, None, Responsible.VENDOR, Severity.WARNING, words)
    assumed, found = _try_trust(context, prober, customer, facts, nonce)
    findings = [identity, *found]
    learned, complete = Capabilities(), not stop.is_set()
    if assumed and complete:
        place = prober.reserve(customer, region)
        reserved = trying.Reserved(place, facts, nonce, context.clock.now(), left)
        try:
            complete = trying.try_rights(reserved, stop)
        finally:
            place.close()
        findings += [*reserved.findings, _excess(context, prober, customer, facts, deep)]
        learned, left = reserved.learned, tuple(reserved.left)
    else:
        why = "the role cannot be assumed" if complete else "the check was stopped"
        done = {item.probe for item in findings}
        probes = (*_TRUST_PROBES, *trying.PROBES, "excess")
        findings += [skipped(probe, why) for probe in probes if probe not in done]
    report = AccessReport(customer.name, context.clock.now(), tuple(findings), left, interrupted=not complete)
    return report, learned


def _excess(context: Context, prober: Prober, customer: Customer, facts: SetupValues, deep: bool) -> Finding:
    if context.stop.is_set():
        return skipped("excess", "the check was stopped")
    rights = attempt(lambda: list(prober.excess(customer, deep=deep)))
    if isinstance(rights, XmodeError):
        return skipped("excess", f"not answered: {rights.message}")
    if rights:
        return finding(Cause.TOO_BROAD, "excess", facts, detail=", ".join(rights))
    tried = prober.reads(deep=deep)
    words = (
        f"tried {len(tried)} harmless reads that the role should not allow; all were denied "
        f"({', '.join(tried)}). A session cannot see what else the role allows: if the customer shows its "
        "policies, run `xmode-transfer policy lint`"
    )
    return unknown("excess", words)


def _fields(report: AccessReport) -> dict[str, object]:
    return {
        "outcome": report.outcome,
        "causes": [str(cause) for cause in report.causes],
        "orphaned": len(report.left),
        "left_bytes": sum(item.bytes for item in report.left),
        "seconds": round(report.seconds, 3),
    }


def _try_trust(
    context: Context, prober: Prober, customer: Customer, facts: SetupValues, nonce: str
) -> tuple[bool, list[Finding]]:
    """Return True if the role can be assumed, and the findings, incomplete if the check was stopped. AWS
    advises vendors to test that a role allows access with its external ID and with no other (IAM User Guide,
    "Access to AWS accounts owned by third parties")."""
    error = attempt(prober.assume, customer, customer.external_id)
    if error is not None:
        why = "the role cannot be assumed with its own external ID, so a denial would prove nothing"
        refused = error_finding("assume_role", error, Cause.ROLE_REFUSED, facts)
        return False, [refused, *(skipped(probe, why) for probe in _TRUST_PROBES[1:])]
    findings = [passed("assume_role", "the role allows access with its external ID")]
    answers: dict[str, XmodeError | None] = {}
    for probe, external_id in catalogue.wrong_external_ids(customer.external_id, nonce).items():
        if context.stop.is_set():
            return True, findings
        answers[probe] = attempt(prober.assume, customer, external_id)
    again = attempt(prober.assume, customer, customer.external_id)
    findings += _judged(answers, facts, again)
    if again is None:
        findings.append(passed("assume_again", "the role allows access again with its external ID"))
    else:
        findings.append(error_finding("assume_again", again, Cause.ROLE_REFUSED, facts))
    return True, findings


def _judged(
    answers: dict[str, XmodeError | None], facts: SetupValues, again: XmodeError | None
) -> Iterator[Finding]:
    """An accepted ID is proof by itself. A refusal proves something only if the role allows access again
    afterwards: else STS was busy, or the role was deleted meanwhile."""
    accepted = {probe for probe, error in answers.items() if error is None}
    denials = ("AccessDenied", "AccessDeniedException")
    for probe, what in _WRONG_IDS.items():
        error = answers.get(probe)
        if probe not in answers:
            yield skipped(probe, "the external ID has no letters")
        elif error is None:
            yield catalogue.wrongly_accepted(probe, accepted, facts)
        elif not isinstance(error, errors.RoleRefused) or error.aws_code not in denials:
            responsible = Responsible.AWS if error.retryable else Responsible.VENDOR
            words = f"only AccessDenied proves a denial; STS answered: {error.message}"
            yield unanswered(probe, words, responsible, error.request_id)
        elif again is not None:
            why = "the role did not allow access again afterwards, so this denial proves nothing"
            yield skipped(probe, why)
        else:
            words = f"the role denies access {what}, as it should"
            yield passed(probe, words, request_id=error.request_id)
