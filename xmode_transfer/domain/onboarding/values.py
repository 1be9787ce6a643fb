"""What the files of a kit are filled with: a customer's own values, and the documents made of them."""

from dataclasses import dataclass
from typing import Any

from xmode_transfer.domain.config.arns import parse_iam
from xmode_transfer.domain.config.customer import Customer
from xmode_transfer.domain.findings import POLICY_NAME
from xmode_transfer.domain.policy import corrected_permission_policy, corrected_trust_policy
from xmode_transfer.domain.policy.kms import s3_service

LIFECYCLE_RULE = "abort-incomplete-xmode-uploads"
LIFECYCLE_DAYS = 7
DESCRIPTION = "Lets XMode deliver data files (made with its setup kit)"


@dataclass(frozen=True, slots=True)
class KitValues:
    """One customer's values. ``principal`` is the ARN of our own user."""

    customer: Customer
    principal: str

    @property
    def role_name(self) -> str:
        return parse_iam(self.customer.role_arn, "role").name

    @property
    def role_path(self) -> str:
        """Begins and ends with a slash."""
        return parse_iam(self.customer.role_arn, "role").path

    @property
    def policy_name(self) -> str:
        return POLICY_NAME

    @property
    def bucket(self) -> str:
        return self.customer.destination.bucket

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.customer.destination.prefix}"

    @property
    def trust_policy(self) -> dict[str, Any]:
        return corrected_trust_policy(self.customer.external_id, self.principal)

    @property
    def permission_policy(self) -> dict[str, Any]:
        place = self.customer.destination
        return corrected_permission_policy(
            place.bucket, place.prefix, place.kms_key_arn, self.region, partition=self.customer.partition
        )

    @property
    def region(self) -> str | None:
        """The bucket's, where it is known. S3 takes only keys of the bucket's own region."""
        place = self.customer.destination
        return place.region or (place.kms_key_arn.split(":")[3] if place.kms_key_arn else None)

    @property
    def lifecycle(self) -> dict[str, Any]:
        """Ends multipart uploads that nobody completed; S3 bills their parts until then."""
        return {
            "Rules": [
                {
                    "ID": LIFECYCLE_RULE,
                    "Status": "Enabled",
                    "Filter": {"Prefix": self.customer.destination.prefix},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": LIFECYCLE_DAYS},
                }
            ]
        }

    @property
    def key_statement(self) -> dict[str, Any] | None:
        """What the key's own policy needs where it does not leave its use to IAM policies."""
        if self.customer.destination.kms_key_arn is None or self.region is None:
            return None
        return {
            "Sid": "XModeThroughS3",
            "Effect": "Allow",
            "Principal": {"AWS": self.customer.role_arn},
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": "*",
            "Condition": {
                "StringEquals": {"kms:ViaService": s3_service(self.region, self.customer.partition)}
            },
        }

    @property
    def console(self) -> str:
        """Where the IAM console of the customer's partition is."""
        return {
            "aws-cn": "https://console.amazonaws.cn/iam/",
            "aws-us-gov": "https://console.amazonaws-us-gov.com/iam/",
            "aws-eusc": "https://console.amazonaws-eusc.eu/iam/",
        }.get(self.customer.partition, "https://console.aws.amazon.com/iam/")
