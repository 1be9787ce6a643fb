"""``xmode-transfer demo``: a complete delivery on one machine, step by step.

The demo runs the installed commands, as a person would. It checks each step, so it is also a test: its exit
code is not 0 if a step has another result than expected.
"""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape

from xmode_transfer.cli import demo_stage, streams
from xmode_transfer.model.errors import ExitCode, XmodeError
from xmode_transfer.model.keys import manifest_key, object_key
from xmode_transfer.sandbox import accounts, demo_data, server
from xmode_transfer.sandbox.accounts import guide_trust_policy, set_trust_policy
from xmode_transfer.sandbox.model import VENDOR_PRINCIPAL_ARN, CustomerSetup, Sandbox, Variant, write_config
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.web import states

CUSTOMERS = {"acme": Variant.GUIDE, "globex": Variant.GUIDE, "initech": Variant.WRONG_EXTERNAL_ID}
FEEDS_OF = {"globex": [demo_data.DAILY], "initech": [demo_data.DROPS]}
WIDTH = 110


class DemoFailed(XmodeError):
    """A step did not end as the demo says it does."""

    code = "demo_failed"
    exit_code = ExitCode.DEFECT


@click.command()
@click.option("--keep", is_flag=True, help="Keep the local AWS, the daemon and its page running.")
@click.option("--stop", is_flag=True, help="Stop and remove what --keep left running.")
@click.option("--plain", is_flag=True, help="Show no colours and no progress bars.")
def command(keep: bool, stop: bool, plain: bool) -> int:
    """Run a complete delivery in two minutes, without an AWS account.

    Starts a local AWS with three customers, delivers real data to two of them, and shows what they receive.
    The third has made a mistake, and you see the error. Writes only to .demo and .sandbox in this directory.

    With --keep, everything stays up, a daemon continues to deliver, and the last line is the address of its
    status page. A demo that still runs is stopped first.

    \b
    xmode-transfer demo
    xmode-transfer demo --keep
    xmode-transfer demo --stop
    """
    if stop:
        if keep:
            raise click.UsageError("choose one of --keep and --stop")
        click.echo(
            "Stopped and removed the demo."
            if demo_stage.remove(demo_stage.DIRECTORY)
            else "No demo is running here."
        )
        return ExitCode.DONE
    plain = plain or not sys.stdout.isatty() or not sys.stderr.isatty() or streams.is_dumb()
    width = WIDTH if plain else None
    console = Console(file=streams.bare(sys.stdout), no_color=plain or None, highlight=False, width=width)
    with _ended_in_order():
        Story(console, plain=plain, keep=keep).tell()
    return ExitCode.DONE


