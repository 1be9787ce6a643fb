"""Checks of names in AWS. Each ``check_`` function returns its argument, or raises ValueError with the
mistake and, if possible, a suggestion."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-eusc")
EXTERNAL_ID_PATTERN = r"^[A-Za-z0-9=,.@:/_-]{2,1224}$"
EXTERNAL_ID_MIN, EXTERNAL_ID_MAX = 2, 1224  # STS AssumeRole: ExternalId
PREFIX_MAX_BYTES = 512  # half of a key's 1,024 bytes is left to the feed, the period and the file's name

_EXTERNAL_ID_CHARACTER = re.compile(r"[A-Za-z0-9=,.@:/_-]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IP = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
# S3 user guide, "General purpose bucket naming rules".
_BUCKET_STARTS = {"xn--": "are reserved by AWS", "sthree-": "are reserved by AWS"}
_BUCKET_ENDS = {
    "-s3alias": "are aliases of access points, which the customer's policy does not allow",
    "--ol-s3": "are aliases of Object Lambda access points, which the customer's policy does not allow",
    ".mrap": "are multi-region access points, which the customer's policy does not allow",
    "--x-s3": "are directory buckets, which have no ACLs: the guide does not fit them",
    "--table-s3": "are table buckets, which take no files",
}
# S3 user guide, "Object key naming guidelines": characters to avoid. Also '*', '?' and '$', which have a
# meaning in the Resource of our session policies.
_PREFIX_FORBIDDEN = frozenset('\\{}^%[]"<>~#|`*?$')
_JOINER = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
# From botocore's endpoints of all partitions; a test compares.
_AREAS = {
    "af": "south",
    "ap": "east northeast south southeast",
    "ca": "central west",
    "cn": "north northwest",
    "eu": "central north south west",
    "eu-isoe": "west",
    "eusc": "de-east",
    "il": "central",
    "me": "central south",
    "mx": "central",
    "sa": "east",
    "us": "east west",
    "us-gov": "east west",
    "us-iso": "east west",
    "us-isob": "east west",
    "us-isof": "east south",
}
REGION_STEMS = tuple(f"{area}-{side}" for area, sides in _AREAS.items() for side in sides.split())
"""Regions without their numbers."""
_NEAR = 0.8
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ZONE = re.compile(r"([a-z]{2,4}(?:-[a-z]+)+-[0-9]+)[a-z]")
_UNDASHED = re.compile(r"([a-z]{2}(?:-gov)?)-?([a-z]+)-?([0-9])")


def check_company(value: str) -> str:
    """Check that the name is visible text. Joiners between letters are allowed: some scripts need them."""
    if not value.strip() or len(value.splitlines()) > 1:
        raise ValueError("write the company's name on one line")
    shown = _JOINER.sub("", value)
    bad = next((character for character in shown if not character.isprintable()), None)
    if bad is None:
        return value
    plain = "".join(" " if c.isspace() else c for c in shown if c.isspace() or c.isprintable())
    named = unicodedata.name(bad, "a control character").lower()
    raise ValueError(
        f"U+{ord(bad):04X} ({named}) cannot be seen, so the name could not be typed again"
        + _meant(repr(" ".join(plain.split())))
    )


def check_external_id(value: str) -> str:
    """Check an external ID against the guide's alphabet. AWS allows ``+`` too, and is case-sensitive."""
    if "{" in value or "}" in value or value.casefold().startswith("replace with"):
        raise ValueError(
            "the guide's template text was left in; write the customer's own external ID, like AcmeCorp"
        )
    bad = sorted({character for character in value if not _EXTERNAL_ID_CHARACTER.fullmatch(character)})
    if bad:
        if any(character.isspace() for character in bad):
            detail = "the guide's template text or the company name was left in with its spaces; "
        elif any(ord(character) > 127 for character in bad):
            detail = f"{bad[-1]!r} is not ASCII; "
        else:
            detail = f"{bad[0]!r} is not allowed; "
        meant = "".join(character for character in value if _EXTERNAL_ID_CHARACTER.fullmatch(character))
        detail += "an external ID has only the letters A to Z, digits and = , . @ : / - _"
        raise ValueError(
            detail + (f" (did you mean {meant}?)" if EXTERNAL_ID_MIN <= len(meant) <= 64 else "")
        )
    if not EXTERNAL_ID_MIN <= len(value) <= EXTERNAL_ID_MAX:
        raise ValueError(
            f"AWS takes external IDs of {EXTERNAL_ID_MIN} to {EXTERNAL_ID_MAX:,} characters; "
            f"this one has {len(value)}"
        )
    return value


