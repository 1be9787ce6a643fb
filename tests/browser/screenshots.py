"""`make screenshots`: takes the pictures that the README shows, from the demo's own data.

It runs the demo in a temporary directory, lets one customer make the mistake that the demo tells of, and
takes the status page of the daemon and the real output of three commands. Nothing is drawn by hand, and
nothing stays up.
"""

import fcntl
import json
import os
import pty
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from io import StringIO
from pathlib import Path

import click
from playwright.sync_api import Browser, Error, expect, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from xmode_transfer.aws.policy.documents import guide_trust_policy
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.accounts import set_trust_policy

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = CHECKOUT / "docs" / "images"
PROGRAM = Path(sys.executable).with_name("xmode-transfer")
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
COLUMNS = 100
PATIENCE_MS = 30_000
MOST_BYTES = 250_000
COMMANDS = (
    ("list", "--customer", "acme", "--summary"),
    ("verify", "--customer", "acme"),
    ("run", "--customer", "initech"),
)
ALREADY_RUNNING = 5

# The page's own dark colours.
THEME = TerminalTheme(
    (26, 29, 31),
    (230, 230, 227),
    [(69, 74, 78), (240, 144, 138), (108, 199, 149), (226, 173, 87), (134, 185, 238), (195, 162, 238),
     (120, 200, 205), (230, 230, 227)],
    [(160, 165, 169), (240, 144, 138), (108, 199, 149), (226, 173, 87), (134, 185, 238), (195, 162, 238),
     (120, 200, 205), (255, 255, 255)],
)  # fmt: skip
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #1a1d1f; color: #e6e6e3; width: max-content; }}
pre {{ margin: 0; padding: 20px 26px 22px; font: 15px/1.45 "DejaVu Sans Mono", monospace; }}
</style><pre>{code}</pre>"""


def main() -> int:
    if not CHROMIUM.exists():
        click.echo(f"There is no {CHROMIUM}. Install it: apt-get install chromium", err=True)
        return 2
    with tempfile.TemporaryDirectory(prefix="xmode-screenshots-") as name, sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except Error as error:
            click.echo(f"{CHROMIUM} does not start: {error.message}", err=True)
            return 2
        place = Path(name)
        # What is installed for the sandbox in the checkout serves here too.
        environment = {**os.environ, "XMODE_SANDBOX_HOME": str(CHECKOUT / ".sandbox")}
        try:
            click.echo("The demo runs (a minute) ...")
            subprocess.run(
                [PROGRAM, "demo", "--keep"], cwd=place, env=environment, check=True, stdout=subprocess.PIPE
            )
            address = break_initech(place)
            take_page(browser, address, IMAGES / "page.png")
            take_terminal(browser, place, IMAGES / "terminal.png")
        finally:
            subprocess.run([PROGRAM, "demo", "--stop"], cwd=place, env=environment, check=True)
            browser.close()
    for path in (IMAGES / "page.png", IMAGES / "terminal.png"):
        size = path.stat().st_size
        click.echo(f"{path.relative_to(CHECKOUT)}  {size:,} bytes")
        if size > MOST_BYTES:
            click.echo(f"That is more than {MOST_BYTES:,} bytes: show less.", err=True)
            return 1
    return 0


def break_initech(place: Path) -> str:
    """initech mistypes its external ID again, and there is something new for it; the page's address."""
    state = json.loads((place / ".demo" / "demo.json").read_text(encoding="utf-8"))
    sandbox = server.find(state["sandbox"], Path(state["home"]))
    initech = sandbox.customer("initech")
    set_trust_policy(initech, guide_trust_policy(initech.external_id.lower()))
    new = place / ".demo" / "data" / "drops" / "new.csv"
    new.write_text("place,note\nQuito,the sun is up for twelve hours\n", encoding="utf-8")
    return str(state["daemon"]["address"])


def take_page(browser: Browser, address: str, target: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="light")
    page.goto(address)
    issue = page.locator(".issue", has_text="initech")
    expect(issue).to_be_visible(timeout=PATIENCE_MS)  # the page brings itself up to date
    target.parent.mkdir(exist_ok=True)
    page.screenshot(path=target, full_page=True)
    page.close()


def take_terminal(browser: Browser, place: Path, target: Path) -> None:
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    for number, command in enumerate(COMMANDS):
        console.print(
            f"{chr(10) if number else ''}[dim]$[/] [bold]{shlex.join(['xmode-transfer', *command])}[/]"
        )
        console.print(Text.from_ansi(output(place, command).rstrip()), soft_wrap=True)
    code = console.export_html(theme=THEME, inline_styles=True, code_format="{code}")
    page = browser.new_page(viewport={"width": 400, "height": 200}, device_scale_factor=1)
    page.set_content(TERMINAL.format(code=code))
    page.screenshot(path=target, full_page=True)
    page.close()


def output(place: Path, command: tuple[str, ...]) -> str:
    """What a command of the demo prints on a terminal of ours; its bars go elsewhere."""
    while True:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        line = f'. .demo/env; COLUMNS={COLUMNS} exec "$0" "$@"'
        with subprocess.Popen(
            ["/bin/sh", "-c", line, PROGRAM, *command],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        ) as child:
            os.close(theirs)
            shown = b""
            try:
                while part := os.read(ours, 65_536):
                    shown += part
            except OSError:  # how Linux says that the other end is closed
                pass
            os.close(ours)
        if child.returncode != ALREADY_RUNNING:  # else the daemon is at it
            return shown.decode().replace("\r\n", "\n")
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
