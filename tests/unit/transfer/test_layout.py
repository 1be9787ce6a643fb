"""Which feed and period a key belongs to."""

import pytest

from xmode_transfer.config import Feed
from xmode_transfer.model.keys import manifest_key
from xmode_transfer.transfer.layout import Layout, ManifestPlace, manifest_place

LAYOUT = Layout(
    "xmode/",
    {
        "us-daily": Feed(name="us-daily", source="/d", period="day", partition="%Y/%m/%d"),
        "weekly": Feed(name="weekly", source="/w", period="week", partition="w=%G-%V"),
        "drops": Feed(name="drops", source="/n", period="none"),
    },
)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("xmode/us-daily/2026/11/22/a.csv", ("us-daily", "2026-11-22")),
        ("xmode/us-daily/2026/11/22/_r2/a.csv", ("us-daily", "2026-11-22")),
        ("xmode/us-daily/2026/13/22/a.csv", ("us-daily", None)),
        ("xmode/us-daily/2026/11/readme", ("us-daily", None)),
        ("xmode/us-daily/_manifests/2026-11-22/000002.json", ("us-daily", "2026-11-22")),
        ("xmode/us-daily/_manifests/notes.txt", ("us-daily", None)),
        ("xmode/weekly/w=2026-47/a/b", ("weekly", "2026-W47")),
        ("xmode/drops/anything/at/all", ("drops", "none")),
        ("xmode/us-daily", (None, None)),
        ("xmode/nobody/2026/11/22/a.csv", (None, None)),
        ("xmode/notes.txt", (None, None)),
    ],
)
def test_a_key_tells_its_feed_and_period(key: str, place: tuple[str | None, str | None]) -> None:
    assert LAYOUT.place(key) == place


def test_a_manifest_s_key_says_what_it_is_of() -> None:
    for period in ("2026-11-22", "2026-11-22T05", "2026-W47", "2026-11", "none"):
        key = manifest_key("xmode/", "us-daily", period, 12)
        assert manifest_place("xmode/", key) == ManifestPlace("us-daily", period, 12)
    for key in (
        "xmode/us-daily/_manifests/2026-11-22/1.json",
        "xmode/us-daily/_manifests/2026-11-22/000000.json",
        "xmode/us-daily/_manifests/2026-11-99/000001.json",
        "xmode/us-daily/_manifests/2026-11-22/000001.json.bak",
        "xmode/a/us-daily/_manifests/2026-11-22/000001.json",
        "other/us-daily/_manifests/2026-11-22/000001.json",
    ):
        assert manifest_place("xmode/", key) is None
