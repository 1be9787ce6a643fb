"""stdout and stderr, as every command has them: nothing that is wrong with them ends the work.

What stderr does not take is lost, and nobody is told: it is where one would tell. What stdout does not take
is reported by the exit code, since the answer is lost. A character that the encoding does not have is written
as JSON escapes it, so that a document stays one. What is not seen as itself, such as an escape sequence in a
file's name, is shown as an escape: it never speaks to the terminal.
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
_ASCII = "xmode-ascii"
SIGPIPE_CODE = 141
"""Exit code that a shell reports for a program ended by SIGPIPE, as with ``| head``."""


class OutputLost(Exception):
    """What is written to stdout goes nowhere any more. Not an OSError, nor one of ours: nobody on the way to
    ``main`` has an answer to it."""


class Stdout(io.FileIO):
    """The descriptor below stdout. After the first failure it takes everything and forgets it."""

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
    """The descriptor below stderr."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def prepare() -> Stdout:
    """Replaces Python's own streams, which are None if they were closed."""
    was_closed = [stream is None for stream in (sys.stdin, sys.stdout, sys.stderr)]
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file that is opened would have it: the ledger, for one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    out = Stdout(_usable(1, closed=was_closed[1]), "w", closefd=False)
    if was_closed[0]:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lives
    sys.stdout = _text(out, sys.stdout, always_line_buffering=False)
    err = _Stderr(_usable(2, closed=was_closed[2]), "w", closefd=False)
    sys.stderr = _text(err, sys.stderr, always_line_buffering=True)
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
        if name == "buffer":  # nothing gets by
            raise AttributeError(name)
        return getattr(self.bare, name)


def install_screens() -> None:
    """From now on whatever is printed goes through a ``Screen``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Screen):
            setattr(sys, name, Screen(stream))


def bare(stream: TextIO) -> TextIO:
    """For who draws with escape sequences of its own (rich), or makes text visible itself (the log)."""
    return cast("TextIO", getattr(stream, "bare", stream))


def exit_code(out: Stdout, code: int) -> int:
    """The code of a command that would end with ``code``, once everything is written."""
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
    """What NO_COLOR, FORCE_COLOR and TERM say; None where they leave it to whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if is_dumb() else None


def is_dumb() -> bool:
    """True if the terminal can only print lines."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def _usable(number: int, *, closed: bool) -> int:
    """Where it was closed, something else may have the number by now."""
    return os.open(os.devnull, os.O_WRONLY) if closed else number


def _text(raw: io.FileIO, before: TextIO | None, *, always_line_buffering: bool) -> io.TextIOWrapper:
    encoding = codecs.lookup(getattr(before, "encoding", None) or "utf-8").name
    lines = any(getattr(before, name, False) for name in ("line_buffering", "write_through"))
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=_ASCII if encoding == "ascii" else encoding,
        errors=ESCAPES,
        line_buffering=lines or always_line_buffering,
    )


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{text[at : at + 4]}" for at in range(0, len(text), 4)), error.end


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name: click takes what says "ascii" for a mistake, and writes UTF-8 to it."""
    if name.replace("_", "-") != _ASCII:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        ascii_.streamreader,
        ascii_.streamwriter,
        ascii_.incrementalencoder,
        ascii_.incrementaldecoder,
        name=_ASCII,
    )


codecs.register_error(ESCAPES, _escape)
codecs.register(_ascii)
