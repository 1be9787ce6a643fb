"""The accounts of a sandbox: the vendor's user, and customers set up by the guide through AWS calls."""

import hashlib
import json
import os
import threading
from dataclasses import asdict
from functools import cache
from typing import Any

from xmode_transfer.aws.policy.documents import (
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.sandbox.model import (
    REGION,
    ROLE_NAME,
    VENDOR_ACCOUNT,
    VENDOR_USER,
    CustomerSetup,
    Keys,
    Sandbox,
    SandboxError,
    Variant,
)

KNOWN_ACCOUNTS = {"acme": "111122223333", "globex": "222233334444"}
DEFAULT_CUSTOMERS = dict.fromkeys(KNOWN_ACCOUNTS, Variant.GUIDE)
POLICY_NAME = "XMode"

Document = dict[str, Any]

# --- Policies


def permission_policy(customer: CustomerSetup) -> Document:
    """Return the permission policy that a customer of this variant attaches."""
    variant, bucket, prefix = customer.variant, customer.bucket, customer.prefix
    if variant is Variant.ABORT_GRANTED:
        return corrected_permission_policy(bucket, prefix)
    document = guide_permission_policy(bucket)
    writing, reading, _ = document["Statement"]
    if variant is Variant.NO_ACL_CONDITION:
        del writing["Condition"]
    if variant is Variant.PREFIX_ONLY:
        writing["Resource"] = reading["Resource"] = f"arn:aws:s3:::{bucket}/{prefix}*"
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


def trust_policy(customer: CustomerSetup) -> Document:
    """Return the trust policy that a customer of this variant attaches."""
    wrong = customer.variant is Variant.WRONG_EXTERNAL_ID
    return guide_trust_policy(f"not-{customer.external_id}" if wrong else customer.external_id)


def vendor_policy() -> Document:
    """Return the policy of the vendor's user: assume roles of other accounts, and nothing else."""
    assume, own = {"Action": "sts:AssumeRole"}, f"arn:aws:iam::{VENDOR_ACCOUNT}:role/*"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", **assume, "Resource": "arn:aws:iam::*:role/*"},
            {"Effect": "Deny", **assume, "Resource": own},
        ],
    }


# --- Clients


_clients: dict[tuple[str, ...], Any] = {}
_lock = threading.Lock()


def client(
    service: str, *, endpoint: str, access_key_id: str, secret_access_key: str, region: str, token: str = ""
) -> Any:
    """Return a client, which threads may share; the same one for the same arguments. The environment's
    profiles, configuration files and proxies have no effect: the sandbox is on loopback."""
    from botocore.config import Config

    key = (service, endpoint, access_key_id, secret_access_key, region, token)
    with _lock:
        if key not in _clients:
            _clients[key] = _session().create_client(
                service,
                region_name=region,
                endpoint_url=endpoint,
                aws_access_key_id=access_key_id,
                aws_secret_access_key=secret_access_key,
                aws_session_token=token or None,
                config=Config(
                    proxies={},
                    retries={"mode": "standard", "total_max_attempts": 2},
                    s3={"addressing_style": "path"},
                ),
            )
        return _clients[key]


@cache
def _session() -> Any:
    """Return a session for all clients, because it keeps the service models that it has read."""
    from botocore.session import Session

    nowhere = (None, None, os.devnull, None)
    files = {"config_file": nowhere, "credentials_file": nowhere}
    return Session(session_vars={"profile": (None, None, None, None), **files})


def root_client(endpoint: str, root: Keys, service: str, region: str) -> Any:
    """Return a client of an account's root."""
    return client(service, endpoint=endpoint, region=region, **asdict(root))


def owner(customer: CustomerSetup, service: str) -> Any:
    """Return a client of the customer's account, as its root."""
    return root_client(customer.endpoint, customer.root, service, customer.region)


def read_object(customer: CustomerSetup, key: str) -> bytes:
    """Return the object's bytes. Raise botocore's NoSuchKey if there is none."""
    with owner(customer, "s3").get_object(Bucket=customer.bucket, Key=key)["Body"] as body:
        data: bytes = body.read()
    return data


def list_keys(customer: CustomerSetup, prefix: str = "") -> list[str]:
    """Return the keys of the current objects in the bucket, in order."""
    pages = owner(customer, "s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=customer.bucket, Prefix=prefix)
    return [entry["Key"] for page in found for entry in page.get("Contents", ())]


def forget(endpoint: str) -> None:
    """Close the clients of a sandbox that is being stopped."""
    with _lock:
        for key in [key for key in _clients if key[1] == endpoint]:
            _clients.pop(key).close()


# --- Accounts


def set_up_vendor(sandbox: Sandbox) -> Keys:
    """Create the vendor's side as it is in AWS: one user with a key, who may assume other accounts' roles."""
    iam = root_client(sandbox.endpoint, sandbox.root(VENDOR_ACCOUNT), "iam", REGION)
    iam.create_user(UserName=VENDOR_USER)
    policy = json.dumps(vendor_policy())
    iam.put_user_policy(UserName=VENDOR_USER, PolicyName="assume-customer-roles", PolicyDocument=policy)
    key = iam.create_access_key(UserName=VENDOR_USER)["AccessKey"]
    return Keys(key["AccessKeyId"], key["SecretAccessKey"])


def add_customer(
    sandbox: Sandbox,
    name: str,
    variant: Variant = Variant.GUIDE,
    *,
    account: str | None = None,
    company: str | None = None,
    external_id: str | None = None,
    bucket: str | None = None,
    prefix: str = "xmode/",
    region: str = REGION,
) -> CustomerSetup:
    """Add a customer to a running sandbox. It follows the guide, except where its variant differs. The
    defaults follow from the name. Raise SandboxError if the name, account or bucket is taken."""
    company = company or f"{name.replace('-', ' ').title()} Corp"
    made_up = str(10**11 + int(hashlib.sha256(name.encode()).hexdigest(), 16) % (9 * 10**11))
    account = account or KNOWN_ACCOUNTS.get(name, made_up)
    customer = CustomerSetup(
        name=name,
        company=company,
        account=account,
        external_id=external_id or "".join(company.split()),
        role_arn=f"arn:aws:iam::{account}:role/{ROLE_NAME}",
        bucket=bucket or f"{name}-data",
        prefix=prefix,
        region=region,
        variant=variant,
        endpoint=sandbox.endpoint,
        root=sandbox.root(account),
    )
    for other in sandbox.customers:
        if name == other.name or account == other.account or customer.bucket == other.bucket:
            raise SandboxError(
                f"The sandbox already has the customer {other.name}, "
                f"with account {other.account} and bucket {other.bucket}.",
                hint="Give the new customer a name, an account and a bucket of its own.",
            )
    _make_bucket(customer)
    if variant is not Variant.NO_ROLE:
        restore_role(customer)
    sandbox.customers.append(customer)
    sandbox.save()
    return customer


def set_trust_policy(customer: CustomerSetup, document: Document) -> None:
    """Replace the role's trust policy, as the customer. It applies from the next AssumeRole."""
    owner(customer, "iam").update_assume_role_policy(RoleName=ROLE_NAME, PolicyDocument=json.dumps(document))


def restore_role(customer: CustomerSetup) -> None:
    """Create the role by the guide's command-line steps, with the variant's documents, as the customer."""
    iam = owner(customer, "iam")
    iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(trust_policy(customer)))
    iam.create_policy(PolicyName=POLICY_NAME, PolicyDocument=json.dumps(permission_policy(customer)))
    iam.attach_role_policy(RoleName=ROLE_NAME, PolicyArn=policy_arn(customer))


def _make_bucket(customer: CustomerSetup) -> None:
    s3 = owner(customer, "s3")
    where = {"CreateBucketConfiguration": {"LocationConstraint": customer.region}}
    s3.create_bucket(Bucket=customer.bucket, **({} if customer.region == REGION else where))
    if customer.variant is Variant.VERSIONED:
        s3.put_bucket_versioning(Bucket=customer.bucket, VersioningConfiguration={"Status": "Enabled"})
    if customer.variant is Variant.KMS_BUCKET:
        key = owner(customer, "kms").create_key(Description=f"{customer.bucket} at rest")
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key["KeyMetadata"]["Arn"]}
        rule = {"ApplyServerSideEncryptionByDefault": default}
        s3.put_bucket_encryption(Bucket=customer.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def policy_arn(customer: CustomerSetup) -> str:
    return f"arn:aws:iam::{customer.account}:policy/{POLICY_NAME}"
