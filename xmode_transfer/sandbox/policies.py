"""The documents that a sandbox's customer attaches: the guide's own, and how customers differ from it."""

import json
from pathlib import Path
from typing import Any

from xmode_transfer.aws.policy.documents import corrected_permission_policy
from xmode_transfer.sandbox.model import VENDOR_ACCOUNT, Variant

GUIDE = Path(__file__).with_name("guide")

Document = dict[str, Any]


def guide_trust_policy(external_id: str) -> Document:
    """The guide's trust policy, with nothing but the external ID filled in."""
    return _filled("trust-policy.json", "EXTERNAL-ID", external_id)


def guide_permission_policy(bucket: str) -> Document:
    """The guide's permission policy, with nothing but the bucket filled in."""
    return _filled("permission-policy.json", "BUCKET", bucket)


def permission_policy(variant: Variant, bucket: str, prefix: str) -> Document:
    """The permission policy of a customer of this variant."""
    if variant is Variant.ABORT_GRANTED:
        return corrected_permission_policy(bucket, prefix)
    document = guide_permission_policy(bucket)
    writing, reading, _ = document["Statement"]
    if variant is Variant.NO_ACL_CONDITION:
        del writing["Condition"]
    if variant is Variant.PREFIX_ONLY:
        below = f"arn:aws:s3:::{bucket}/{prefix}*"
        writing["Resource"] = reading["Resource"] = below
        reading["Action"].remove("s3:ListBucket")
        document["Statement"].append(
            {
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": f"arn:aws:s3:::{bucket}",
                "Condition": {"StringLike": {"s3:prefix": f"{prefix}*"}},
            }
        )
    return document


def vendor_policy() -> Document:
    """What the vendor's user may do in its own account: assume roles of other accounts, and nothing else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/*"},
            {
                "Effect": "Deny",
                "Action": "sts:AssumeRole",
                "Resource": f"arn:aws:iam::{VENDOR_ACCOUNT}:role/*",
            },
        ],
    }


def _filled(name: str, word: str, value: str) -> Document:
    text = (GUIDE / name).read_text(encoding="utf-8")
    document: Document = json.loads(text.replace(word, json.dumps(value)[1:-1]))
    return document
