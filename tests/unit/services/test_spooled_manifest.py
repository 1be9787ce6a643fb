"""A manifest that was read to disk."""

import json
from typing import Any

import pytest

from xmode_transfer.adapters.spool import SpooledFile
from xmode_transfer.domain.manifest_reading import NoManifest
from xmode_transfer.services import spooled_manifest

CHECKSUM = {"algorithm": "crc32", "value": "AAAAAA=="}


def manifest(listed: str, missing: str) -> SpooledFile:
    document: dict[str, Any] = {
        "format": "xmode-manifest/1",
        "missing": [_entry(name) | {"reason": "deleted"} for name in missing],
        "objects": [
            _entry(name) | {"delivered_at": "2026-11-22T00:00:00Z", "sha256": None} for name in listed
        ],
    }
    return SpooledFile([json.dumps(document).encode()])


def _entry(name: str) -> dict[str, Any]:
    return {"key": f"xmode/{name}", "source": name, "size": 1, "checksum": CHECKSUM}


@pytest.mark.parametrize(("listed", "missing"), [("", ""), ("ac", ""), ("ac", "b"), ("b", "ac"), ("", "ab")])
def test_each_name_is_listed_or_missing(listed: str, missing: str) -> None:
    with manifest(listed, missing) as body:
        spooled_manifest.check_missing(body)
        assert "".join(item.name for some in spooled_manifest.missing(body) for item in some) == missing
        assert "".join(item.name for item in spooled_manifest.planned(body, "adopted")) == listed


@pytest.mark.parametrize(("listed", "missing"), [("ab", "b"), ("", "aa"), ("c", "ba")])
def test_none_is_both_or_comes_twice(listed: str, missing: str) -> None:
    with manifest(listed, missing) as body, pytest.raises(NoManifest, match="out of order or twice"):
        spooled_manifest.check_missing(body)
