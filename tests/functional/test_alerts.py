"""`alerts list` and `alerts test` as a person calls them."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.functional.conftest import Project
from xmode_transfer.alerting.alerts import by_cause
from xmode_transfer.alerting.health_records import Issue
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.records import Delivery, Failure, Status
from xmode_transfer.telemetry import SystemClock

FEED = 'source: exports\nperiod: day\npartition: "%Y/%m/%d"\n'
CUSTOMER = """\
company: Acme Corp
external_id: AcmeCorp
role_arn: arn:aws:iam::111122223333:role/XMode
destination: {bucket: acme-data, prefix: xmode/, region: us-east-1}
feeds: [us-daily]
"""


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", bodies
    server.shutdown()
    server.server_close()


def blocked(project: Project) -> None:
    """A delivery that waits for the customer, and an alert that was resolved yesterday."""
    for place, text in (("feeds/us-daily", FEED), ("customers/acme", CUSTOMER)):
        path = project.directory / f"{place}.yaml"
        path.parent.mkdir()
        path.write_text(text)
    clock = SystemClock()
    at = clock.now() - timedelta(days=1)
    ledger = open_ledger(f"sqlite:///{project.directory / 'var' / 'ledger.db'}", clock)
    failure = Failure("role_refused", "customer", "the role refuses us", "send the trust policy")
    ledger.deliveries.create(
        ledger.leases.claim("delivery/acme", "h", 90),
        Delivery(
            "id", "acme", "us-daily", f"{clock.now():%Y-%m-%d}", 1, Status.BLOCKED, at, at, failure=failure
        ),
    )
    (over,) = by_cause(
        [("", Issue("clock_skew", Responsible.VENDOR, "it was 20 minutes off", "mend NTP", at))]
    )
    ledger.alerts.record(ledger.leases.claim("watch", "h", 90), [replace(over, opened_at=at, resolved_at=at)])
    ledger.close()


def test_the_list_has_alerts_that_were_never_sent(bare_project: Project) -> None:
    assert bare_project.run("alerts", "list").out == "no alerts\n"
    blocked(bare_project)
    answer = bare_project.run("alerts", "list")
    assert answer.code == 0
    assert answer.out.startswith("open     acme: AssumeRole is refused since ")
    assert "the role refuses us" in answer.out
    assert "Responsible: customer. Send the trust policy" in answer.out
    assert "notified     no channel" in answer.out
    assert "clock" not in answer.out

    (alert,) = bare_project.run("alerts", "list", "--json").json["alerts"]
    assert (alert["cause"], alert["state"], alert["responsible"]) == ("role_refused", "open", "customer")
    assert (alert["customers"], alert["channels"]) == (["acme"], [])
    alerts = bare_project.run("alerts", "list", "--all", "--json").json["alerts"]
    assert [(item["cause"], item["state"]) for item in alerts] == [
        ("role_refused", "open"),
        ("clock_skew", "resolved"),
    ]
    assert "resolved this machine's clock is wrong" in bare_project.run("alerts", "list", "--all").out


def test_a_channel_gets_a_test_message_and_its_resolution(
    bare_project: Project, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, bodies = webhook
    answer = bare_project.run("alerts", "test")
    assert answer.code == 2
    assert "no alert channel is configured" in answer.err
    with (bare_project.directory / "service.yaml").open("a") as service:
        service.write("alerts: [{name: ops, webhook: env:OPS}, {name: off, webhook: env:OFF}]\n")
    bare_project.environment["OPS"] = url
    answer = bare_project.run("alerts", "test", "--channel", "ops")
    assert (answer.code, answer.out) == (0, "sent      ops: 204 No Content\n")
    assert [body["event"] for body in bodies] == ["test", "resolved"]
    assert len({body["fingerprint"] for body in bodies}) == 1

    answer = bare_project.run("alerts", "test", "--json")
    assert answer.code == 3
    sent, failed = answer.json["channels"]
    assert (sent["channel"], sent["sent"]) == ("ops", True)
    assert (failed["channel"], failed["sent"]) == ("off", False)
    assert "OFF is not set" in failed["error"]
    assert "there is no alert channel x" in bare_project.run("alerts", "test", "--channel", "x").err
