"""setup.sh: the AWS CLI's way, in a script that may be run again."""

from shlex import quote

from xmode_transfer.domain.onboarding.values import DESCRIPTION, LIFECYCLE_DAYS, LIFECYCLE_RULE, KitValues
from xmode_transfer.domain.onboarding.written import json_text

_HEAD = """\
#!/usr/bin/env bash
# Makes the role with which XMode delivers into your bucket, by calls of the AWS CLI. It may be run again.
#
#   ./setup.sh               the role and its permission policy
#   ./setup.sh --replace     the same, for a role of this name that something else made
#   ./setup.sh --lifecycle   the bucket's rule that ends unfinished uploads, if the bucket has no rules yet
#
# Run it signed in to the account named below, by the AWS CLI's usual means (AWS_PROFILE and so on).
set -euo pipefail
export AWS_PAGER=
"""

_BODY = """\
say() { printf '%s\\n' "$*"; }
fail() { printf '%s\\n' "$*" >&2; exit 1; }

command -v aws >/dev/null || fail "The AWS CLI (the command aws) is not installed here."
here=$(aws sts get-caller-identity --query Account --output text)
[ "$here" = "$account" ] || fail "You are signed in to account $here; this role belongs into $account."

make_role() {
  if made_by=$(aws iam get-role --role-name "$role_name" --query Role.Description --output text \\
    2>/dev/null); then
    if [ "$made_by" != "$description" ] && [ "$replace" != yes ]; then
      fail "Something else made the role $role_name. To give it to XMode, run: $0 --replace"
    fi
    aws iam update-assume-role-policy --role-name "$role_name" --policy-document "$trust_policy"
    say "The role $role_name was there; its trust policy is up to date."
  else
    aws iam create-role --role-name "$role_name" --path "$role_path" --description "$description" \\
      --assume-role-policy-document "$trust_policy" >/dev/null
    say "Made the role $role_name."
  fi
  aws iam put-role-policy --role-name "$role_name" --policy-name "$policy_name" \\
    --policy-document "$permission_policy"
  say "Its permission policy $policy_name is up to date."
  if ! aws s3api head-bucket --bucket "$bucket" --expected-bucket-owner "$owner" >/dev/null 2>&1; then
    say "Note: you cannot see the bucket $bucket in account $owner. If it does not exist yet, make it."
  fi
  say "Done. Tell XMode that $role_arn is ready."
}

# AWS has no call that adds one rule: put-bucket-lifecycle-configuration replaces all rules of the bucket.
# So this adds the rule only to a bucket that has none.
make_lifecycle() {
  if rules=$(aws s3api get-bucket-lifecycle-configuration --bucket "$bucket" \\
    --expected-bucket-owner "$owner" --query 'Rules[].ID' --output text 2>&1); then
    case " $(printf '%s' "$rules" | tr '\\t\\n' '  ') " in
      *" $lifecycle_rule "*) say "The bucket has the rule $lifecycle_rule already."; return ;;
    esac
    say "The bucket has other lifecycle rules, which AWS would replace. Nothing was changed."
    say "Add this rule to them, for instance in the S3 console (bucket, Management, Lifecycle rules):"
    printf '%s\\n' "$lifecycle"
    return
  fi
  case $rules in
    *NoSuchLifecycleConfiguration*) ;;
    *) fail "$rules" ;;
  esac
  aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --expected-bucket-owner "$owner" \\
    --lifecycle-configuration "$lifecycle" >/dev/null
  say "The bucket $bucket now ends unfinished uploads after $lifecycle_days days."
}

replace=no
case ${1-} in
  '') make_role ;;
  --replace) replace=yes; make_role ;;
  --lifecycle) make_lifecycle ;;
  *) fail "usage: $0 [--replace | --lifecycle]" ;;
esac
"""


def setup_script(values: KitValues) -> str:
    customer = values.customer
    words = {
        "account": customer.account_id,
        "owner": customer.bucket_owner,
        "bucket": values.bucket,
        "role_name": values.role_name,
        "role_path": values.role_path,
        "role_arn": customer.role_arn,
        "policy_name": values.policy_name,
        "description": DESCRIPTION,
        "lifecycle_rule": LIFECYCLE_RULE,
        "lifecycle_days": str(LIFECYCLE_DAYS),
    }
    documents = {
        "trust_policy": values.trust_policy,
        "permission_policy": values.permission_policy,
        "lifecycle": values.lifecycle,
    }
    return "\n".join(
        [
            _HEAD,
            *(f"{name}={quote(word)}" for name, word in words.items()),
            "",
            *(_document(name, json_text(document)) for name, document in documents.items()),
            _BODY,
        ]
    )


def _document(name: str, text: str) -> str:
    """A variable from a here-document in which the shell fills nothing in. JSON's first column holds only its
    brackets here, so no line of it ends the document early."""
    return f"IFS= read -r -d '' {name} <<'DOCUMENT' || true\n{text}DOCUMENT\n"
