"""Numbers and sentences as people read them."""

import re
import shutil
import sys
import textwrap

import click

from xmode_transfer.entrypoints.figures import count, duration, size

__all__ = ["count", "duration", "folded", "size", "wrapped"]

_NARROWEST = 30


def folded(text: str) -> str:
    """Lines as they are, or on a narrower terminal each as several, of which the further ones are set in.
    Escape codes take no room. Elsewhere than on a terminal a line stays one."""
    if not sys.stdout.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    return "\n".join(_folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(click.unstyle(line)) <= width:
        return line
    set_in = " " * min(len(line) - len(line.lstrip()) + 4, width // 4)
    first, *rest = re.split(r"(?<=\S) ", line)
    lines = [first]
    for word in rest:
        longer = f"{lines[-1]} {word}"
        if len(click.unstyle(longer)) > width:
            lines.append(f"{set_in}{word.lstrip()}")
        else:
            lines[-1] = longer
    return "\n".join(lines)


def wrapped(text: str, indent: int, label: str = "") -> str:
    """A sentence below what it belongs to, as wide as the terminal (120 columns at most) and with its label
    in front of the first line."""
    width = min(max(shutil.get_terminal_size().columns, _NARROWEST), 120)
    if width < 60:  # what little room there is belongs to the words
        indent = min(indent, 2)
    first = " " * indent + (f"{label:<13}" if label else "")
    rest = " " * len(first)
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
