"""Vouching for what is written into buckets."""

from typing import Protocol


class Attestation(Protocol):
    """Our signature under manifests, and whether one is ours."""

    def sign(self, statement: bytes) -> dict[str, str] | None:
        """The signature as a manifest carries it; None where there is no key to sign with."""
        ...

    def doubt(self, statement: bytes, signature: object) -> str | None:
        """Why ``signature``, as it was read from a manifest, does not vouch for the statement, in words for
        people; None when it does."""
        ...
