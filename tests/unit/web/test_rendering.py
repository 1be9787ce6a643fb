"""What the page shows of text that others wrote."""

from xmode_transfer.web.pages import _environment, ticked

HOSTILE = "<b>a\u202etxt.exe\x9b\u2066</b>"
SHOWN = "&lt;b&gt;a\\u202etxt.exe\\u009b\\u2066&lt;/b&gt;"


def test_control_characters_in_names_are_escaped() -> None:
    template = _environment().from_string('<p title="{{ text }}">{{ text }} {{ text | ticked }}</p>')
    assert template.render(text=HOSTILE) == f'<p title="{SHOWN}">{SHOWN} {SHOWN}</p>'
    assert ticked("a `b`") == "a <code>b</code>"
