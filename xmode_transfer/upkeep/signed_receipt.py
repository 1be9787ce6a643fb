"""The signed receipt: what a verification found, in a file that can be checked anywhere and at any time with
nothing but our public key.

JSON Lines, each line canonical JSON (UTF-8, keys sorted, no white space): the head, a line for each object in
the order of keys, the tail, and last the signature. So it is written and checked as a stream, a customer can
search it with any tool, and what was signed is simply every byte before the last line. docs/verify.md has the
format for customers.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from xmode_transfer.config import Customer
from xmode_transfer.model.manifest import canonical, timestamp
from xmode_transfer.model.verification import CheckedKey, Finding, Scope

FORMAT = "xmode-receipt/1"
ALGORITHM = "ed25519"
MAX_LINE_BYTES = 64 * 1024
"""A key has at most 1,024 bytes; a longer line is none of ours."""


def line(value: dict[str, Any]) -> bytes:
    """One line, as it is signed."""
    return (canonical(value) + "\n").encode()


def statement(sha256_hex: str) -> bytes:
    """What the signature is over: the digest of every byte before the last line, and what it is a digest
    of."""
    return f"{FORMAT} sha256 {sha256_hex}\n".encode()


def head(
    customer: Customer,
    vendor: str,
    scope: Scope,
    *,
    deep: bool,
    acl_sample: int | None,
    checked_at: datetime,
) -> dict[str, Any]:
    """``vendor`` is our principal; ``acl_sample`` how many objects' rights were looked at, None for all."""
    return {
        "format": FORMAT,
        "customer": customer.name,
        "company": customer.company,
        "bucket": customer.destination.bucket,
        "prefix": customer.destination.prefix,
        "vendor": vendor,
        **asdict(scope),
        "deep": deep,
        "acl": "all" if acl_sample is None else f"sample of {acl_sample}",
        "checked_at": timestamp(checked_at),
    }


def entry(checked: CheckedKey, finding: Finding | None) -> dict[str, Any]:
    """One object or manifest: what was delivered, and what lies there now."""
    known, judgement = checked.known, checked.judgement
    checksum = known.checksum
    return {
        "key": known.key,
        "kind": "manifest" if known.etag is None else "object",
        "feed": known.feed,
        "period": known.period,
        "revision": known.revision,
        "size": known.size if known.size is not None or checked.seen is None else checked.seen.size,
        "checksum": checksum and {"algorithm": checksum.algorithm, "value": checksum.value},
        "sha256": known.sha256,
        "etag": checked.seen.etag if checked.seen else None,
        "delivered_at": timestamp(known.delivered_at),
        "checked_at": timestamp(checked.checked_at),
        "verdict": str(finding.kind) if finding else "proven",
        "proof": str(judgement.proof) if judgement.proof and not finding else None,
        "rewritten": judgement.rewritten,
        "acl": None if checked.acl is None else "full_control" if checked.acl else "changed",
        "message": finding.message if finding else None,
    }


def tail(
    *, outcome: str, proven: int, bytes_proven: int, findings: dict[str, int], finished_at: datetime
) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "proven": proven,
        "bytes": bytes_proven,
        "findings": findings,
        "finished_at": timestamp(finished_at),
    }


def signature(*, key_id: str, public_key: str, sha256_hex: str, value: str) -> dict[str, Any]:
    """The last line. ``public_key`` and ``value`` in base64; the key is there to be looked at, never to be
    trusted: who checks brings ours along."""
    return {
        "signature": {
            "algorithm": ALGORITHM,
            "key_id": key_id,
            "public_key": public_key,
            "sha256": sha256_hex,
            "value": value,
        }
    }