def check_bucket(value: str) -> str:
    if value.startswith("arn:"):
        match = re.fullmatch(r"arn:[a-z-]+:s3:::([^/]+)(/.*)?", value, re.DOTALL)
        meant = _meant(_bucket_meant(match[1], value)) if match else ""
        raise ValueError(f"write the bucket's name, not an ARN{meant}")
    rest = re.sub(r"^s3[an]?://", "", value, flags=re.IGNORECASE)
    if rest != value or "/" in value:
        bucket, _, prefix = rest.strip("/").partition("/")
        bucket, prefix = _bucket_meant(bucket, value), prefix.strip("/")
        detail = f" (did you mean bucket: {bucket}" + (f", prefix: {prefix}/?)" if prefix else "?)")
        raise ValueError("write the bucket's name, not a URI or a path" + (detail if bucket else ""))
    if not 3 <= len(value) <= 63:
        raise ValueError(f"a bucket's name has 3 to 63 characters; this one has {len(value)}")
    if value != value.lower():
        raise ValueError(f"a bucket's name has no capital letters{_meant(_bucket_meant(value, value))}")
    if _BUCKET.fullmatch(value) is None:
        raise ValueError(
            "a bucket's name has small letters, digits, hyphens and dots only, "
            f"and a letter or a digit at both ends{_meant(_bucket_meant(value, value))}"
        )
    if ".." in value:
        raise ValueError("a bucket's name has no two dots side by side")
    if _IP.fullmatch(value):
        raise ValueError("a bucket's name cannot look like an IP address")
    for start, reason in _BUCKET_STARTS.items():
        if value.startswith(start):
            raise ValueError(f"names that begin with {start} {reason}")
    for end, reason in _BUCKET_ENDS.items():
        if value.endswith(end):
            raise ValueError(f"names that end in {end} {reason}")
    return value


def _bucket_meant(part: str, written: str) -> str:
    return _valid(check_bucket, re.sub(r"[_\s]", "-", part.strip().lower()), written)


def _valid(check: Callable[[str], str], meant: str, written: str) -> str:
    try:
        return check(meant) if meant != written else ""
    except ValueError:
        return ""


def _meant(value: str) -> str:
    return f" (did you mean {value}?)" if value else ""


def check_prefix(value: str) -> str:
    """Check a prefix: empty for the whole bucket, or a path with a slash at its end only."""
    if not value:
        return value
    if value.startswith("/"):
        detail = _meant(_prefix_meant(value)) if value.strip("/") else ' (did you mean ""?)'
        raise ValueError(f"a leading slash makes a folder without a name{detail}")
    if "://" in value:
        raise ValueError("write the path inside the bucket only, like xmode/")
    bad = sorted({char for char in value if char in _PREFIX_FORBIDDEN or not char.isprintable()})
    if bad:
        raise ValueError(
            f"{bad[0]!r} is not allowed in a prefix: S3, its tools or its policies give it a meaning"
        )
    if unicodedata.normalize("NFC", value) != value:
        raise ValueError("write it in Unicode's composed form (NFC): S3 takes the two forms for two names")
    if not value.endswith("/"):
        raise ValueError(f"a prefix ends with a slash{_meant(_prefix_meant(value))}")
    for segment in value[:-1].split("/"):
        if segment in ("", ".", ".."):
            raise ValueError("empty, '.' and '..' folders are not allowed: clients resolve them away")
        if segment.endswith(".") or segment != segment.strip():
            raise ValueError(
                f"the folder {segment!r} ends with a dot or has a space at an end: clients drop it"
            )
    if len(value.encode()) > PREFIX_MAX_BYTES:
        raise ValueError(f"a prefix may have {PREFIX_MAX_BYTES} bytes; this one has {len(value.encode())}")
    return value


def _prefix_meant(value: str) -> str:
    return _valid(check_prefix, value.strip("/") + "/", value)


def check_region(value: str) -> str:
    """Check the form of a region only, since S3-compatible stores have regions of their own."""
    zone = _ZONE.fullmatch(value)
    if zone:
        raise ValueError(f"this is an availability zone (did you mean the region {zone[1]}?)")
    if _REGION.fullmatch(value) is None or len(value) > 63:
        meant = value.strip().lower().replace("_", "-").replace(" ", "-")
        detail = f" (did you mean {meant}?)" if _REGION.fullmatch(meant) else ""
        raise ValueError(f"{value!r} is not a region; write it like us-east-1{detail}")
    near = _UNDASHED.fullmatch(value)
    if near and (meant := f"{near[1]}-{near[2]}-{near[3]}") != value:
        raise ValueError(f"{value!r} is not a region (did you mean {meant}?)")
    return value