class Story:
    """The demo's steps, in order."""

    def __init__(self, console: Console, *, plain: bool, keep: bool) -> None:
        self.console = console
        self.plain = plain
        self.keep = keep
        self.step = 0
        self.directory = demo_stage.DIRECTORY.absolute()
        self.clock = SystemClock()
        self.today = self.clock.now().date()
        self.environment: dict[str, str] = {}
        self.daemon: demo_stage.KeptDaemon | None = None
        self.port = demo_stage.free_port() if keep else 0

    def tell(self) -> None:
        """Runs all steps. Raises DemoFailed at the first step that fails, and then stops everything."""
        began = self.clock.monotonic()
        self.console.print("[bold]xmode-transfer[/]: a real delivery, on this machine alone")
        if demo_stage.remove(demo_stage.DIRECTORY):
            self.note("stopped and removed the demo that was here before")
        self.directory.mkdir(mode=0o700)
        demo_stage.write_state(self.directory, None)
        sandbox = None
        try:
            sandbox = self.start_aws()
            self.prepare(sandbox)
            self.deliver(sandbox)
            self.look(sandbox.customer("acme"))
            self.run_again(sandbox.customer("acme"))
            self.refuse(sandbox.customer("initech"))
            self.ask_status()
            self.fix_trust_policy(sandbox.customer("initech"))
            if self.keep:
                self.take_over(sandbox)
            seconds = states.duration(self.clock.monotonic() - began)
            self.end(sandbox, seconds)
        except BaseException:
            if self.daemon is not None:
                self.daemon.end()
            if sandbox is not None:
                server.stop(sandbox)
            raise
        if not self.keep:
            demo_stage.remove(demo_stage.DIRECTORY)

    # --- The steps -------------------------------------------------------------------------------------

    def start_aws(self) -> Sandbox:
        self.title("A local AWS, with three customers")
        sandbox = server.start(None, CUSTOMERS, detach=self.keep, say=self.note)
        demo_stage.write_state(self.directory, sandbox)
        self.environment = demo_stage.environment(sandbox, self.directory / "config")
        self.fact("acme, globex", "followed the setup guide to the letter: one role, one bucket each")
        self.fact("initech", "mistyped the external ID in its role's trust policy")
        self.fact("vendor", f"we are {VENDOR_PRINCIPAL_ARN}")
        self.fact("endpoint", f"{sandbox.endpoint}, which enforces these policies as AWS does")
        return sandbox

    def prepare(self, sandbox: Sandbox) -> None:
        self.title("Data, and a configuration")
        written = demo_data.write(self.directory / "data", self.today)
        feeds = {
            name: {"source": str(self.directory / "data" / name), **feed}
            for name, feed in demo_data.FEEDS.items()
        }
        service = demo_stage.service(self.port) if self.keep else None
        overrides = {name: {"feeds": chosen} for name, chosen in FEEDS_OF.items()}
        config = write_config(
            self.directory / "config", sandbox, feeds=feeds, overrides=overrides, service=service
        )
        demo_stage.write_env(self.directory, self.environment)
        self.fact(
            "data",
            f"{states.count(written.files, 'file')}, {states.size(written.size)}: the clocks of "
            f"{len(demo_data.places())} places of the time zone database",
        )
        self.fact(
            demo_data.DAILY,
            f"one delivery a day, complete when {demo_data.MARKER} is there; {demo_data.DAYS} days",
        )
        self.fact(demo_data.DROPS, "a drop folder: each new file is delivered once")
        self.console.print()
        self.say(f".demo/config/customers/acme.yaml, one of {states.count(len(CUSTOMERS), 'customer')}:")
        for line in (config / "customers" / "acme.yaml").read_text(encoding="utf-8").splitlines():
            self.console.print(f"     [dim]{escape(line)}[/]", soft_wrap=True)
        self.run("config", "check")

    def deliver(self, sandbox: Sandbox) -> None:
        self.title("Deliver to acme, then to globex")
        for name in ("acme", "globex"):
            self.run("run", "--customer", name)
            self.check_bucket(sandbox.customer(name))

    def look(self, acme: CustomerSetup) -> None:
        self.title("What acme finds in its bucket")
        self.run("list", "--customer", "acme", shown=12)
        period = (self.today - timedelta(days=1)).isoformat()
        key = manifest_key(acme.prefix, demo_data.DAILY, period, 1)
        manifest = json.loads(accounts.read_object(acme, key))
        self.console.print()
        self.say(f"the manifest of {period}, read with acme's own keys; every object that it lists is there")
        self.say(f"s3://{acme.bucket}/{key}")
        self.show_json(_abbreviated(manifest))
        count = self.check_manifest(acme, manifest, period)
        self.say(
            f"{states.count(count, 'object')} read back and compared with the files: identical, byte for byte"
        )

    def run_again(self, acme: CustomerSetup) -> None:
        self.title("Run it again: nothing is sent twice")
        before = self.bucket_state(acme)
        self.run("run", "--customer", "acme")
        if self.bucket_state(acme) != before:
            self.fail("the second run changed acme's bucket")

    def refuse(self, initech: CustomerSetup) -> None:
        self.title("What the operator sees when the customer must act")
        self.run("run", "--customer", "initech", expect=ExitCode.BLOCKED)
        self.say(
            f"exit code {ExitCode.BLOCKED}: blocked. The delivery waits and is not lost; "
            "other customers are not delayed"
        )
        if accounts.list_keys(initech):
            self.fail("something was written to initech's bucket")

    def ask_status(self) -> None:
        self.title("The state of all customers, from the ledger")
        self.run("status")

    def fix_trust_policy(self, initech: CustomerSetup) -> None:
        self.title("initech fixes its trust policy: the waiting delivery goes out")
        set_trust_policy(initech, guide_trust_policy(initech.external_id))
        self.run("run", "--customer", "initech")
        self.check_bucket(initech)

    def take_over(self, sandbox: Sandbox) -> None:
        self.title("From now on the daemon delivers, and serves a status page")
        program = demo_stage.program()
        self.daemon = demo_stage.start(program, self.directory, self.environment, self.port)
        demo_stage.write_state(self.directory, sandbox, self.daemon)
        if (wrong := demo_stage.await_ready(self.daemon, self.directory)) is not None:
            self.fail(wrong)
        self.fact("daemon", f"process {self.daemon.pid}; its log is .demo/{demo_stage.LOG}")
        self.fact("scans", f"every {demo_stage.TICK_SECONDS} seconds for data to deliver")

    def end(self, sandbox: Sandbox, seconds: str) -> None:
        self.title(f"Done in {seconds}" + ("; everything is still running" if self.keep else ""))
        if self.daemon is None:
            self.say("The local AWS is stopped, and .demo is removed. To try more, keep everything running:")
            self.commands(f"{demo_stage.program_shown()} demo --keep")
            return
        self.say("In a shell, with the page beside it; the daemon delivers the new file within seconds:")
        self.commands(
            ". .demo/env",
            f"date > .demo/data/{demo_data.DROPS}/new.csv",
            "xmode-transfer list --customer acme --feed drops",
            "xmode-transfer status --json",
        )
        self.say(f"{sandbox.id} and the daemon run until you stop them:")
        self.commands(f"{demo_stage.program_shown()} demo --stop")
        self.say("The status page:")
        self.commands(self.daemon.address)

    # --- Checks ----------------------------------------------------------------------------------------

    def sources(self, customer: CustomerSetup) -> dict[str, Path]:
        """The files that the customer should have, by their keys."""
        found = {}
        for feed in FEEDS_OF.get(customer.name, list(demo_data.FEEDS)):
            root = self.directory / "data" / feed
            for path in root.rglob("*.csv*"):
                found[object_key(customer.prefix, feed, str(path.relative_to(root)))] = path
        return found

    def check_bucket(self, customer: CustomerSetup) -> None:
        keys = accounts.list_keys(customer)
        objects = {key for key in keys if "/_manifests/" not in key}
        wanted = self.sources(customer).keys()
        if objects != wanted:
            self.fail(f"{customer.name} should have {len(wanted)} objects and has {len(objects)}")
        if len(objects) == len(keys):
            self.fail(f"{customer.name} has no manifest")

    def check_manifest(self, customer: CustomerSetup, manifest: Mapping[str, Any], period: str) -> int:
        """Reads back what the manifest lists; returns the number of objects."""
        day = f"/{period.replace('-', '/')}/"
        wanted = {key: path for key, path in self.sources(customer).items() if day in key}
        if {entry["key"] for entry in manifest["objects"]} != wanted.keys():
            self.fail(f"the manifest of {period} does not list that day's files")
        for key, path in wanted.items():
            if accounts.read_object(customer, key) != path.read_bytes():
                self.fail(f"{key} is not the file that was delivered")
        return len(wanted)

    def bucket_state(self, customer: CustomerSetup) -> dict[str, datetime]:
        """When each object was written."""
        pages = (
            accounts.owner(customer, "s3").get_paginator("list_objects_v2").paginate(Bucket=customer.bucket)
        )
        return {entry["Key"]: entry["LastModified"] for page in pages for entry in page["Contents"]}

    def fail(self, what: str) -> NoReturn:
        raise DemoFailed(
            f"The demo failed: {what}.",
            hint=f"the data, the configuration and the ledger are still in {demo_stage.DIRECTORY}",
        )

    # --- Output ----------------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        self.step += 1
        self.console.print(f"\n[bold cyan]{self.step}[/]  [bold]{escape(text)}[/]")

    def say(self, text: str) -> None:
        self.console.print(f"   {escape(text)}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Announces a slow step."""
        self.console.print(f"   [dim]{escape(text)}[/]", soft_wrap=True)

    def fact(self, name: str, text: str) -> None:
        self.console.print(f"   [green]{escape(name):<14}[/] {escape(text)}", soft_wrap=True)

    def commands(self, *lines: str) -> None:
        for line in lines:
            self.console.print(f"     [bold]{escape(line)}[/]", soft_wrap=True)

    def show_json(self, document: Mapping[str, Any]) -> None:
        for line in json.dumps(document, indent=2, ensure_ascii=False).splitlines():
            self.console.print(f"     [dim]{escape(line)}[/]", soft_wrap=True)

    def run(self, *arguments: str, expect: int = ExitCode.DONE, shown: int | None = None) -> None:
        """Runs the installed command, on our terminal or line by line. Fails unless it ends with ``expect``.
        ``shown``: of longer output, the first and the last lines, that many in all."""
        told = shlex.join(["xmode-transfer", *arguments])
        self.console.print(f"\n[bold]$ {escape(told)}[/]", soft_wrap=True)
        self.console.file.flush()
        command = [*demo_stage.program(), *arguments]
        if self.plain or shown:
            done = subprocess.run(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if self.plain else None,
                text=True,
                errors="replace",
                check=False,
            )
            for line in _shortened(done.stdout.splitlines(), shown):
                self.console.print(line, markup=False, soft_wrap=True)
            code = done.returncode
        else:
            code = subprocess.run(command, env=self.environment, check=False).returncode
        if code != expect:
            self.fail(f"`{told}` ended with exit code {code} instead of {expect}")


def _abbreviated(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its first object only."""
    objects = manifest["objects"]
    return {**manifest, "objects": [objects[0], f"and {len(objects) - 1} more"]}


def _shortened(lines: list[str], shown: int | None) -> Iterator[str]:
    if shown is None or len(lines) <= shown:
        yield from lines
        return
    head, tail = shown // 2, shown - shown // 2
    yield from lines[:head]
    yield f"  ... {len(lines) - shown:,} more lines ..."
    yield from lines[-tail:]


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM stops the demo as Ctrl-C does, so that nothing stays up."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
