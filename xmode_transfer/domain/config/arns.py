"""ARNs as the configuration needs them: the vendor's user, a customer's role, a KMS key."""

import re
from functools import lru_cache
from typing import NamedTuple

PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-eusc")

_ACCOUNT = re.compile(r"[0-9]{12}")
_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")  # IAM: names of users and roles
_PATH = re.compile(r"/|/[!-~]{1,510}/")  # IAM: printable ASCII between slashes, 512 at most
_KMS = re.compile(r"[a-z0-9-]+:[0-9]{12}:(key/[A-Za-z0-9-]{1,256}|alias/[A-Za-z0-9/_-]{1,256})")
_ROLE_EXAMPLE = "arn:aws:iam::111122223333:role/XMode"


class IamArn(NamedTuple):
    """An IAM ARN taken apart; ``path`` begins and ends with a slash."""

    partition: str
    account_id: str
    kind: str
    path: str
    name: str


def check_account(account_id: str) -> str:
    """An account ID. Raises ValueError; an account's leading zeros belong to it."""
    if _ACCOUNT.fullmatch(account_id) is None:
        told = f"{account_id!r} is no AWS account ID: it has exactly 12 digits"
        if re.fullmatch(r"[0-9]{1,11}", account_id):
            told += f" (were leading zeros lost? did you mean {account_id.zfill(12)}?)"
        elif re.fullmatch(r"[0-9]{4}[- ][0-9]{4}[- ][0-9]{4}", account_id):
            told += f" (did you mean {re.sub('[- ]', '', account_id)}?)"
        raise ValueError(told)
    return account_id


def check_partition(partition: str) -> str:
    """Raises ValueError unless it is one of PARTITIONS."""
    if partition not in PARTITIONS:
        raise ValueError(f"{partition!r} is no AWS partition; it is one of {', '.join(PARTITIONS)}")
    return partition


@lru_cache(maxsize=16_384)  # asked for the same few fields of the same ARN all the time
def parse_iam(arn: str, kind: str) -> IamArn:
    """The ARN of an IAM ``user`` or ``role``. Raises ValueError that says what was given instead."""
    example = _ROLE_EXAMPLE if kind == "role" else _ROLE_EXAMPLE.replace("role/XMode", "user/name")
    fields = arn.split(":", 5)
    if len(fields) != 6 or fields[0] != "arn":
        raise ValueError(f"{arn!r} is no ARN; a {kind} is written like {example}")
    _, partition, service, region, account, resource = fields
    if service == "sts" and resource.startswith("assumed-role/"):
        name = resource.split("/")[1]
        raise ValueError(
            "this is a role session, not the role itself "
            f"(did you mean arn:{partition}:iam::{account}:role/{name}?)"
        )
    if service != "iam":
        raise ValueError(f"this is an ARN of {service or 'no service'}, not of iam; write it like {example}")
    check_partition(partition)
    if region:
        raise ValueError(f"an IAM ARN has no region; leave out {region!r}, so that it reads like {example}")
    check_account(account)
    found, _, rest = resource.partition("/")
    if found != kind or not rest:
        raise ValueError(f"this is the ARN of {found or 'nothing'}, not of a {kind}; write it like {example}")
    path, _, name = rest.rpartition("/")
    path = f"/{path}/" if path else "/"
    if _NAME.fullmatch(name) is None or _PATH.fullmatch(path) is None or "//" in f"/{rest}":
        raise ValueError(
            f"{rest!r} is no name of a {kind}: letters, digits and _+=,.@- (64 at most), after a path if any"
        )
    if len(arn) > 2048:
        raise ValueError("AWS takes a role ARN of 2,048 characters at most")
    return IamArn(partition, account, kind, path, name)


def check_kms_key(arn: str) -> str:
    """The full ARN of a KMS key or alias; a bare ID would name one in our own account. Raises ValueError."""
    fields = arn.split(":", 3)
    if len(fields) != 4 or fields[0] != "arn" or fields[2] != "kms" or not _KMS.fullmatch(fields[3]):
        raise ValueError(
            f"{arn!r} is no ARN of a KMS key; write it in full, like "
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        )
    check_partition(fields[1])
    return arn
