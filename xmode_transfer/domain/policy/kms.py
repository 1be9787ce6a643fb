"""How a policy names a KMS key, and S3 as the service that uses it."""

from collections.abc import Sequence
from typing import Any

from xmode_transfer.domain.policy.patterns import literal


def key_statement(kms_key_arn: str, actions: Sequence[str]) -> dict[str, Any]:
    """Allows the actions on that key. KMS checks a request against the key's own ARN, never against an
    alias's, so an alias is named in a condition (KMS Developer Guide, "Using aliases to control access to
    KMS keys")."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions)}
    where, separator, alias = kms_key_arn.partition(":alias/")
    if not separator:
        return {**statement, "Resource": literal(kms_key_arn)}
    return {
        **statement,
        "Resource": f"{where}:key/*",
        "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": f"alias/{alias}"}},
    }


def s3_service(region: str, partition: str = "aws") -> str:
    """S3 in a region as ``kms:ViaService`` names it."""
    return f"s3.{region}." + {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}.get(
        partition, "amazonaws.com"
    )
