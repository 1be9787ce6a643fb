"""What deploy/ holds for Prometheus, Alertmanager and Grafana: judged by their own tools, and held to the
metrics that there are."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from annotated_types import Le

from xmode_transfer.alerting.alerts import SUMMARIES
from xmode_transfer.alerting.health_records import Health
from xmode_transfer.config.service import Daemon
from xmode_transfer.web.catalogue import CATALOGUE

CHECKOUT = Path(__file__).parents[2]
PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
ALERTMANAGER = CHECKOUT / "deploy" / "alertmanager" / "alertmanager.yml"
DASHBOARD = CHECKOUT / "deploy" / "grafana" / "xmode-transfer.json"
OPERATIONS = CHECKOUT / "docs" / "operations.md"
# Prometheus makes `up` by itself; its client library exports the others.
NOT_OURS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}


def judged(name: str, *arguments: str | Path) -> str:
    """Runs one of Prometheus' tools, which fails what is wrong; what it says."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    command = [found, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    said = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in said["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    said = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = said["panels"]
    return found


def metrics_in(query: str) -> set[str]:
    """The names that a query asks for: what is left without strings, labels, functions and numbers."""
    without = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without)\s*\([^)]*\)', " ", query)
    return set(re.findall(r"\b(?:xmode|process|python)_\w+|\bup\b", without))


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_takes_it(arguments: tuple[str, ...]) -> None:
    judged("promtool", *arguments)


def test_alertmanager_takes_it() -> None:
    judged("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(
    ("severity", "responsible", "receiver"),
    [
        ("page", "vendor", "on-call"),
        ("ticket", "vendor", "tickets"),
        ("page", "aws", "tickets"),
        ("page", "customer", "customer-success"),
        ("ticket", "customer", "customer-success"),
    ],
)
def test_alertmanager_tells_who_must_act(severity: str, responsible: str, receiver: str) -> None:
    routes = ("config", "routes", "test", f"--config.file={ALERTMANAGER}")
    assert judged("amtool", *routes, f"severity={severity}", f"responsible={responsible}").strip() == receiver


def test_every_word_of_trouble_has_an_alert() -> None:
    # ``attention`` is what cares come to, which have alerts of their own.
    quiet = {Health.HEALTHY, Health.DUE, Health.PENDING, Health.RETIRED, Health.ATTENTION}
    expressions = " ".join(rule["expr"] for rule in rules())
    asked = set(re.findall(r'health="([a-z-]+)"', expressions))
    asked |= set(re.findall(r"xmode_(quarantined)_periods", expressions))  # by feed, not by customer
    assert asked == set(Health) - quiet


def test_what_hurts_everybody_is_told_once() -> None:
    """The causes that the general alert leaves out are those that have one of their own."""
    said = {rule["alert"]: rule for rule in rules()}
    left_out = re.findall(r'cause!~"([^"]*)"', said["XmodeServiceIssue"]["expr"])[0].split("|")
    alone = ("XmodeVendorIdentityRefused", "XmodeConfigurationBroken")
    assert set(left_out) == {said[name]["labels"]["cause"] for name in alone}


def test_a_daemon_is_not_called_stuck_between_two_ticks() -> None:
    (expression,) = (rule["expr"] for rule in rules() if rule["alert"] == "XmodeDaemonStuck")
    longest = next(item.le for item in Daemon.model_fields["tick_seconds"].metadata if isinstance(item, Le))
    assert int(expression.rpartition("> ")[2]) > int(str(longest))


def test_alerts_ask_for_metrics_that_there_are() -> None:
    known = {item.name for item in CATALOGUE} | NOT_OURS
    for rule in rules():
        asked = metrics_in(rule["expr"])
        assert asked, rule["alert"]
        assert asked <= known, rule["alert"]


def test_each_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "action", "runbook"}, rule["alert"]
        assert rule["labels"].get("responsible", "vendor") in ("vendor", "customer", "aws")


def test_no_alert_is_one_of_a_customer() -> None:
    """Of thousands of customers one cause is one alert: no series that an alert asks for names a customer."""
    labels = {item.name: item.labels for item in CATALOGUE}
    for rule in rules():
        assert all("customer" not in labels.get(name, ()) for name in metrics_in(rule["expr"])), rule["alert"]


def test_each_alert_and_each_cause_has_its_row_in_operations() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    for rule in rules():
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{anchor}"
        assert f'| <a id="{anchor}"></a>`{rule["alert"]}` |' in text, rule["alert"]
        cause = rule["labels"].get("cause")
        assert cause is None or cause in SUMMARIES, rule["alert"]
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert [cause for cause in SUMMARIES if f"`{cause}`" not in rows] == []


def test_the_rules_are_tried_one_by_one() -> None:
    tried = (PROMETHEUS / "alerts.test.yml").read_text(encoding="utf-8")
    untried = [rule["alert"] for rule in rules() if f"alertname: {rule['alert']}" not in tried]
    assert untried == []


def test_panels_stand_beside_each_other() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    places = [(panel["title"], panel["gridPos"]) for panel in panels()]
    for _, place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for (one, a), (other, b) in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one, other)


def test_panels_ask_for_metrics_that_there_are_from_the_chosen_server() -> None:
    known = {item.name for item in CATALOGUE} | NOT_OURS
    for panel in panels():
        for target in panel.get("targets", ()):
            asked = metrics_in(target["expr"])
            assert asked, panel["title"]
            assert asked <= known, panel["title"]
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    filled = [re.sub(r"\$(job|customer)\b", "any", query) for query in queries]
    assert "$" not in "".join(filled)
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(filled)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    judged("promtool", "check", "rules", path)


def test_the_dashboard_s_variables_are_used_and_declared() -> None:
    said = DASHBOARD.read_text(encoding="utf-8")
    declared = {item["name"] for item in json.loads(said)["templating"]["list"]}
    used = set(re.findall(r"\$\{?(datasource|job|customer)\b", said))
    assert declared == used == {"datasource", "job", "customer"}
