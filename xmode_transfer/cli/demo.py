"""`xmode-transfer demo`: a complete delivery on one machine, step by step.

It runs the installed commands, as a person would, and fails if a step has another result than expected.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from xmode_transfer.cli import demo_stage, streams, terminal
from xmode_transfer.cli.terminal import Part
from xmode_transfer.model.errors import ExitCode, XmodeError
from xmode_transfer.model.keys import manifest_key
from xmode_transfer.sandbox import accounts, demo_data, server
from xmode_transfer.sandbox.model import VENDOR_PRINCIPAL_ARN, CustomerSetup, Sandbox, Variant, write_config
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.web import states

CUSTOMERS = {"acme": Variant.GUIDE, "globex": Variant.GUIDE, "initech": Variant.WRONG_EXTERNAL_ID}
FEEDS_OF = {"globex": [demo_data.DAILY], "initech": [demo_data.DROPS]}


class DemoFailed(XmodeError):
    code = "demo_failed"
    exit_code = ExitCode.DEFECT


@click.command()
@click.option("--keep", is_flag=True, help="Keep the local AWS, the daemon and its page running.")
@click.option("--stop", is_flag=True, help="Stop and remove what --keep left running.")
@click.option("--plain", is_flag=True, help="Show no colours and no progress bars.")
def command(keep: bool, stop: bool, plain: bool) -> int:
    """Run a complete delivery on this machine, without AWS.

    Starts a local AWS with three customers, delivers real data to two of them, and shows what they receive.
    The third has made a mistake, and you see the error. Writes only to .demo and .sandbox in this directory.

    With --keep, everything stays up, a daemon continues to deliver, and the last line is the address of its
    status page. A demo that still runs is stopped first.

    \b
    xmode-transfer demo
    xmode-transfer demo --keep
    xmode-transfer demo --stop
    """
    if stop and keep:
        raise click.UsageError("choose one of --keep and --stop")
    if stop:
        removed = demo_stage.remove(demo_stage.DIRECTORY)
        terminal.say("Stopped and removed the demo." if removed else "No demo is running here.")
        return ExitCode.DONE
    plain = plain or not sys.stdout.isatty() or not sys.stderr.isatty() or streams.is_dumb()
    if plain:
        os.environ["NO_COLOR"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no process remains
    _Demo(plain=plain, keep=keep).run()
    return ExitCode.DONE


class _Demo:
    def __init__(self, *, plain: bool, keep: bool) -> None:
        self.plain = plain
        self.keep = keep
        self.step = 0
        self.directory = demo_stage.DIRECTORY.absolute()
        self.clock = SystemClock()
        self.today = self.clock.now().date()
        self.environment: dict[str, str] = {}
        self.daemon: demo_stage.KeptDaemon | None = None
        self.port = demo_stage.free_port() if keep else 0

    def run(self) -> None:
        """Run all steps. If one fails, stop everything and raise DemoFailed."""
        began = self.clock.monotonic()
        terminal.say(("xmode-transfer", "bold"), ": a real delivery, on this machine alone")
        if demo_stage.remove(demo_stage.DIRECTORY):
            _note("stopped and removed the demo that was here before")
        self.directory.mkdir(mode=0o700)
        demo_stage.write_state(self.directory, None)
        sandbox = None
        try:
            sandbox = self.start_aws()
            acme, initech = sandbox.customer("acme"), sandbox.customer("initech")
            self.prepare(sandbox)
            self.deliver(acme, sandbox.customer("globex"))
            self.show_bucket(acme)
            self.run_again(acme)
            self.refuse(initech)
            self.title("The state of all customers, from the ledger")
            self.execute("status")
            self.fix_trust_policy(initech)
            if self.keep:
                self.start_daemon(sandbox)
            self.end(sandbox, states.duration(self.clock.monotonic() - began))
        except BaseException:
            if self.daemon is not None:
                self.daemon.end()
            if sandbox is not None:
                server.stop(sandbox)
            raise
        if not self.keep:
            demo_stage.remove(demo_stage.DIRECTORY)

    # --- Steps

    def start_aws(self) -> Sandbox:
        self.title("A local AWS, with three customers")
        sandbox = server.start(None, CUSTOMERS, detach=self.keep, say=_note)
        demo_stage.write_state(self.directory, sandbox)
        self.environment = demo_stage.environment(sandbox, self.directory / "config")
        _fact("acme, globex", "followed the setup guide to the letter: one role, one bucket each")
        _fact("initech", "mistyped the external ID in its role's trust policy")
        _fact("vendor", f"we are {VENDOR_PRINCIPAL_ARN}")
        _fact("endpoint", f"{sandbox.endpoint}, which enforces these policies as AWS does")
        return sandbox

    def prepare(self, sandbox: Sandbox) -> None:
        self.title("Data, and a configuration")
        written = demo_data.write(self.directory / "data", self.today)
        feeds = {
            name: {"source": str(self.directory / "data" / name), **feed}
            for name, feed in demo_data.FEEDS.items()
        }
        if demo_data.write_offsets(self.directory / "data", self.today):
            source = self.directory / "data" / demo_data.OFFSETS
            feeds[demo_data.OFFSETS] = {"source": str(source), **demo_data.OFFSETS_FEED}
        service = demo_stage.service(self.port) if self.keep else None
        overrides = {name: {"feeds": chosen} for name, chosen in FEEDS_OF.items()}
        config = write_config(
            self.directory / "config", sandbox, feeds=feeds, overrides=overrides, service=service
        )
        demo_stage.write_env(self.directory, self.environment)
        size = f"{states.count(written.files, 'file')}, {states.size(written.size)}"
        _fact("data", f"{size}: the clocks of {len(demo_data.places())} places of the time zone database")
        days = f"complete when {demo_data.MARKER} is there; {demo_data.DAYS} days"
        _fact(demo_data.DAILY, f"one delivery a day, {days}")
        _fact(demo_data.DROPS, "a drop folder: each new file is delivered once")
        if demo_data.OFFSETS in feeds:
            _fact(demo_data.OFFSETS, "Parquet files, which acme receives as a Delta table too")
        terminal.say()
        _say(f".demo/config/customers/acme.yaml, one of {states.count(len(CUSTOMERS), 'customer')}:")
        _quote(*(config / "customers" / "acme.yaml").read_text(encoding="utf-8").splitlines())
        self.execute("config", "check")

    def deliver(self, *customers: CustomerSetup) -> None:
        self.title("Deliver to acme, then to globex")
        for customer in customers:
            self.execute("run", "--customer", customer.name)
            self.check_bucket(customer)

    def show_bucket(self, acme: CustomerSetup) -> None:
        self.title("What acme finds in its bucket")
        self.execute("list", "--customer", "acme", shown=12)
        period = (self.today - timedelta(days=1)).isoformat()
        key = manifest_key(acme.prefix, demo_data.DAILY, period, 1)
        manifest = json.loads(accounts.read_object(acme, key))
        terminal.say()
        _say(f"the manifest of {period}, read with acme's own keys; every object that it lists is there")
        _say(f"s3://{acme.bucket}/{key}")
        first, *others = manifest["objects"]
        abbreviated = {**manifest, "objects": [first, f"and {len(others)} more"]}
        _quote(*json.dumps(abbreviated, indent=2, ensure_ascii=False).splitlines())
        count = states.count(self.check_manifest(acme, manifest, period), "object")
        _say(f"{count} read back and compared with the files: identical, byte for byte")
        root = f"{acme.prefix}{demo_data.OFFSETS}/"
        if any(key.startswith(f"{root}_delta_log/") for key in accounts.list_keys(acme)):
            self.show_table(acme, f"s3://{acme.bucket}/{root}")

    def show_table(self, acme: CustomerSetup, root: str) -> None:
        terminal.say()
        _say(f"{demo_data.OFFSETS} is a Delta table too; acme asks it in DuckDB, with its own keys")
        clocks = "count(*) AS places, count(DISTINCT utc_offset_minutes) AS clocks"
        sql = f"SELECT dt, {clocks} FROM delta_scan('{root}') GROUP BY dt ORDER BY dt"
        _quote(sql)
        rows = demo_stage.query(acme, sql)
        if rows is None:
            extensions = "duckdb-extensions duckdb-extension-httpfs duckdb-extension-delta"
            _say(f"to see the answer here: pip install duckdb {extensions}")
            return
        _quote(*(f"{day}  {places:>5,} places  {clocks:>3} clocks" for day, places, clocks in rows))
        if [places for _, places, _ in rows] != [len(demo_data.places())] * demo_data.DAYS:
            _fail("the table does not have every place of every day")

    def run_again(self, acme: CustomerSetup) -> None:
        self.title("Run it again: nothing is sent twice")
        before = _bucket_state(acme)
        self.execute("run", "--customer", "acme")
        if _bucket_state(acme) != before:
            _fail("the second run changed acme's bucket")

    def refuse(self, initech: CustomerSetup) -> None:
        self.title("What the operator sees when the customer must act")
        self.execute("run", "--customer", "initech", expect=ExitCode.BLOCKED)
        outcome = f"exit code {ExitCode.BLOCKED}: blocked. The delivery waits and is not lost"
        _say(f"{outcome}; other customers are not delayed")
        if accounts.list_keys(initech):
            _fail("something was written to initech's bucket")

    def fix_trust_policy(self, initech: CustomerSetup) -> None:
        self.title("initech fixes its trust policy: the waiting delivery goes out")
        accounts.set_trust_policy(initech, accounts.guide_trust_policy(initech.external_id))
        self.execute("run", "--customer", "initech")
        self.check_bucket(initech)

    def start_daemon(self, sandbox: Sandbox) -> None:
        self.title("From now on the daemon delivers, and serves a status page")
        self.daemon = demo_stage.start(self.directory, self.environment, self.port)
        demo_stage.write_state(self.directory, sandbox, self.daemon)
        if (problem := demo_stage.await_ready(self.daemon, self.directory)) is not None:
            _fail(problem)
        _fact("daemon", f"process {self.daemon.pid}; its log is .demo/{demo_stage.LOG}")
        _fact("scans", f"every {demo_stage.TICK_SECONDS} seconds for data to deliver")

    def end(self, sandbox: Sandbox, seconds: str) -> None:
        self.title(f"Done in {seconds}" + ("; everything is still running" if self.keep else ""))
        program = demo_stage.program_shown()
        if self.daemon is None:
            _say("The local AWS is stopped, and .demo is removed. To try more, keep everything running:")
            _quote(f"{program} demo --keep", style="bold")
            return
        _say("In a shell, with the page beside it; the daemon delivers the new file within seconds:")
        _quote(
            ". .demo/env",
            f"date > .demo/data/{demo_data.DROPS}/new.csv",
            "xmode-transfer list --customer acme --feed drops",
            "xmode-transfer status --json",
            style="bold",
        )
        _say(f"{sandbox.id} and the daemon run until you stop them:")
        _quote(f"{program} demo --stop", style="bold")
        _say("The status page:")
        _quote(self.daemon.address, style="bold")

    # --- Commands and checks

    def title(self, text: str) -> None:
        self.step += 1
        terminal.say()
        terminal.say((str(self.step), "bold cyan"), "  ", (text, "bold"))

    def execute(self, *arguments: str, expect: int = ExitCode.DONE, shown: int | None = None) -> None:
        """Run the installed command, which must end with ``expect``. Show at most ``shown`` lines."""
        line = shlex.join(["xmode-transfer", *arguments])
        terminal.say()
        terminal.say((f"$ {line}", "bold"))
        captured = self.plain or shown is not None
        done = subprocess.run(
            [*demo_stage.program(), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL if captured else None,
            stdout=subprocess.PIPE if captured else None,
            stderr=subprocess.STDOUT if self.plain else None,
            text=True,
            errors="replace",
            check=False,
        )
        lines = (done.stdout or "").splitlines()
        if shown is not None and len(lines) > shown:
            head = shown // 2
            lines[head : head - shown] = [f"  ... {len(lines) - shown:,} more lines ..."]
        for output in lines:
            terminal.say(output)
        if done.returncode != expect:
            _fail(f"`{line}` ended with exit code {done.returncode} instead of {expect}")

    def sources(self, customer: CustomerSetup) -> dict[str, Path]:
        """Return the files that the customer should have, by their keys."""
        found = {}
        for feed in FEEDS_OF.get(customer.name, list(demo_data.FEEDS)):
            root = self.directory / "data" / feed
            for path in root.rglob("*.csv*"):
                found[f"{customer.prefix}{feed}/{path.relative_to(root)}"] = path
        return found

    def check_bucket(self, customer: CustomerSetup) -> None:
        keys = accounts.list_keys(customer)
        table = f"{customer.prefix}{demo_data.OFFSETS}/"
        objects = {key for key in keys if "/_manifests/" not in key and not key.startswith(table)}
        wanted = self.sources(customer).keys()
        if objects != wanted:
            _fail(f"{customer.name} should have {len(wanted)} objects and has {len(objects)}")
        if len(objects) == len(keys):
            _fail(f"{customer.name} has no manifest")

    def check_manifest(self, customer: CustomerSetup, manifest: Mapping[str, Any], period: str) -> int:
        """Compare what the manifest lists with the files, and return the number of objects."""
        day = f"/{period.replace('-', '/')}/"
        wanted = {key: path for key, path in self.sources(customer).items() if day in key}
        if {entry["key"] for entry in manifest["objects"]} != wanted.keys():
            _fail(f"the manifest of {period} does not list that day's files")
        for key, path in wanted.items():
            if accounts.read_object(customer, key) != path.read_bytes():
                _fail(f"{key} is not the file that was delivered")
        return len(wanted)


def _bucket_state(customer: CustomerSetup) -> dict[str, datetime]:
    """Return when each object was written."""
    pages = accounts.owner(customer, "s3").get_paginator("list_objects_v2").paginate(Bucket=customer.bucket)
    return {entry["Key"]: entry["LastModified"] for page in pages for entry in page["Contents"]}


def _fail(problem: str) -> NoReturn:
    raise DemoFailed(
        f"The demo failed: {problem}.",
        hint=f"the data, the configuration and the ledger are still in {demo_stage.DIRECTORY}",
    )


def _say(*parts: Part) -> None:
    terminal.say(*parts, indent=3)


def _note(text: str) -> None:
    _say((text, "dim"))


def _fact(name: str, text: str) -> None:
    terminal.say(text, label=(f"{name:<14} ", "green"), indent=3)


def _quote(*lines: str, style: str = "dim") -> None:
    for line in lines:
        terminal.say((line, style), indent=5)
