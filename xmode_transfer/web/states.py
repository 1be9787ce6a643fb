"""Symbols, colours and words of states, and numbers as people read them: for the terminal and the page."""

from collections.abc import Mapping

from xmode_transfer.model.keys import count

__all__ = ["RESPONSIBLE", "count", "duration", "shape", "size", "style", "tone"]

_SHAPES_AND_TONES: Mapping[tuple[str, str], str] = {
    ("check", "good"): "healthy delivered ok adopted attested cleaned removed proven ours active resolved"
    " sent valid",
    ("check-late", "warn"): "delivered_late",
    ("check-twice", "good"): "corrected",
    ("check", "quiet"): "skipped",
    ("target", "info"): "due planned queued dry_run expires found manifest table notice waiting",
    ("play", "info"): "running",
    ("clock", "warn"): "late",
    (
        "diamond",
        "warn",
    ): "no_source attention missing warning warned acl_changed unreadable unchecked elsewhere"
    " unclear superseded withdrawn incomplete unconfirmed refused stays",
    ("barred", "held"): "blocked suspended already_running retained held gone",
    ("barred", "bad"): "denied",
    ("alarm", "bad"): "failing failed error open changed altered manifest_differs table_altered"
    " table_differs differs stopped fix damaged inconsistent not_sent",
    ("alarm", "warn"): "unexpected",
    ("pause", "bad"): "quarantined",
    ("cross", "bad"): "broken critical",
    ("cross", "quiet"): "rejected",
    ("dash", "quiet"): "retired passed_over interrupted unmanaged",
    ("ring", "quiet"): "pending resting",
    ("dot", "quiet"): "expected info",
    ("blank", "quiet"): "nothing",
}
_SHAPE_AND_TONE_OF = {word: pair for pair, words in _SHAPES_AND_TONES.items() for word in words.split()}
_STYLES = {"good": "green", "info": "cyan", "warn": "yellow", "held": "yellow", "bad": "red"}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
RESPONSIBLE: Mapping[str, str] = {
    "vendor": "the vendor",
    "customer": "the customer",
    "aws": "AWS, or the network to it",
}


def _shape_and_tone(word: str) -> tuple[str, str]:
    return _SHAPE_AND_TONE_OF.get(word.replace(" ", "_").replace("-", "_"), ("dot", "quiet"))


def shape(word: str) -> str:
    """Return the page's symbol for a state: it says the same as the colour, also in print."""
    return _shape_and_tone(word)[0]


def tone(word: str) -> str:
    """Return what a state's colour means: good, info, warn, held, bad or quiet."""
    return _shape_and_tone(word)[1]


def style(word: str) -> str:
    """Return the terminal's colour."""
    return _STYLES.get(tone(word), "bright_black")


def size(count: float) -> str:
    """``104857600`` -> ``104.9 MB`` (decimal units, as clouds bill)."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``59 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
