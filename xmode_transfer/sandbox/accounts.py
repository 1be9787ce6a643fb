"""The accounts of a sandbox, through ordinary IAM calls: the vendor's user, and customers by the guide."""

import hashlib
import json

from xmode_transfer.sandbox import policies
from xmode_transfer.sandbox.clients import owner, root_client
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
DEFAULT_PREFIX = "xmode/"
POLICY_NAME = "XMode"


def set_up_vendor(sandbox: Sandbox) -> Keys:
    """Makes our own side as it is in AWS: one user with a key, who may assume other accounts' roles."""
    iam = root_client(sandbox.endpoint, sandbox.root(VENDOR_ACCOUNT), "iam", REGION)
    iam.create_user(UserName=VENDOR_USER)
    iam.put_user_policy(
        UserName=VENDOR_USER,
        PolicyName="assume-customer-roles",
        PolicyDocument=json.dumps(policies.vendor_policy()),
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


def trust_policy(customer: CustomerSetup) -> policies.Document:
    """The trust policy that a customer of this variant attaches."""
    wanted = customer.external_id
    if customer.variant is Variant.WRONG_EXTERNAL_ID:
        wanted = f"not-{wanted}"
    return policies.guide_trust_policy(wanted)


def permission_policy(customer: CustomerSetup) -> policies.Document:
    """The permission policy that a customer of this variant attaches."""
    return policies.permission_policy(customer.variant, customer.bucket, customer.prefix)


def set_trust_policy(customer: CustomerSetup, document: policies.Document) -> None:
    """The customer edits its role's trust policy; it holds from the next AssumeRole on."""
    owner(customer, "iam").update_assume_role_policy(RoleName=ROLE_NAME, PolicyDocument=json.dumps(document))


def set_permission_policy(customer: CustomerSetup, document: policies.Document) -> None:
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
