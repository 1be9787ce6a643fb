"""Check a customer's access: try every right with real requests, and report each problem with its cause,
responsible and fix."""

import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from xmode_transfer import telemetry
from xmode_transfer.access import trying
from xmode_transfer.access.catalogue import finding
from xmode_transfer.access.trust import PROBES as TRUST_PROBES
from xmode_transfer.access.trust import Reserved, try_trust
from xmode_transfer.aws.policy.documents import SetupValues, setup_values
from xmode_transfer.aws.probing import Prober
from xmode_transfer.config import Configuration, Customer, CustomerState
from xmode_transfer.model.errors import (
    ConfigError,
    OtherPrincipal,
    Responsible,
    VendorClockSkew,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.findings import (
    AccessReport,
    Cause,
    Finding,
    LeftoverKind,
    Result,
    Severity,
    changes,
    passed,
    skipped,
    unknown,
)
from xmode_transfer.model.records import Capabilities
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.sending import defect_of

IDENTITY = "identity"
EXCESS = "excess"

_CUSTOMERS_AT_ONCE = 8


def check_access(context: Context, prober: Prober, customer: Customer, *, deep: bool = False) -> AccessReport:
    """Checks one customer, records the report and what was learnt. When our own identity is wrong, the report
    says that alone: the customer was not probed, and nothing is recorded about it. ``deep`` looks for more
    rights that the role should not have. Raises LedgerError."""
    started = context.clock.monotonic()
    with telemetry.bind(customer=customer.name):
        earlier = context.ledger.checks.last(customer.name)
        known = context.ledger.checks.capabilities(customer.name)
        try:
            report, learned = _checked(context, prober, customer, known.region, earlier, deep)
        except VendorIdentityError as error:
            report = replace(_ours(context, customer, error), seconds=context.clock.monotonic() - started)
            telemetry.error(Event.ACCESS_CHECKED, **_fields(report), message=error.message)
            return report
        report = replace(report, seconds=context.clock.monotonic() - started)
        context.ledger.checks.record(report)
        if learned != Capabilities():
            context.ledger.checks.learn(customer.name, replace(learned, learned_at=context.clock.now()))
        for change in changes(earlier, report) if earlier is not None else ():
            telemetry.warn(Event.ACCESS_CHANGED, probe=change.probe, before=change.before, now=change.now)
        telemetry.log(Event.ACCESS_CHECKED, **_fields(report))
        return report


def check_customers(
    context: Context, prober: Prober, customers: Sequence[Customer], *, deep: bool = False
) -> list[AccessReport | XmodeError]:
    """Checks several, a few at a time; a report or what prevented it, in the order given. Our own identity is
    proven first: when it is wrong, nobody is probed, each report says so, and the log once."""
    try:
        prober.verify_identity()
    except VendorIdentityError as error:
        telemetry.error(Event.ACCESS_CHECKED, **error.log_context())
        return [_ours(context, customer, error) for customer in customers]
    with ThreadPoolExecutor(_CUSTOMERS_AT_ONCE, thread_name_prefix="check") as threads:
        futures = [
            threads.submit(telemetry.carry(check_access), context, prober, customer, deep=deep)
            for customer in customers
        ]
        results: list[AccessReport | XmodeError] = []
        for future in futures:
            try:
                results.append(future.result())
            except XmodeError as error:
                results.append(error)
            except Exception as error:  # noqa: BLE001 - it must not hide what the others came to
                telemetry.exception(Event.DEFECT)
                results.append(defect_of(error))
    return results


def checked_customers(configuration: Configuration, name: str | None) -> list[Customer]:
    """The customers to check: the one that was named, or all but the retired. Raises ConfigError."""
    if name is None:
        customers: Iterable[Customer] = configuration.customers.values()
        return [customer for customer in customers if customer.state is not CustomerState.RETIRED]
    customer = configuration.customer(name, "its access is not checked")
    if customer.state is CustomerState.RETIRED:
        raise ConfigError(
            f"{name} is retired: its access is not checked",
            hint=f"set `state: pending` in customers/{name}.yaml if it comes back",
        )
    return [customer]


def identity_finding(error: VendorIdentityError, facts: SetupValues) -> Finding:
    """The finding about our own identity."""
    if isinstance(error, OtherPrincipal):
        cause = Cause.VENDOR_IDENTITY_WRONG
    elif isinstance(error, VendorClockSkew):
        cause = Cause.CLOCK_SKEW
    else:
        cause = Cause.VENDOR_KEY_INVALID
    return finding(cause, IDENTITY, facts, detail=error.message, request_id=error.request_id)


def unverified(facts: SetupValues) -> Finding:
    """The finding about our identity if STS is not asked for it."""
    return Finding(
        IDENTITY,
        Result.UNKNOWN,
        None,
        Responsible.VENDOR,
        Severity.WARNING,
        f"vendor.verify_identity is false: nothing proves that our access key belongs to {facts.principal}",
    )


def _ours(context: Context, customer: Customer, error: VendorIdentityError) -> AccessReport:
    facts = setup_values(customer, context.vendor.principal_arn)
    return AccessReport(customer.name, context.clock.now(), (identity_finding(error, facts),))


def _checked(
    context: Context,
    prober: Prober,
    customer: Customer,
    region: str | None,
    earlier: AccessReport | None,
    deep: bool,
) -> tuple[AccessReport, Capabilities]:
    """What one check of one customer found, and what was learnt; ``region`` is the bucket's as known."""
    facts, nonce, stop = (
        setup_values(customer, context.vendor.principal_arn),
        secrets.token_hex(8),
        context.stop,
    )
    # What an earlier check could not take away and this one may.
    before = earlier.left if earlier is not None else ()
    left = tuple(item for item in before if item.kind is not LeftoverKind.VERSION)
    arn = prober.verify_identity()
    findings = [passed(IDENTITY, f"we are {arn}") if arn is not None else unverified(facts)]
    assumed, found = try_trust(prober, customer, facts, nonce, stop)
    findings += found
    learned, complete = Capabilities(), not stop.is_set()
    if assumed and complete:
        place = prober.reserve(customer, region)
        reserved = Reserved(place, facts, nonce=nonce, now=context.clock.now(), left_before=left)
        try:
            complete = trying.try_rights(reserved, stop)
        finally:
            place.close()
        findings += [*reserved.findings, *_excess(context, prober, customer, facts, deep)]
        learned, left = reserved.learned, tuple(reserved.left)
    else:
        why = "the role cannot be assumed" if complete else "the check was stopped"
        done = {item.probe for item in findings}
        probes = (*TRUST_PROBES, *trying.PROBES, EXCESS)
        findings += [skipped(probe, why) for probe in probes if probe not in done]
    report = AccessReport(customer.name, context.clock.now(), tuple(findings), left, interrupted=not complete)
    return report, learned


def _excess(
    context: Context, prober: Prober, customer: Customer, facts: SetupValues, deep: bool
) -> list[Finding]:
    if context.stop.is_set():
        return [skipped(EXCESS, "the check was stopped")]
    try:
        rights = list(prober.excess(customer, deep=deep))
    except VendorIdentityError:
        raise
    except XmodeError as error:
        return [skipped(EXCESS, f"not answered: {error.message}")]
    if rights:
        return [finding(Cause.TOO_BROAD, EXCESS, facts, detail=", ".join(rights))]
    tried = prober.reads(deep=deep)
    words = (
        f"tried {len(tried)} harmless reads that the role should not allow; all were denied "
        f"({', '.join(tried)}). A session cannot see what else the role allows: if the customer shows its "
        "policies, run `xmode-transfer policy lint`"
    )
    return [unknown(EXCESS, words)]


def _fields(report: AccessReport) -> dict[str, object]:
    return {
        "outcome": report.outcome,
        "causes": [str(cause) for cause in report.causes],
        "left_behind": len(report.left),
        "left_bytes": sum(item.bytes for item in report.left),
        "seconds": round(report.seconds, 3),
    }
