"""Numbers and sentences as people read them."""

import shutil
import textwrap

from xmode_transfer.entrypoints.figures import count, duration, size

__all__ = ["count", "duration", "size", "wrapped"]


def wrapped(text: str, indent: int, label: str = "") -> str:
    """A sentence below what it belongs to, as wide as the terminal (80 to 120 columns) and with its label in
    front of the first line."""
    width = min(max(shutil.get_terminal_size().columns, 80), 120)
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
