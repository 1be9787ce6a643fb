"""stdout and stderr of every command. No problem with them ends the work.

What stderr does not accept is lost; for stdout the exit code says so. A character that the encoding lacks is
written as a JSON escape, so that a document stays valid. A control character never reaches the terminal.
"""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

from xmode_transfer.model.keys import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ESCAPES = "xmode.escaped"
SIGPIPE_CODE = 141  # as a shell reports for a program ended by SIGPIPE


class OutputLost(Exception):
    """stdout accepts no more. Not an OSError or XmodeError, because only ``main`` handles it."""


class Stdout(io.FileIO):
    """The descriptor below stdout. After the first failure it discards everything."""

    lost: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
                raise OutputLost from error
        return memoryview(data).nbytes


class _Stderr(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def prepare() -> Stdout:
    """Replace Python's streams, which are None if they were closed."""
    was_closed = [stream is None for stream in (sys.stdin, sys.stdout, sys.stderr)]
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # otherwise the next file that is opened gets it, such as the ledger
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # another file may have the number of a stream that was closed
    numbers = [os.open(os.devnull, os.O_WRONLY) if was_closed[number] else number for number in (1, 2)]
    out = Stdout(numbers[0], "w", closefd=False)
    if was_closed[0]:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lives
    sys.stdout = _text(out, sys.stdout, always_line_buffering=False)
    sys.stderr = _text(_Stderr(numbers[1], "w", closefd=False), sys.stderr, always_line_buffering=True)
    return out


class Screen:
    """Replaces stdout or stderr, and escapes what a terminal would interpret."""

    def __init__(self, stream: TextIO) -> None:
        self.bare = stream

    def write(self, text: str) -> int:
        return self.bare.write(visible(text, "\n\t"))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # it would bypass the screen
            raise AttributeError(name)
        return getattr(self.bare, name)


def install_screens() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Screen):
            setattr(sys, name, Screen(stream))


def bare(stream: TextIO) -> TextIO:
    """Return the stream below the screen, for rich and for the log, which escape text themselves."""
    return cast("TextIO", getattr(stream, "bare", stream))


def exit_code(out: Stdout, code: int) -> int:
    """Write what is buffered, and return the exit code of a command that would end with ``code``."""
    with contextlib.suppress(OutputLost):
        sys.stdout.flush()
    if out.lost is None:
        return code
    if out.lost.errno == errno.EPIPE:
        return SIGPIPE_CODE
    sys.stderr.write(
        f"the output could not be written: {out.lost.strerror}. Completed work is recorded: see "
        "`xmode-transfer status`, or run the command again with a writable output\n"
    )
    return code or 3


def colours_wanted() -> bool | None:
    """Return what NO_COLOR, FORCE_COLOR and TERM ask for; None if it depends on the terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if is_dumb() else None


def is_dumb() -> bool:
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def _text(raw: io.FileIO, before: TextIO | None, *, always_line_buffering: bool) -> io.TextIOWrapper:
    lines = any(getattr(before, name, False) for name in ("line_buffering", "write_through"))
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors=ESCAPES,
        line_buffering=lines or always_line_buffering,
    )


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{text[at : at + 4]}" for at in range(0, len(text), 4)), error.end


codecs.register_error(ESCAPES, _escape)
