"""What is known of a customer's access before it is checked, filled into findings."""

from dataclasses import dataclass

from xmode_transfer.aws.policy import VENDOR_PRINCIPAL
from xmode_transfer.config import Customer
from xmode_transfer.config.names import parse_iam


@dataclass(frozen=True, slots=True)
class Facts:
    """A customer's own values, as the sentences and statements name them. ``prefix`` is empty or ends with a
    slash; ``region`` is the bucket's where it is known."""

    external_id: str
    role_arn: str
    bucket: str
    prefix: str = ""
    region: str | None = None
    bucket_owner: str = ""
    kms_key_arn: str | None = None
    principal: str = VENDOR_PRINCIPAL
    partition: str = "aws"

    @property
    def account(self) -> str:
        return parse_iam(self.role_arn, "role").account_id

    @property
    def role_name(self) -> str:
        """The name alone, without path, as IAM's calls take it."""
        return parse_iam(self.role_arn, "role").name

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def facts_of(customer: Customer, principal: str, *, region: str | None = None) -> Facts:
    """The customer's facts; ``region`` is the bucket's as learnt, else the configured one is taken."""
    destination = customer.destination
    return Facts(
        external_id=customer.external_id,
        role_arn=customer.role_arn,
        bucket=destination.bucket,
        prefix=destination.prefix,
        region=region or destination.region,
        bucket_owner=customer.bucket_owner,
        kms_key_arn=destination.kms_key_arn,
        principal=principal,
        partition=customer.partition,
    )
