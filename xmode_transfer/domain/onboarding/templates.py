"""template.yaml for CloudFormation and main.tf for Terraform: the same role with the same documents."""

from xmode_transfer.domain.onboarding.values import DESCRIPTION, LIFECYCLE_DAYS, LIFECYCLE_RULE, KitValues
from xmode_transfer.domain.onboarding.written import hcl, quoted, yaml_lines


def cloudformation(values: KitValues) -> str:
    path = {"Path": values.role_path} if values.role_path != "/" else {}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": DESCRIPTION,
        "Resources": {
            "XModeRole": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": values.role_name,
                    **path,
                    "Description": DESCRIPTION,
                    "AssumeRolePolicyDocument": values.trust_policy,
                    "Policies": [
                        {"PolicyName": values.policy_name, "PolicyDocument": values.permission_policy}
                    ],
                },
            }
        },
        "Outputs": {
            "RoleArn": {
                "Description": "Tell XMode that this role is ready",
                "Value": {"Fn::GetAtt": ["XModeRole", "Arn"]},
            }
        },
    }
    return "\n".join(
        [
            f"# CloudFormation, for account {values.customer.account_id}. Everything is filled in:",
            "#   aws cloudformation deploy --stack-name xmode-delivery --template-file template.yaml \\",
            "#     --capabilities CAPABILITY_NAMED_IAM",
            "#",
            "# The bucket is yours and is there already, so that no template of ours can hold its lifecycle",
            "# rules: add the rule of lifecycle.json by hand, or with ./setup.sh --lifecycle.",
            *yaml_lines(template),
            "",
        ]
    )


def terraform(values: KitValues) -> str:
    customer = values.customer
    return f"""\
# Terraform, for account {customer.account_id}. Everything is filled in: `terraform init && terraform apply`,
# or take the directory as a module.

terraform {{
  required_version = ">= 1.3"
  required_providers {{
    aws = {{
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }}
  }}
}}

variable "manage_lifecycle" {{
  description = "Also manage the bucket's lifecycle rules. It replaces all rules that the bucket has."
  type        = bool
  default     = false
}}

resource "aws_iam_role" "xmode" {{
  name        = {hcl(values.role_name)}
  path        = {hcl(values.role_path)}
  description = {hcl(DESCRIPTION)}
  assume_role_policy = jsonencode({hcl(values.trust_policy, "  ")})
}}

resource "aws_iam_role_policy" "xmode" {{
  name = {hcl(values.policy_name)}
  role = aws_iam_role.xmode.id
  policy = jsonencode({hcl(values.permission_policy, "  ")})
}}

# AWS keeps one lifecycle configuration for a bucket and replaces it whole. Where the bucket has rules
# already, leave manage_lifecycle off and add this rule to them.
resource "aws_s3_bucket_lifecycle_configuration" "xmode" {{
  count  = var.manage_lifecycle ? 1 : 0
  bucket = {hcl(values.bucket)}

  rule {{
    id     = {quoted(LIFECYCLE_RULE)}
    status = "Enabled"

    filter {{
      prefix = {hcl(customer.destination.prefix)}
    }}

    abort_incomplete_multipart_upload {{
      days_after_initiation = {LIFECYCLE_DAYS}
    }}
  }}
}}

output "role_arn" {{
  description = "Tell XMode that this role is ready."
  value       = aws_iam_role.xmode.arn
}}
"""
