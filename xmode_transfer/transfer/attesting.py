"""Sign manifests and check their signatures: implements ``Attestation``."""

import base64
import binascii
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.config.service import Receipts
from xmode_transfer.model.errors import ConfigError

if TYPE_CHECKING:
    from xmode_transfer.transfer.signing import PublicKey, Signer


class ManifestSignatures:
    """Implements ``Attestation`` with the configured keys. The keys are read, and their library is imported,
    on first use: most commands need none."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    def sign(self, statement: bytes) -> dict[str, str] | None:
        signer = self._signer
        if signer is None:
            return None
        return {
            "key": signer.public.key_id,
            "value": base64.b64encode(signer.sign(statement)).decode(),
        }

    def why_not_attested(self, statement: bytes, signature: object) -> str | None:
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
    def _signer(self) -> "Signer | None":
        """None if no key is configured, or if it cannot be read, which must not stop a delivery."""
        if self._receipts.key is None:
            return None
        from xmode_transfer.transfer.signing import configured_signer

        try:
            return configured_signer(self._receipts)
        except ConfigError as error:
            telemetry.warn(telemetry.Event.MANIFEST_UNSIGNED, **error.log_context())
            return None

    @cached_property
    def _public(self) -> "dict[str, PublicKey]":
        from xmode_transfer.transfer.signing import configured_public_keys

        own = [self._signer.public] if self._signer is not None else []
        return {key.key_id: key for key in (*own, *configured_public_keys(self._receipts))}
