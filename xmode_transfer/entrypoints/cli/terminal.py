"""Everything that a command prints goes through here: what others wrote is made visible, our colours stay.

A colour of ours is marked with a number that nobody outside this process knows, so an escape sequence in a
file's name, a key or an answer is never taken for one.
"""

import re
import secrets
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

import click

from xmode_transfer.domain.visible import visible

_KEPT = "\n\t"
_NUMBER = secrets.randbelow(10**12)
# click takes sequences of this form out where the output is no terminal, as it does with plain ones.
_MARK = f"\x1b[?{_NUMBER};"
_OURS = re.compile(rf"\x1b\[\?{_NUMBER};([0-9;]+)m")


def style(text: object, **how: Any) -> str:
    """As ``click.style``."""
    return click.style(visible(str(text), _KEPT), **how).replace("\x1b[", _MARK)


def secho(text: object, *, err: bool = False, **how: Any) -> None:
    """As ``click.secho``."""
    click.echo(style(text, **how), err=err)


def rendered(text: str) -> str:
    """What a terminal gets: all that is not seen as itself escaped, but our own colours."""
    pieces = _OURS.split(text)
    pieces[::2] = [visible(piece, _KEPT) for piece in pieces[::2]]
    pieces[1::2] = [f"\x1b[{code}m" for code in pieces[1::2]]
    return "".join(pieces)


class Screen:
    """Stands in for stdout or stderr."""

    def __init__(self, stream: TextIO) -> None:
        self.bare = stream

    def write(self, text: str) -> int:
        return self.bare.write(rendered(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # nothing gets by
            raise AttributeError(name)
        return getattr(self.bare, name)


def install() -> None:
    """From now on whatever is printed goes through a ``Screen``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Screen):
            setattr(sys, name, Screen(stream))


def bare(stream: TextIO) -> TextIO:
    """For who draws with escape sequences of its own (rich), or makes text visible itself (the log)."""
    return cast("TextIO", getattr(stream, "bare", stream))
