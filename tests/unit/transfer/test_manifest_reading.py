"""The keys of manifests."""

from xmode_transfer.model.keys import manifest_key
from xmode_transfer.transfer.manifest_reading import ManifestKey, parse_manifest_key


def test_the_key_of_a_manifest_has_its_feed_period_and_revision() -> None:
    for period in ("2026-11-22", "2026-11-22T05", "2026-W47", "2026-11", "none"):
        key = manifest_key("xmode/", "us-daily", period, 12)
        assert parse_manifest_key("xmode/", key) == ManifestKey("us-daily", period, 12)
    for key in (
        "xmode/us-daily/_manifests/2026-11-22/1.json",
        "xmode/us-daily/_manifests/2026-11-22/000000.json",
        "xmode/us-daily/_manifests/2026-11-99/000001.json",
        "xmode/us-daily/_manifests/2026-11-22/000001.json.bak",
        "xmode/a/us-daily/_manifests/2026-11-22/000001.json",
        "other/us-daily/_manifests/2026-11-22/000001.json",
    ):
        assert parse_manifest_key("xmode/", key) is None
