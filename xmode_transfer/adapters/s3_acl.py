"""What GetObjectAcl answers, as the domain knows it."""

from collections.abc import Mapping
from typing import Any

from xmode_transfer.domain.acl import Grant, ObjectAcl


def object_acl(answer: Mapping[str, Any]) -> ObjectAcl:
    """From the answer as botocore parses it (S3 API reference, GetObjectAcl)."""
    return ObjectAcl(
        str(answer.get("Owner", {}).get("ID", "")),
        frozenset(
            Grant(_grantee(grant.get("Grantee", {})), str(grant.get("Permission", "")))
            for grant in answer.get("Grants", ())
        ),
    )


def _grantee(grantee: Mapping[str, Any]) -> str:
    return str(grantee.get("ID") or grantee.get("URI") or grantee.get("EmailAddress") or "")
