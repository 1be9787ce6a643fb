"""Write signed receipts of verifications and reports of recalls, and check them offline. Both are streams of
JSON lines: a head, entries that have a key, other facts, a tail, and the signature."""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

from xmode_transfer import telemetry
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import ConfigError, ReceiptRefused
from xmode_transfer.model.keys import unseen_character
from xmode_transfer.model.manifest import canonical, timestamp
from xmode_transfer.model.upkeep import CheckedKey, Finding, Scope
from xmode_transfer.transfer.signing import PublicKey, Signer

FORMAT = "xmode-receipt/1"
RECALL_FORMAT = "xmode-recall/1"
ALGORITHM = "ed25519"
MAX_LINE_BYTES = 64 * 1024  # a key has at most 1,024 bytes
_MOST_KEPT = 1000
_SETTLED = frozenset({"proven", "deleted", "gone"})  # the verdicts that need nobody's attention


def line(value: dict[str, Any]) -> bytes:
    return (canonical(value) + "\n").encode()


def statement(sha256_hex: str, form: str = FORMAT) -> bytes:
    """Return what is signed: the digest of all bytes before the last line."""
    return f"{form} sha256 {sha256_hex}\n".encode()


def _signature(key: PublicKey, digest: str, value: bytes) -> bytes:
    """Return the last line."""
    signature = {
        "algorithm": ALGORITHM,
        "key_id": key.key_id,
        "public_key": key.base64,  # for information; never trusted by a check
        "sha256": digest,
        "value": base64.b64encode(value).decode(),
    }
    return line({"signature": signature})


def head(
    customer: Customer, vendor: str, scope: Scope, *, deep: bool, acl_sample: int | None, checked_at: datetime
) -> dict[str, Any]:
    """Return the first line. ``vendor`` is our principal; None as ``acl_sample`` reads all ACLs."""
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
    """Return the line of an object or manifest: what was delivered, and what exists now."""
    known, judgement = checked.known, checked.judgement
    checksum = known.checksum
    return {
        "key": known.key,
        "kind": "table" if checked.of_table else "manifest" if known.is_manifest else "object",
        "feed": known.feed,
        "period": known.period,
        "revision": known.revision,
        "size": known.size if known.size is not None or checked.seen is None else checked.seen.size,
        "checksum": checksum and checksum._asdict(),
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


class ReceiptFile:
    """A receipt or report that is being written; only its owner may read it. It gets its name when it is
    signed. The context manager deletes an unfinished file."""

    def __init__(self, path: Path, signer: Signer, form: str = FORMAT) -> None:
        """Raise ConfigError if the file exists or cannot be created."""
        self.path = path
        self._form = form
        self._signer = signer
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")
        self._sha256 = hashlib.sha256()
        if path.exists():
            raise ConfigError(f"the file {path} already exists", hint="name a new file")
        try:
            descriptor = os.open(self._partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            self._file: BinaryIO = os.fdopen(descriptor, "wb")
        except OSError as error:
            hint = "name a file in a directory that you may write to"
            raise ConfigError(f"{path} cannot be written: {error.strerror}", hint=hint) from None

    @property
    def key_id(self) -> str:
        return self._signer.public.key_id

    def add(self, value: dict[str, Any]) -> None:
        data = line(value)
        self._sha256.update(data)
        self._file.write(data)

    def sign(self, tail: dict[str, Any]) -> None:
        """Adds the last line but one and signs the receipt. The file is on disk afterwards."""
        self.add(tail)
        digest = self._sha256.hexdigest()
        value = self._signer.sign(statement(digest, self._form))
        self._file.write(_signature(self._signer.public, digest, value))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self.path)
        telemetry.log(telemetry.Event.RECEIPT_SIGNED, file=str(self.path), key_id=self.key_id, sha256=digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)


@dataclass(slots=True)
class CheckedReceipt:
    """``findings`` has the first thousand entries that are not proven, or not removed by a recall;
    ``entries`` counts all."""

    head: dict[str, Any]
    tail: dict[str, Any]
    key_id: str
    entries: int
    findings: list[dict[str, Any]] = field(default_factory=list)


def check(path: Path, keys: Sequence[PublicKey]) -> CheckedReceipt:
    """Raise ReceiptRefused if the file is truncated, altered, or not signed with one of these keys."""
    try:
        with path.open("rb") as file:
            return _check(path, file, {key.key_id: key for key in keys})
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="name a receipt's file") from None


def _check(path: Path, file: BinaryIO, keys: dict[str, PublicKey]) -> CheckedReceipt:
    sha256 = hashlib.sha256()
    head: dict[str, Any] | None = None
    last: dict[str, Any] = {}
    entries = 0
    findings: list[dict[str, Any]] = []
    lines = _lines(path, file)
    for raw, value in lines:
        if head is None:
            head = value
            if head.get("format") not in (FORMAT, RECALL_FORMAT):
                raise _refused(path, f"it is no receipt of the form {FORMAT} and no report {RECALL_FORMAT}")
        elif "signature" in value:
            if next(lines, None) is not None:
                raise _refused(path, "something follows after its signature")
            key_id = _check_signature(path, raw, value["signature"], sha256.hexdigest(), head["format"], keys)
            return CheckedReceipt(head, last, key_id, entries, findings)
        elif "key" in value:
            unseen = unseen_character(str(value["key"]))
            if unseen is not None:
                raise _refused(path, f"a key of it has {unseen}, which no object of ours has")
            entries += 1
            if value.get("verdict") not in _SETTLED and len(findings) < _MOST_KEPT:
                findings.append(value)
        else:
            last = value
        sha256.update(raw)
    raise _refused(path, _UNSIGNED)


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
    while raw := file.readline(MAX_LINE_BYTES):
        if not raw.endswith(b"\n"):
            raise _refused(path, "its last line is truncated")
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            raise _refused(path, "a line of it is no JSON: it was altered, or is no receipt") from None
        if not isinstance(value, dict):
            raise _refused(path, "a line of it is no JSON object: it was altered, or is no receipt")
        yield raw, value


def _check_signature(
    path: Path, raw: bytes, signature: object, digest: str, form: str, keys: dict[str, PublicKey]
) -> str:
    if not isinstance(signature, dict):
        raise _refused(path, _UNSIGNED)
    key_id = str(signature.get("key_id"))
    key = keys.get(key_id)
    if key is None:
        ours = ", ".join(sorted(keys))
        raise _refused(
            path,
            f"it is signed with the key {key_id}, not with {ours}",
            hint="if that was an earlier key of ours, check with its public key (--public-key FILE); else do "
            "not rely on it",
        )
    if signature.get("sha256") != digest:
        raise _refused(path, "it was altered after it was signed: its content has another SHA-256")
    try:
        value = base64.b64decode(str(signature.get("value")), validate=True)
    except (binascii.Error, ValueError):
        raise _refused(path, "its signature is no base64") from None
    if not key.has_signed(statement(digest, form), value):
        raise _refused(path, f"its signature is not by the key {key_id}: somebody else made it")
    if raw != _signature(key, digest, value):
        raise _refused(path, "its last line was altered after it was signed")
    return key_id


_UNSIGNED = "it has no signature: it is truncated, or was never finished"


def _refused(
    path: Path, why: str, hint: str = "do not rely on it: ask for the original, or verify the delivery again"
) -> ReceiptRefused:
    return ReceiptRefused(f"{path} is no valid receipt: {why}", hint=hint)
