"""The customers' roles, assumed."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from xmode_transfer.aws.policy import Step
from xmode_transfer.config import Customer


@dataclass(frozen=True, slots=True)
class Credentials:
    """One role session's temporary credentials. Never logged: the representation hides them."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class CredentialsProvider(Protocol):
    """Gives one customer's credentials for one step, fresh for as long as it is used."""

    def get(self) -> Credentials:
        """Credentials with enough life left for a request begun now. Refreshes when they are near their end,
        with one STS call in flight however many threads ask. Raises RoleRefused (permanent),
        VendorIdentityError (ours), Throttled or Unavailable. Never answers another identity's credentials."""
        ...

    def invalidate(self, credentials: Credentials) -> None:
        """Says that S3 refused these as expired. The next ``get`` asks STS again, once for all who were given
        them."""
        ...


class RoleSessions(Protocol):
    """The customers' roles, assumed with their external IDs."""

    def verify_identity(self) -> str | None:
        """The ARN that our own credentials belong to; None when it is not verified (vendor.verify_identity).
        Raises VendorIdentityError when there are none, when AWS refuses them, or when they are not the
        configured vendor principal. No customer is touched."""
        ...

    def open(self, customer: Customer, step: Step) -> CredentialsProvider:
        """A provider keyed by (customer, step); the session policy allows that step's verbs below that prefix
        only. No call is made until ``get``."""
        ...

    def share_budget(self, participants: int) -> None:
        """So many processes ask STS from now on, this one among them: of the sessions that may be asked for
        in a second, each uses an equal part."""
        ...