def region_doubt(region: str) -> str:
    """Return a sentence if the region looks like a misspelt one of AWS, else an empty text. Any number is
    accepted, because AWS adds regions."""
    from difflib import SequenceMatcher

    stem, _, number = region.rpartition("-")
    if not number.isdigit():
        stem, number = region, "1"
    if stem in REGION_STEMS and stem != region:
        return ""
    near = {known: SequenceMatcher(None, stem, known).ratio() for known in REGION_STEMS}
    nearest = max(near.values())
    if nearest < _NEAR:
        return ""
    meant = " or ".join(f"{known}-{number}" for known, likeness in near.items() if likeness == nearest)
    return f"{region} is not a known AWS region (did you mean {meant}?)"


def region_partition(region: str) -> str:
    starts = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"}
    return next((name for start, name in starts.items() if region.startswith(start)), PARTITIONS[0])


def check_region_in(region: str, partition: str, key: str) -> None:
    """Raise ValueError unless the region is in the partition, which is that of the ARN in ``key``."""
    if region_partition(region) != partition:
        raise ValueError(f"region {region} is not in {partition}, the partition of {key}")


_ACCOUNT = re.compile(r"[0-9]{12}")
_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")  # IAM: names of users and roles
_PATH = re.compile(r"/|/[!-~]{1,510}/")  # IAM: printable ASCII between slashes, 512 at most
_KMS = re.compile(r"[a-z0-9-]+:[0-9]{12}:(key/[A-Za-z0-9-]{1,256}|alias/[A-Za-z0-9/_-]{1,256})")
_ROLE_EXAMPLE = "arn:aws:iam::111122223333:role/XMode"


class IamArn(NamedTuple):
    """The parts of an IAM ARN; ``path`` begins and ends with a slash."""

    partition: str
    account_id: str
    kind: str
    path: str
    name: str


def check_account(account_id: str) -> str:
    """Check an account ID, which may have leading zeros."""
    if _ACCOUNT.fullmatch(account_id) is None:
        detail = f"{account_id!r} is not an AWS account ID: it has exactly 12 digits"
        if re.fullmatch(r"[0-9]{1,11}", account_id):
            detail += f" (were leading zeros lost? did you mean {account_id.zfill(12)}?)"
        elif re.fullmatch(r"[0-9]{4}[- ][0-9]{4}[- ][0-9]{4}", account_id):
            detail += f" (did you mean {re.sub('[- ]', '', account_id)}?)"
        raise ValueError(detail)
    return account_id


def check_partition(partition: str) -> str:
    if partition not in PARTITIONS:
        raise ValueError(f"{partition!r} is not an AWS partition; it is one of {', '.join(PARTITIONS)}")
    return partition


@lru_cache(maxsize=16_384)
def parse_iam(arn: str, kind: str) -> IamArn:
    """Parse the ARN of an IAM ``user`` or ``role``. Raises ValueError."""
    example = _ROLE_EXAMPLE if kind == "role" else _ROLE_EXAMPLE.replace("role/XMode", "user/name")
    fields = arn.split(":", 5)
    if len(fields) != 6 or fields[0] != "arn":
        raise ValueError(f"{arn!r} is not an ARN; a {kind} is written like {example}")
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
            f"{rest!r} is not a valid {kind} name: letters, digits and _+=,.@- (at most 64), after any path"
        )
    if len(arn) > 2048:
        raise ValueError("AWS takes a role ARN of 2,048 characters at most")
    return IamArn(partition, account, kind, path, name)


def check_role(arn: str) -> str:
    parse_iam(arn, "role")
    return arn


def check_user(arn: str) -> str:
    parse_iam(arn, "user")
    return arn


def check_kms_key(arn: str) -> str:
    """Check the full ARN of a KMS key or alias; a bare ID would mean one in our account."""
    fields = arn.split(":", 3)
    if len(fields) != 4 or fields[0] != "arn" or fields[2] != "kms" or not _KMS.fullmatch(fields[3]):
        raise ValueError(
            f"{arn!r} is not the ARN of a KMS key; write it in full, like "
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        )
    check_partition(fields[1])
    return arn
