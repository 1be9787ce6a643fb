"""The probes for liveness and readiness, and /metrics, over HTTP."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tests.unit.web.conftest import NOW, OneDaemon, Page, ask
from xmode_transfer.config import Problem
from xmode_transfer.model.process import longest_silence
from xmode_transfer.web.application import KEPT_SECONDS
from xmode_transfer.web.server import Server

Open = Callable[..., Server]


def test_a_daemon_that_does_not_tick_is_not_alive(open_page: Open, page: Page) -> None:
    address = open_page().address
    page.clock.advance(longest_silence(60).total_seconds())
    assert ask(address, "/healthz").status == 200
    page.clock.advance(1)
    answer = ask(address, "/healthz")
    assert answer.status == 503
    assert answer.text == "failed daemon: the daemon's clock ticked 241 s ago\n"


def test_a_daemon_is_alive_after_the_clock_was_set_back(open_page: Open, page: Page) -> None:
    daemon = OneDaemon(ticked_at=NOW + timedelta(hours=1))
    assert ask(open_page(daemon=daemon).address, "/healthz").status == 200


def test_a_daemon_with_a_writable_ledger_is_ready(open_page: Open) -> None:
    answer = ask(open_page().address, "/readyz")
    assert answer.status == 200
    assert answer.text.splitlines() == [
        "ok ledger: writable",
        "ok configuration: 0 valid customers",
        "ok daemon: running",
    ]


def test_a_read_only_ledger_is_not_ready_until_it_is_fixed(
    open_page: Open, page: Page, tmp_path: Path
) -> None:
    address = open_page().address
    assert ask(address, "/readyz").status == 200
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("BEGIN IMMEDIATE")
        page.clock.advance(KEPT_SECONDS + 1)
        answer = ask(address, "/readyz")
        assert answer.status == 503
        assert "failed ledger: ledger_locked\n" in answer.text
    other.close()
    assert ask(address, "/readyz").status == 503  # what is known is told for a few seconds
    page.clock.advance(KEPT_SECONDS + 1)
    assert ask(address, "/readyz").status == 200


def test_a_broken_customer_does_not_affect_readiness(open_page: Open, page: Page) -> None:
    problem = Problem("customers/acme.yaml", 1, 1, "", "wrong")
    page.configuration = replace(page.configuration, broken={"acme": (problem,)}, problems=(problem,))
    assert ask(open_page().address, "/readyz").status == 200


def test_a_daemon_that_is_stopping_is_alive_but_not_ready(open_page: Open) -> None:
    address = open_page(daemon=OneDaemon(stopping=True)).address
    assert ask(address, "/healthz").status == 200
    answer = ask(address, "/readyz")
    assert answer.status == 503
    assert "failed daemon: stopping" in answer.text


def test_metrics_are_served_unchanged(open_page: Open, page: Page) -> None:
    page.metrics = 'xmode_customers{name="ä"} 1\n'.encode()
    answer = ask(open_page().address, "/metrics")
    assert answer.body == page.metrics
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
