"""A real Prometheus and a real Alertmanager watch a real daemon, with the rules that deploy/ has for them."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from xmode_transfer.sandbox.model import CustomerSetup, Variant

pytestmark = pytest.mark.sandbox

DEPLOY = Path(__file__).parents[2] / "deploy"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(url: str) -> Any:
    """What it answers; None as long as it answers nothing."""
    try:
        with urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except (URLError, ConnectionError, ValueError):
        return None


def until(found: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return answer


@contextmanager
def served(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on this machine: its address, and the alerts that it was sent."""
    alerts: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", alerts
    server.shutdown()
    server.server_close()


def write_prometheus(directory: Path, daemon_port: int, alertmanager_port: int) -> Path:
    """The configuration and the rules of deploy/, but for addresses and for how long they wait."""
    said = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    said["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    said["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{daemon_port}"]}]
    said["alerting"]["alertmanagers"] = [
        {"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}
    ]
    rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    (directory / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 0s", rules))
    (directory / "prometheus.yml").write_text(yaml.safe_dump(said))
    return directory / "prometheus.yml"


def write_alertmanager(directory: Path, url: str) -> Path:
    """The routes of deploy/, with receivers that this machine has."""
    said = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    said["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    receivers = [receiver["name"] for receiver in said["receivers"]]
    said["receivers"] = [{"name": name, "webhook_configs": [{"url": url + name}]} for name in receivers]
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(said))
    return directory / "alertmanager.yml"


def test_blocked_customers_are_one_alert_that_reaches_a_person(
    project: Callable[..., Any],
    customer_factory: Callable[..., CustomerSetup],
    hook: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    prometheus, alertmanager = program("prometheus"), program("prometheus-alertmanager")
    url, sent = hook
    ports = [free_port() for _ in range(3)]
    page, at_prometheus, at_alertmanager = (f"127.0.0.1:{port}" for port in ports)
    customers = [customer_factory("acme")]
    customers += [customer_factory(name, Variant.NO_ROLE) for name in ("globex", "initech")]
    service = {
        "daemon": {
            "tick_seconds": 1,
            "first_retry_seconds": 1,
            "longest_retry_seconds": 2,
            "drain_seconds": 1,
        },
        "status_page": {"listen": page},
    }
    here = project(*customers, service=service)
    here.write("2026/11/20/a.csv", b"1")
    here.write("2026/11/20/_SUCCESS", b"")
    daemon = here.start("--log-level", "error", "daemon")
    watched = write_prometheus(tmp_path, ports[0], ports[2])
    told = write_alertmanager(tmp_path, url)
    with (
        served(
            [
                alertmanager,
                f"--config.file={told}",
                f"--storage.path={tmp_path / 'alertmanager'}",
                f"--web.listen-address={at_alertmanager}",
                "--cluster.listen-address=",
            ],
            tmp_path / "alertmanager.log",
        ),
        served(
            [
                prometheus,
                f"--config.file={watched}",
                f"--storage.tsdb.path={tmp_path / 'prometheus'}",
                f"--web.listen-address={at_prometheus}",
            ],
            tmp_path / "prometheus.log",
        ),
    ):

        def refused() -> list[dict[str, Any]]:
            found = asked(f"http://{at_alertmanager}/api/v2/alerts") or []
            return [item for item in found if item["labels"]["alertname"] == "XmodeCustomersBlocked"]

        def complete() -> list[dict[str, Any]]:
            return [item for item in refused() if item["annotations"]["summary"].startswith("2 ")]

        (alert,) = until(complete, "the alert of both customers at Alertmanager")
        assert alert["labels"]["cause"] == "role_refused"
        assert alert["labels"]["responsible"] == "customer"
        assert alert["annotations"]["summary"] == "2 customers are blocked: role_refused"
        assert len(refused()) == 1

        message = until(
            lambda: [a for a in sent if a["labels"]["alertname"] == "XmodeCustomersBlocked"], "the webhook"
        )[0]
        assert message["status"] == "firing"
        assert "check-access" in message["annotations"]["action"]

        query = "xmode_customers"
        answer = asked(f"http://{at_prometheus}/api/v1/query?query={query}")
        by_health = {row["metric"]["health"]: row["value"][1] for row in answer["data"]["result"]}
        assert by_health["blocked"] == "2"
        firing = asked(f"http://{at_prometheus}/api/v1/rules")["data"]["groups"]
        assert not [rule for group in firing for rule in group["rules"] if rule["health"] == "err"]

        daemon.terminate()
        assert daemon.wait(120) == 0
        until(
            lambda: [a for a in sent if a["labels"]["alertname"] == "XmodeDaemonDown"],
            "the alert of a daemon that does not answer",
        )
