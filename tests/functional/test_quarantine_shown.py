"""What `status` and `alerts list` say of periods and files that a check before release holds back."""

from datetime import timedelta

from tests.functional.conftest import Project
from tests.functional.test_alerts import CUSTOMER, FEED
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.checks import Check, FailedCheck, Judgement, Verdict
from xmode_transfer.model.records import Delivery, Failure, Status
from xmode_transfer.telemetry import SystemClock

FAILED = FailedCheck(Check.MIN_FILES, "3 files, and at least 10")


def fill(project: Project) -> list[str]:
    """Two periods are quarantined for two customers, and a file of a drop folder; the periods."""
    of_globex = (
        CUSTOMER.replace("Acme Corp", "Globex").replace("AcmeCorp", "Globex").replace("acme", "globex")
    )
    of_globex = of_globex.replace("111122223333", "444455556666")
    of_acme = CUSTOMER.replace("[us-daily]", "[us-daily, drops]")
    for place, text in (
        ("feeds/us-daily", FEED),
        ("feeds/drops", "source: drops\nperiod: none\n"),
        ("customers/acme", of_acme),
        ("customers/globex", of_globex),
    ):
        path = project.directory / f"{place}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    clock = SystemClock()
    now = clock.now()
    ledger = open_ledger(f"sqlite:///{project.directory / 'var' / 'ledger.db'}", clock)
    lease = ledger.leases.claim("delivery/any", "h", 90)
    periods = [f"{now - timedelta(days=back):%Y-%m-%d}" for back in (2, 1)]
    for customer in ("acme", "globex"):
        for period in periods:
            failure = Failure("quarantined", "vendor", FAILED.message, f"release {period}")
            name = f"{customer}-{period}"
            delivery = Delivery(
                name, customer, "us-daily", period, 1, Status.QUARANTINED, now, now, failure=failure
            )
            ledger.deliveries.create(lease, delivery)
    failed = (FailedCheck(Check.FORMAT, "begins with 3c68, and gzip begins with 1f8b", "a.gz"),)
    judgement = Judgement("drops", "none", "a.gz", "print", Verdict.QUARANTINED, 1, 9, failed, now)
    ledger.judgements.record(judgement)
    ledger.close()
    return periods


def test_status_and_alerts_name_each_quarantined_period_once(bare_project: Project) -> None:
    first, second = fill(bare_project)
    answer = bare_project.run("status", "--no-look", "--json")
    assert answer.code == 0, answer.err
    found = {item["customer"]: item for item in answer.json["customers"]}
    assert {item["status"] for item in found.values()} == {"quarantined"}
    assert answer.json["counts"]["quarantined"] == 2
    assert [feed["quarantined"] for feed in found["acme"]["feeds"]] == [[first, second], ["a.gz"]]
    assert [issue["period"] for issue in found["acme"]["issues"]] == [first, second, "none"]
    assert {issue["responsible"] for issue in found["acme"]["issues"]} == {"vendor"}

    lines = " ".join(bare_project.run("status", "--no-look", "--customer", "acme").out.split())
    for period in (first, second):
        assert f"quarantined {period} r1 since" in lines
        assert f"the vendor must act: release {period}" in lines
    assert "a.gz: begins with 3c68, and gzip begins with 1f8b" in lines
    assert "`xmode-transfer release --feed drops --period none --reason TEXT`" in lines
    assert lines.count(FAILED.message) == 2

    alerts = bare_project.run("alerts", "list", "--json").json["alerts"]
    assert {alert["detail"]: alert["customers"] for alert in alerts} == {
        f"us-daily {first}": ["acme", "globex"],
        f"us-daily {second}": ["acme", "globex"],
        "drops": ["acme"],
    }
    assert {alert["cause"] for alert in alerts} == {"quarantined"}
    assert {alert["message"] for alert in alerts if alert["customer_count"] == 2} == {FAILED.message}
