"""A page of instructions as values, written as Markdown and as HTML from the one text."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """Words to type or to look for, exactly."""

    text: str


@dataclass(frozen=True, slots=True)
class Strong:
    """A name on a button or in a menu."""

    text: str


Text = tuple[str | Code | Strong, ...]


_MARKED = re.compile(r"\*\*(?P<strong>.+?)\*\*|`(?P<code>.+?)`|\{(?P<name>\w+)(?P<plain>:plain)?\}")


def text(template: str, **values: str) -> Text:
    """A sentence of ours with marks: asterisks around a button, backticks around a command, ``{name}`` for a
    value to copy and ``{name:plain}`` for one to read. What the values hold is never taken for a mark."""
    parts: list[str | Code | Strong] = []
    position = 0
    for mark in _MARKED.finditer(template):
        parts.append(template[position : mark.start()])
        position = mark.end()
        if mark["strong"] is not None:
            parts.append(Strong(mark["strong"]))
        elif mark["code"] is not None:
            parts.append(Code(mark["code"]))
        else:
            value = values[mark["name"]]
            parts.append(value if mark["plain"] else Code(value))
    return tuple(part for part in (*parts, template[position:]) if part)


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: Text


@dataclass(frozen=True, slots=True)
class Listing:
    """Something to copy: a document or commands. ``title`` says what."""

    title: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    items: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """A numbered list; a step may end with something to copy."""

    items: tuple[tuple[Text, Listing | None], ...]


@dataclass(frozen=True, slots=True)
class Values:
    """Names and their values, in a table."""

    title: str
    rows: tuple[tuple[str, str], ...]


Block = Heading | Paragraph | Listing | Bullets | Steps | Values


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    blocks: tuple[Block, ...]


# --- Markdown ------------------------------------------------------------------------------------------

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&~])")


def markdown(page: Page) -> str:
    blocks = ("\n".join(_md_block(block)) for block in page.blocks)
    return "\n\n".join([f"# {_md_text(page.title)}", *blocks]) + "\n"


def _md_block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"## {_md((text,))}"
        case Paragraph(text):
            yield _md(text)
        case Listing():
            yield from _md_listing(block, "")
        case Bullets(items):
            for item in items:
                yield f"- {_md(item)}"
        case Steps(items):
            for number, (text, listing) in enumerate(items, 1):
                lead = f"{number}. "
                yield lead + _md(text)
                if listing is not None:
                    yield ""
                    yield from _md_listing(listing, " " * len(lead))
                    yield ""
        case Values(_, rows):
            yield "| | |"
            yield "|---|---|"
            for name, value in rows:
                yield f"| {_md((name,))} | {_md_code(value)} |"


def _md_listing(listing: Listing, indent: str) -> Iterator[str]:
    longest = max((len(run) for run in re.findall("`+", listing.text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{indent}{fence}{listing.language}"
    for line in listing.text.rstrip("\n").split("\n"):
        yield f"{indent}{line}".rstrip()
    yield f"{indent}{fence}"


def _md(text: Text) -> str:
    written = []
    for part in text:
        match part:
            case Code(code):
                written.append(_md_code(code))
            case Strong(strong):
                written.append(f"**{_md_text(strong)}**")
            case str():
                written.append(_md_text(part))
    return "".join(written)


def _md_text(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _md_code(code: str) -> str:
    if "`" not in code:
        return f"`{code}`"
    longest = max(len(run) for run in re.findall("`+", code))
    ticks = "`" * (longest + 1)
    return f"{ticks} {code} {ticks}"


# --- HTML ----------------------------------------------------------------------------------------------

_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8a8a8a; --soft: #f2f2f2; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --line: #6f6f6f; --soft: #242424; --link: #9ec2ff; } }
body { font: 1rem/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 52rem; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
a { color: var(--link); } a:focus-visible, pre:focus-visible { outline: 3px solid var(--link); }
.skip { position: absolute; left: -999rem; } .skip:focus { position: static; }
code { font: 0.92em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); border: 1px solid var(--line); overflow-x: auto; padding: 0.75rem; }
pre code { overflow-wrap: normal; } figure { margin: 0.75rem 0; } figcaption { font-size: 0.9rem; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; }
th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 0.6rem 0.35rem 0; text-align: left; }
th { vertical-align: top; }
li { margin: 0.4rem 0; }
@media print {
  nav, .skip { display: none; } body { max-width: none; font-size: 10pt; } a { color: inherit; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
""".strip()


def html_page(page: Page) -> str:
    """A page of its own: no script, nothing loaded from anywhere, fit for a screen reader and for paper."""
    headings = [block.text for block in page.blocks if isinstance(block, Heading)]
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_POLICY}">',
        f"<title>{_e(page.title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        "</head>",
        "<body>",
        '<a class="skip" href="#content">To the instructions</a>',
        f"<header><h1>{_e(page.title)}</h1></header>",
        '<nav aria-label="On this page"><ul>',
        *(f'<li><a href="#{_anchor(text)}">{_e(text)}</a></li>' for text in headings),
        "</ul></nav>",
        '<main id="content">',
    ]
    for block in page.blocks:
        lines += _html_block(block)
    return "\n".join([*lines, "</main>", "</body>", "</html>", ""])


def _html_block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f'<h2 id="{_anchor(text)}">{_e(text)}</h2>'
        case Paragraph(text):
            yield f"<p>{_inline(text)}</p>"
        case Listing():
            yield _figure(block)
        case Bullets(items):
            yield "<ul>"
            for item in items:
                yield f"<li>{_inline(item)}</li>"
            yield "</ul>"
        case Steps(items):
            yield "<ol>"
            for text, listing in items:
                yield f"<li>{_inline(text)}{_figure(listing) if listing is not None else ''}</li>"
            yield "</ol>"
        case Values(title, rows):
            yield f"<table><caption>{_e(title)}</caption>"
            for name, value in rows:
                yield f'<tr><th scope="row">{_e(name)}</th><td><code>{_e(value)}</code></td></tr>'
            yield "</table>"


def _figure(listing: Listing) -> str:
    # A box that scrolls is reached by the keyboard only when it takes the focus.
    return (
        f'<figure><figcaption>{_e(listing.title)}</figcaption><pre tabindex="0" role="region" '
        f'aria-label="{_e(listing.title)}"><code>{_e(listing.text.rstrip(chr(10)))}</code></pre></figure>'
    )


def _inline(text: Text) -> str:
    written = []
    for part in text:
        match part:
            case Code(code):
                written.append(f"<code>{_e(code)}</code>")
            case Strong(strong):
                written.append(f"<strong>{_e(strong)}</strong>")
            case str():
                written.append(_e(part))
    return "".join(written)


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _e(text: str) -> str:
    return html.escape(text, quote=True)
