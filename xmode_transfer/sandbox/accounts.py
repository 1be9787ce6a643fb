"""The accounts of a sandbox, through ordinary IAM calls: the vendor's user, and customers by the guide."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from xmode_transfer.aws.policy.documents import corrected_permission_policy
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

GUIDE = Path(__file__).with_name("guide")

Document = dict[str, Any]


def guide_trust_policy(external_id: str) -> Document:
    """The guide's trust policy, with nothing but the external ID filled in."""
    return _filled("trust-policy.json", "EXTERNAL-ID", external_id)


def guide_permission_policy(bucket: str) -> Document:
    """The guide's permission policy, with nothing but the bucket filled in."""
    return _filled("permission-policy.json", "BUCKET", bucket)


def permission_policy(customer: CustomerSetup) -> Document:
    """The permission policy that a customer of this variant attaches."""
    variant, bucket, prefix = customer.variant, customer.bucket, customer.prefix
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


_clients: dict[tuple[str, ...], Any] = {}
_sessions: list[Any] = []
_lock = threading.Lock()


def client(
    service: str, *, endpoint: str, access_key_id: str, secret_access_key: str, region: str, token: str = ""
) -> Any:
    """A client, made once for the same arguments; clients may be shared between threads.

    Profiles, configuration files and proxies of the environment are left aside: the sandbox is on loopback.
    """
    key = (service, endpoint, access_key_id, secret_access_key, region, token)
    with _lock:
        if key not in _clients:
            _clients[key] = _make(*key)
        return _clients[key]


def root_client(endpoint: str, root: Keys, service: str, region: str) -> Any:
    """A client of an account's root."""
    return client(
        service,
        endpoint=endpoint,
        access_key_id=root.access_key_id,
        secret_access_key=root.secret_access_key,
        region=region,
    )


def owner(customer: CustomerSetup, service: str) -> Any:
    """A client of the customer's account, as its root."""
    return root_client(customer.endpoint, customer.root, service, customer.region)


def read_object(customer: CustomerSetup, key: str) -> bytes:
    """The object's bytes. Raises botocore's NoSuchKey when there is none."""
    with owner(customer, "s3").get_object(Bucket=customer.bucket, Key=key)["Body"] as body:
        data: bytes = body.read()
    return data


def list_keys(customer: CustomerSetup, prefix: str = "") -> list[str]:
    """The keys in the bucket, in order: the current objects only."""
    pages = owner(customer, "s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=customer.bucket, Prefix=prefix)
    return [entry["Key"] for page in found for entry in page.get("Contents", ())]


def forget(endpoint: str) -> None:
    """Closes the clients of a sandbox that is being stopped."""
    with _lock:
        for key in [key for key in _clients if key[1] == endpoint]:
            _clients.pop(key).close()


def _make(service: str, endpoint: str, access_key_id: str, secret: str, region: str, token: str) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    if not _sessions:  # one for all: it keeps the service models that it has read
        session_vars = {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
        _sessions.append(Session(session_vars=session_vars))
    return _sessions[0].create_client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(
            proxies={},
            retries={"mode": "standard", "total_max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )


KNOWN_ACCOUNTS = {"acme": "111122223333", "globex": "222233334444"}
DEFAULT_CUSTOMERS = dict.fromkeys(KNOWN_ACCOUNTS, Variant.GUIDE)
DEFAULT_PREFIX = "xmode/"
POLICY_NAME = "XMode"


def set_up_vendor(sandbox: Sandbox) -> Keys:
    """Makes our own side as it is in AWS: one user with a key, who may assume other accounts' roles."""
    iam = root_client(sandbox.endpoint, sandbox.root(VENDOR_ACCOUNT), "iam", REGION)
    iam.create_user(UserName=VENDOR_USER)
    iam.put_user_policy(
        UserName=VENDOR_USER,
        PolicyName="assume-customer-roles",
        PolicyDocument=json.dumps(vendor_policy()),
    )
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
    prefix: str = DEFAULT_PREFIX,
    region: str = REGION,
) -> CustomerSetup:
    """Signs up one more customer while the sandbox runs; it does what the guide says, but for its variant.

    What is not given follows from the name: ``acme`` becomes Acme Corp with the external ID AcmeCorp, the
    bucket acme-data and an account of its own. Raises SandboxError when the name, account or bucket is taken.
    """
    company = company or f"{name.replace('-', ' ').title()} Corp"
    account = account or KNOWN_ACCOUNTS.get(name) or account_number(name)
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
        if (
            customer.name == other.name
            or customer.account == other.account
            or customer.bucket == other.bucket
        ):
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


def account_number(name: str) -> str:
    """A made-up account number that is always the same for the same name."""
    return str(10**11 + int(hashlib.sha256(name.encode()).hexdigest(), 16) % (9 * 10**11))


def trust_policy(customer: CustomerSetup) -> Document:
    """The trust policy that a customer of this variant attaches."""
    wanted = customer.external_id
    if customer.variant is Variant.WRONG_EXTERNAL_ID:
        wanted = f"not-{wanted}"
    return guide_trust_policy(wanted)


def set_trust_policy(customer: CustomerSetup, document: Document) -> None:
    """The customer edits its role's trust policy; it holds from the next AssumeRole on."""
    owner(customer, "iam").update_assume_role_policy(RoleName=ROLE_NAME, PolicyDocument=json.dumps(document))


def set_permission_policy(customer: CustomerSetup, document: Document) -> None:
    """The customer replaces its permission policy; it holds at once, for sessions that are open too."""
    iam, arn = owner(customer, "iam"), _policy_arn(customer)
    old = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True)
    iam.delete_policy_version(PolicyArn=arn, VersionId=old)


def delete_role(customer: CustomerSetup) -> None:
    """The customer deletes its role and policy."""
    iam, arn = owner(customer, "iam"), _policy_arn(customer)
    iam.detach_role_policy(RoleName=ROLE_NAME, PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)
    iam.delete_role(RoleName=ROLE_NAME)


def restore_role(customer: CustomerSetup) -> None:
    """The customer makes its role (again) by the guide's command-line steps, with its variant's documents."""
    iam = owner(customer, "iam")
    iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(trust_policy(customer)))
    iam.create_policy(PolicyName=POLICY_NAME, PolicyDocument=json.dumps(permission_policy(customer)))
    iam.attach_role_policy(RoleName=ROLE_NAME, PolicyArn=_policy_arn(customer))


def _make_bucket(customer: CustomerSetup) -> None:
    s3 = owner(customer, "s3")
    place = {} if customer.region == REGION else {"LocationConstraint": customer.region}
    s3.create_bucket(Bucket=customer.bucket, **({"CreateBucketConfiguration": place} if place else {}))
    if customer.variant is Variant.VERSIONED:
        s3.put_bucket_versioning(Bucket=customer.bucket, VersioningConfiguration={"Status": "Enabled"})
    if customer.variant is Variant.KMS_BUCKET:
        key = owner(customer, "kms").create_key(Description=f"{customer.bucket} at rest")["KeyMetadata"][
            "Arn"
        ]
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
        s3.put_bucket_encryption(Bucket=customer.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def _policy_arn(customer: CustomerSetup) -> str:
    return f"arn:aws:iam::{customer.account}:policy/{POLICY_NAME}"
