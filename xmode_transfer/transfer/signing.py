"""Sign, check and create Ed25519 keys. No other module imports ``cryptography``."""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from xmode_transfer import telemetry
from xmode_transfer.config.secrets import read_secret
from xmode_transfer.config.service import Receipts, raw_public_key
from xmode_transfer.model.errors import ConfigError


class PublicKey:
    """Checks signatures. ``key_id`` identifies the key, in sixteen hex digits."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]
        self.base64 = base64.b64encode(raw).decode()

    @property
    def pem(self) -> str:
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer:
    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def configured_signer(receipts: Receipts) -> Signer | None:
    """Raise ConfigError if the configured key cannot be read."""
    if receipts.key is None:
        return None
    return signer_of(read_secret(receipts.key, "receipts.key"), f"receipts.key ({receipts.key})")


def configured_public_keys(receipts: Receipts) -> list[PublicKey]:
    raw_keys = map(raw_public_key, receipts.public_keys)
    return [PublicKey(Ed25519PublicKey.from_public_bytes(raw)) for raw in raw_keys]


def signer_of(pem: str, where: str) -> Signer:
    """Reads a private key in PEM from ``where``. Raises ConfigError, which never has the key."""
    hint = (
        "create one: xmode-transfer verify --new-key FILE (or: openssl genpkey -algorithm ed25519 -out FILE)"
    )
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        hint = f"use one without; {hint}"
        raise ConfigError(f"{where}: the private key has a passphrase", hint=hint) from None
    except ValueError:
        raise ConfigError(f"{where}: this is no private key in PEM", hint=hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{where}: this is no Ed25519 key", hint=hint)
    return Signer(key)


def public_key_of(path: Path) -> PublicKey:
    """Reads a public key's file in PEM. Raises ConfigError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        hint = "name our public key's file"
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    except ValueError:
        hint = "use the file that ends in .pub, which `verify --new-key` creates"
        raise ConfigError(f"{path} is no public key in PEM", hint=hint) from None
    if not isinstance(key, Ed25519PublicKey):
        hint = "use the .pub file of the key that signs receipts"
        raise ConfigError(f"{path} is no Ed25519 key", hint=hint)
    return PublicKey(key)


def new_key(path: Path) -> tuple[Path, PublicKey]:
    """Creates a private key in ``path`` (mode 0600) and its public key beside it. Returns the latter and its
    path. Never replaces a file: nothing more can be signed with a lost key. Raises ConfigError."""
    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    for target in (path, public):
        if target.exists():
            hint = "use another name; keys are never replaced"
            raise ConfigError(f"the file {target} already exists", hint=hint)
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = PublicKey(key.public_key())
    for target, content, mode in ((path, private_pem, 0o600), (public, made.pem.encode(), 0o644)):
        try:
            with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
        except OSError as error:
            hint = "name a file in a directory that you may write to"
            raise ConfigError(f"{target} cannot be written: {error.strerror}", hint=hint) from None
    return public, made


class ManifestSignatures:
    """Attestation with the configured keys, which are read on first use: most commands need none."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    def sign(self, statement: bytes) -> dict[str, str] | None:
        """Return the signature for a manifest; None without a key."""
        signer = self._signer
        if signer is None:
            return None
        return {"key": signer.public.key_id, "value": base64.b64encode(signer.sign(statement)).decode()}

    def why_not_attested(self, statement: bytes, signature: object) -> str | None:
        """Return in words why a manifest's signature does not attest the statement; None if it does."""
        if signature is None:
            return "its manifest has no signature"
        keys = self._public
        if not keys:
            return "service.yaml has no key to check its manifest's signature (receipts.public_keys)"
        fields = signature if isinstance(signature, Mapping) else {}
        key = keys.get(str(fields.get("key")))
        if key is None:
            return "its manifest is signed with a key that is not in receipts.public_keys"
        try:
            value = base64.b64decode(str(fields.get("value")), validate=True)
        except (binascii.Error, ValueError):
            value = b""
        if not key.has_signed(statement, value):
            return "its manifest's signature is not ours: it was changed, or signed for another location"
        return None

    @cached_property
    def _signer(self) -> Signer | None:
        try:
            return configured_signer(self._receipts)
        except ConfigError as error:  # must not stop a delivery
            telemetry.warn(telemetry.Event.MANIFEST_UNSIGNED, **error.log_context())
            return None

    @cached_property
    def _public(self) -> dict[str, PublicKey]:
        own = [self._signer.public] if self._signer is not None else []
        return {key.key_id: key for key in (*own, *configured_public_keys(self._receipts))}
