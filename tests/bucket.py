"""What tests do in a customer's bucket and account as the customer itself, past every policy."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from xmode_transfer.sandbox.accounts import list_keys, owner, policy_arn, read_object
from xmode_transfer.sandbox.model import ROLE_NAME, CustomerSetup, Sandbox

__all__ = [
    "Head",
    "delete_object",
    "delete_role",
    "empty_bucket",
    "head_object",
    "list_keys",
    "list_uploads",
    "list_versions",
    "object_acl",
    "put_object",
    "read_object",
    "remove_customer",
    "set_permission_policy",
]


@dataclass(frozen=True, slots=True)
class Head:
    """What a HEAD says. ``size`` in bytes; ``checksums`` in base64, by algorithm in lower case."""

    key: str
    size: int
    etag: str
    modified_at: datetime
    content_type: str
    metadata: dict[str, str]
    version_id: str | None
    encryption: str | None
    checksums: dict[str, str] = field(default_factory=dict)


def head_object(customer: CustomerSetup, key: str) -> Head | None:
    """None when nothing lies under the key."""
    s3 = owner(customer, "s3")
    try:
        answer = s3.head_object(Bucket=customer.bucket, Key=key, ChecksumMode="ENABLED")
    except s3.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise
    return Head(
        key=key,
        size=answer["ContentLength"],
        etag=answer["ETag"],
        modified_at=answer["LastModified"],
        content_type=answer.get("ContentType", ""),
        metadata=answer["Metadata"],
        version_id=answer.get("VersionId"),
        encryption=answer.get("ServerSideEncryption"),
        checksums={
            name.removeprefix("Checksum").lower(): value
            for name, value in answer.items()
            if name.startswith("Checksum") and name != "ChecksumType"
        },
    )


def put_object(customer: CustomerSetup, key: str, data: bytes) -> str:
    """The customer puts something of its own into its bucket; the ETag."""
    answer = owner(customer, "s3").put_object(Bucket=customer.bucket, Key=key, Body=data)
    return str(answer["ETag"])


def delete_object(customer: CustomerSetup, key: str) -> None:
    owner(customer, "s3").delete_object(Bucket=customer.bucket, Key=key)


def list_versions(customer: CustomerSetup, prefix: str = "") -> list[tuple[str, str, bool]]:
    """(key, version ID, whether it is a delete marker) of everything that the bucket holds."""
    pages = owner(customer, "s3").get_paginator("list_object_versions")
    found: list[tuple[str, str, bool]] = []
    for page in pages.paginate(Bucket=customer.bucket, Prefix=prefix):
        found += [(entry["Key"], entry["VersionId"], False) for entry in page.get("Versions", ())]
        found += [(entry["Key"], entry["VersionId"], True) for entry in page.get("DeleteMarkers", ())]
    return sorted(found)


def list_uploads(customer: CustomerSetup) -> list[tuple[str, str]]:
    """(key, upload ID) of the multipart uploads that were begun and not ended."""
    pages = owner(customer, "s3").get_paginator("list_multipart_uploads")
    found = pages.paginate(Bucket=customer.bucket)
    return [(entry["Key"], entry["UploadId"]) for page in found for entry in page.get("Uploads", ())]


def object_acl(customer: CustomerSetup, key: str) -> list[dict[str, Any]]:
    """The grants on an object, as S3 gives them."""
    grants: list[dict[str, Any]] = owner(customer, "s3").get_object_acl(Bucket=customer.bucket, Key=key)[
        "Grants"
    ]
    return grants


def empty_bucket(customer: CustomerSetup) -> None:
    """Deletes every version of every object, and ends every multipart upload."""
    s3 = owner(customer, "s3")
    for key, upload_id in list_uploads(customer):
        s3.abort_multipart_upload(Bucket=customer.bucket, Key=key, UploadId=upload_id)
    for key, version_id, _ in list_versions(customer):
        s3.delete_object(Bucket=customer.bucket, Key=key, VersionId=version_id)


def remove_customer(sandbox: Sandbox, customer: CustomerSetup) -> None:
    """The customer leaves: its bucket with all it holds, its role and its policy go; its name is free."""
    iam, s3 = owner(customer, "iam"), owner(customer, "s3")
    with suppress(s3.exceptions.NoSuchBucket):
        empty_bucket(customer)
        s3.delete_bucket(Bucket=customer.bucket)
    with suppress(iam.exceptions.NoSuchEntityException):
        delete_role(customer)
    sandbox.customers.remove(customer)
    sandbox.save()


def set_permission_policy(customer: CustomerSetup, document: dict[str, Any]) -> None:
    """Replace the permission policy, as the customer. It applies at once, to open sessions too."""
    iam, arn = owner(customer, "iam"), policy_arn(customer)
    old = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True)
    iam.delete_policy_version(PolicyArn=arn, VersionId=old)


def delete_role(customer: CustomerSetup) -> None:
    """Delete the role and its policy, as the customer."""
    iam, arn = owner(customer, "iam"), policy_arn(customer)
    iam.detach_role_policy(RoleName=ROLE_NAME, PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)
    iam.delete_role(RoleName=ROLE_NAME)
