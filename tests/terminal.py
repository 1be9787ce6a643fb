"""A terminal for a command: what it writes, and what of that is on the screen in the end."""

import contextlib
import os
import re
import termios
import threading
from collections.abc import Mapping, Sequence

from tests import commands

_CODE = re.compile(r"\x1b\[(?P<number>[0-9;?]*)(?P<letter>[A-Za-z])|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


def on_terminal(
    command: Sequence[str], environment: Mapping[str, str], *, columns: int = 120, seconds: float = 120
) -> tuple[int, str]:
    """Runs it with stdin, stdout and stderr on a terminal; the exit code and all that was written."""
    variables = {name: value for name, value in environment.items() if name != "COLUMNS"}
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # that is how the end of a terminal is told
            while piece := os.read(ours, 65536):
                written.extend(piece)

    reader = threading.Thread(target=read)
    process = commands.Started(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True
    )
    os.close(theirs)
    reader.start()
    try:
        code = process.wait(seconds)
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)
    return code, written.decode()


def screen(written: str) -> list[str]:
    """The lines that are left; knows as much of a terminal's codes as progress lines use."""
    lines, row, column = [""], 0, 0
    at = 0
    while at < len(written):
        if code := _CODE.match(written, at):
            at = code.end()
            count = int(code["number"] or 0) if (code["number"] or "").isdigit() else 0
            if code["letter"] == "A":
                row = max(0, row - (count or 1))
            elif code["letter"] == "K":
                lines[row] = "" if count == 2 else lines[row][:column]
            continue
        character = written[at]
        at += 1
        if character == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        elif character == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
